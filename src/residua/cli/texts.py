"""Texts by their paths, as a language model takes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from residua.errors import InputError


def texts_at(paths: tuple[Path, ...], model, reading: dict) -> tuple[object, dict]:
    """What ``rs.lm`` reads: `paths` themselves, or, for an encoder-decoder, the pairs in these files; and how.

    Pairs are the lines of ``.jsonl`` files, each an object with "source" and "target", or of ``.tsv`` files, each a
    source, a tab and a target. `reading` (``glob``, ``errors``) is for plain texts alone.

    Raises
    ------
    InputError
        When, as pairs are read, a line is no pair or a file cannot be read.
    """
    if not getattr(model.config, "is_encoder_decoder", False):
        return list(paths), reading
    for path in paths:
        if path.suffix not in (".jsonl", ".tsv"):
            raise InputError(
                f"{path}: an encoder-decoder reads pairs; expected a .jsonl file with a source and a target per line, "
                "or a .tsv file with a tab between them"
            )
    return _pairs(paths, reading["errors"]), {}


def prompt_of(text: str | None, file: Path | None) -> str:
    """The prompt, from the command line or a file.

    Raises
    ------
    InputError
        When neither or both are given, the file cannot be read, or the prompt is empty.
    """
    if (text is None) == (file is None):
        raise InputError("expected a prompt: in quotes, or in a file with --prompt-file, and not both")
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").removesuffix("\n")  # editors end a file with one
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the prompt from {file}: {error}") from error
    if not text:
        raise InputError("the prompt is empty; expected text to go on from")
    return text


def _pairs(paths: tuple[Path, ...], errors: str) -> Iterator[tuple[str, str]]:
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors=errors, newline="\n") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield _pair(line.rstrip("\r\n"), path, number)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8: {error.reason}; pass errors='replace'") from error


def _pair(line: str, path: Path, number: int) -> tuple[str, str]:
    if path.suffix == ".tsv":
        pair = tuple(line.split("\t"))
    else:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        pair = (row["source"], row["target"]) if isinstance(row, dict) and {"source", "target"} <= set(row) else ()
    if len(pair) != 2:
        raise InputError(
            f"{path}, line {number}: no pair; expected {'source TAB target' if path.suffix == '.tsv' else _ROW}"
        )
    return pair


_ROW = '{"source": ..., "target": ...}'
