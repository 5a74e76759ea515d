"""What a text is: a file, a string, a named string, a row, a column of a table, told apart in this one place."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from residua.encoding import files
from residua.errors import InputError, ParameterError

Prompt: TypeAlias = "str | Sequence[Mapping[str, Any]]"  # a text, or the messages of a conversation
ERRORS = ("strict", "replace", "skip")
_PATH_LENGTH = 4096  # no path is longer


@dataclass(frozen=True)
class Reading:
    """How texts are read: the options that ``TextStream`` describes."""

    text_column: str = "text"
    name_column: str | None = None
    glob: str = "**/*"
    errors: str = "strict"
    hidden: bool = False
    root: str | os.PathLike[str] | None = None

    def __post_init__(self):
        if self.errors not in ERRORS:
            raise ParameterError(f"errors={self.errors!r}; expected one of {', '.join(map(repr, ERRORS))}")

    def files(self, paths: Iterable[str | os.PathLike[str]]) -> list[files.File]:
        """The files that these paths stand for."""
        return files.find(paths, glob=self.glob, hidden=self.hidden, root=self.root)


def named_texts(texts: Any, reading: Reading, left_out: list[str]) -> Iterator[tuple[str, Prompt]]:
    """(name, text) of each text, lazily and in order. One without a name is called by its number.

    Files that hold no text are noted in `left_out`, as ``files.read`` says.
    """
    number, columns = 0, {"text_column": reading.text_column, "name_column": reading.name_column}
    for are_paths, group in groupby(items(texts, columns), lambda item: isinstance(item, os.PathLike)):
        if are_paths:
            for named in files.read(reading.files(group), reading.errors, left_out):
                yield named
                number += 1
        else:
            for item in group:
                yield named_text(item, number, reading)
                number += 1


def items(texts: Any, columns: Mapping[str, str | None]) -> Iterable[Any]:
    """`texts` as an iterable of texts: a path is a list of it, a table its rows, as dictionaries.

    A table is a data frame of any library, or a mapping from names of columns to them, and has those that `columns`
    names, by the option for each. ``InputError`` for what is no texts, or could be two things.
    """
    if isinstance(texts, os.PathLike):
        return [texts]
    if isinstance(texts, str):
        if os.path.exists(texts):
            return [Path(texts)]
        raise InputError(
            f"texts is the str {reprlib.repr(texts)}: a path that does not exist, or a text? Check the path (here is "
            f"{os.getcwd()}); or write [text], or [('name', text)]"
        )
    if isinstance(texts, (bytes, bytearray, memoryview)):
        raise InputError(f"texts is {type(texts).__name__}; expected texts: decode it, [data.decode('utf-8')]")
    if isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(one, str) for one in texts):
        raise InputError("texts is a tuple of two str: one pair, or two texts? Write [pair], or a list of the two")
    if (names := _column_names(texts)) is not None:
        return _rows(texts, names, columns)
    texts = _plain(texts)
    if not isinstance(texts, Iterable) and not hasattr(texts, "__getitem__"):
        raise InputError(f"texts is a {type(texts).__name__}; expected a path, an iterable of texts, or a table")
    return texts


def named_text(item: Any, number: int, reading: Reading) -> tuple[str, Prompt]:
    """(name, text) of one that is no file; ``InputError`` for a str that is a path, and what holds no text."""
    name, text = str(number), item
    if isinstance(item, Mapping):
        if _is_message(item) and reading.text_column not in item:
            raise InputError(f"text {number} is one message; a conversation is a list of messages: write [messages]")
        text = column(item, reading.text_column, "text_column")
        if reading.name_column is not None:
            name = str(column(item, reading.name_column, "name_column"))
    elif isinstance(item, tuple) and len(item) == 2:
        name, text = str(item[0]), item[1]
    elif isinstance(item, str) and _is_path(item, number):
        raise InputError(
            f"text {number} is {item!r}: the path that exists, or the text? Write pathlib.Path({item!r}), or "
            f"('name', {item!r})"
        )
    if not isinstance(text, str) and not is_conversation(text):
        kind = f"{text!r}" if text is None or text != text else f"a {type(text).__name__}"
        raise InputError(
            f"text {number} is {kind}; expected a str, a pair (name, str), a list of messages, a "
            "dataset's row, or a path"
        )
    return name, text


def is_conversation(text: Any) -> bool:
    """Whether it is a list of messages, as chat templates take them: dictionaries with a role and its content."""
    return isinstance(text, (list, tuple, np.ndarray)) and len(text) > 0 and all(map(_is_message, text))


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping) and {"role", "content"} <= item.keys()


def column(row: Mapping[str, Any], name: str, option: str) -> Any:
    """One column of a row; ``InputError`` lists those there are."""
    if name not in row:
        raise InputError(f"a row has columns {sorted(map(str, row))}, and no {name!r}; pass {option}=")
    return row[name]


def _is_path(text: str, number: int) -> bool:
    """Whether a str names what exists; after the first of all texts only where it also looks like a path, for a text
    may be one word, or a full stop."""
    if len(text) > _PATH_LENGTH or not os.path.exists(text):
        return False
    return number == 0 or (any(letter.isalnum() for letter in text) and (os.sep in text or "." in text))


def _column_names(texts: Any) -> list[str] | None:
    """What the columns of a table are called; None for what is no table."""
    if isinstance(texts, Mapping):
        kinds = {type(value) for value in texts.values()}
        shown = f"texts is a mapping of {list(texts)[:5]}"
        if kinds <= {str}:
            raise InputError(
                f"{shown} to str: names and texts, or one row? Write texts.items(), or [texts]; the columns of a table "
                "are lists"
            )
        if any(hasattr(value, "column_names") or issubclass(type(value), Mapping) for value in texts.values()):
            one = f"texts[{next(iter(texts))!r}]"
            raise InputError(f"{shown} to other tables (the parts of a dataset); expected one of them: {one}")
        return list(texts)
    kind = type(texts)  # where no column's name can hide an attribute
    if hasattr(kind, "features"):  # a datasets.Dataset gives its rows one after another, without reading them all
        return None
    if hasattr(kind, "collect_schema") and not hasattr(kind, "iter_rows"):
        raise InputError(f"texts is a {kind.__name__}, which is not computed yet; pass texts.collect()")
    names = getattr(getattr(texts, "dtype", None), "names", None)
    for attribute in ("column_names", "columns"):  # pyarrow has names in one, and arrays in the other
        if names is None and hasattr(kind, attribute):
            names = getattr(texts, attribute)
    return None if names is None or not hasattr(kind, "__getitem__") else list(names)


def _rows(table: Any, names: list[str], columns: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    wanted = {name: option for option, name in columns.items() if name is not None}
    for name, option in wanted.items():
        if name not in names:
            raise InputError(f"a table has columns {sorted(map(str, names))}, and no {name!r}; pass {option}=")
    values = [table[name] for name in wanted]
    for name, value in zip(wanted, values):
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise InputError(f"the column {name!r} is a {type(value).__name__}; expected a list of texts, or an array")
    try:
        for row in zip(*map(_plain, values), strict=True):
            yield dict(zip(wanted, row))
    except ValueError as error:
        raise InputError(
            f"the columns {list(wanted)} have different lengths; expected as many texts as names"
        ) from error


def _plain(column: Any) -> Any:
    """A column; one of pyarrow's, whose values are wrapped, as a list."""
    return column.to_pylist() if hasattr(type(column), "to_pylist") else column
