"""What a pair of texts is: two strings, a row, the columns of a table, a line of a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from residua.caution import warn
from residua.encoding.documents import ERRORS, column, items
from residua.errors import InputError, ParameterError

Pair = tuple[str, str]


def text_pairs(
    texts: Any, source_column: str = "source", target_column: str = "target", errors: str = "strict"
) -> Iterator[Pair]:
    """(source, target) of each pair, lazily and in order.

    A file has one on each line: ``.jsonl`` an object with the two columns, ``.tsv`` a source, a tab and a target. Its
    lines that are no UTF-8 are an ``InputError``; with `errors` ``"replace"`` they have U+FFFD there, and with
    ``"skip"`` they are left out and counted in a warning.
    """
    if errors not in ERRORS:
        raise ParameterError(f"errors={errors!r}; expected one of {', '.join(map(repr, ERRORS))}")
    columns = {"source_column": source_column, "target_column": target_column}
    for number, item in enumerate(items(texts, columns)):
        if isinstance(item, os.PathLike):
            yield from _in_file(Path(item), columns, errors)
        else:
            yield _pair(item, f"item {number}", columns)


def _pair(item: Any, where: str, columns: Mapping[str, str]) -> Pair:
    pair = tuple(column(item, name, option) for option, name in columns.items()) if isinstance(item, Mapping) else item
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
        kind = type(item).__name__
        raise InputError(f"{where} is {kind}; expected a pair of texts (source, target), or a row")
    return pair[0], pair[1]


def _in_file(path: Path, columns: Mapping[str, str], errors: str) -> Iterator[Pair]:
    if path.suffix not in (".jsonl", ".tsv"):
        forms = "a .jsonl file with an object per line, or a .tsv file with a tab between source and target"
        raise InputError(f"{path}: an encoder-decoder reads pairs; expected {forms}")
    skipped = number = 0
    try:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                where = f"{path}, line {number}"
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8", errors.replace("skip", "strict"))
                except UnicodeDecodeError as error:
                    if errors != "skip":
                        raise InputError(f"{where} is not UTF-8: pass errors='replace', or errors='skip'") from error
                    skipped += 1
                    continue
                if text.strip():
                    yield _pair(_parsed(text.rstrip("\r\n"), path.suffix, where), where, columns)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if skipped:
        warn(f"{skipped} of {number} lines of {path} are no UTF-8 and were left out")


def _parsed(line: str, suffix: str, where: str) -> Any:
    if suffix == ".tsv":
        parts = tuple(line.split("\t"))
        if len(parts) != 2:
            raise InputError(f"{where}: no pair; expected source TAB target")
        return parts
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: no pair; expected an object in JSON") from error
