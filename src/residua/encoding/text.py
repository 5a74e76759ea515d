"""Texts, from wherever they come, as numbered documents of tokens."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from residua.errors import InputError, ParameterError

_SAMPLE = 1 << 16  # characters whose tokens tell how many there are in all
_AT_ONCE = 1 << 20  # characters per call of the tokenizer, which works on several texts in parallel


@dataclass(frozen=True)
class Document:
    """One text: its id, its name, its tokens int64 (n,).

    The id is a hash of the tokens, so that a text has the same one wherever it is read: a memory can then leave a
    document's own rows out, whatever it was called and whoever read it first.
    """

    id: int
    name: str
    tokens: np.ndarray


def documents(
    texts, tokenizer, *, text_column: str = "text", glob: str = "**/*", errors: str = "strict"
) -> Iterator[Document]:
    """Texts become tokens, lazily and in order, without special tokens.

    Parameters
    ----------
    texts : path, or iterable of str, (name, str), dict or path
        Texts; texts with names; rows of a dataset (``datasets.Dataset``, or dictionaries), whose `text_column`
        is read; files (``os.PathLike``), read as UTF-8. A folder stands for its files, sorted by path.
    tokenizer : transformers tokenizer
        Called with ``add_special_tokens=False``.
    text_column : str, default "text"
        The column of a dataset's rows.
    glob : str, default "**/*"
        Which files of a folder.
    errors : {"strict", "replace"}, default "strict"
        What to do with bytes that are not UTF-8: refuse the file, or read U+FFFD in their place.

    Yields
    ------
    Document
        A text without a name is called by its number, a file by its path (inside its folder).

    Raises
    ------
    InputError
        Something is not a text, a file cannot be read or decoded, or there is no text at all.

    Warns
    -----
    UserWarning
        At the end, when some texts were empty; they are left out.

    Examples
    --------
    >>> class Letters:
    ...     def __call__(self, texts, **options):
    ...         return {"input_ids": [[ord(letter) for letter in text] for text in texts]}
    >>> [(d.name, d.tokens.tolist()) for d in documents([("greeting", "hi"), "a"], Letters())]
    [('greeting', [104, 105]), ('1', [97])]
    """
    if not callable(tokenizer):
        raise InputError(f"the tokenizer is a {type(tokenizer).__name__}; expected a transformers tokenizer")
    if errors not in ("strict", "replace"):
        raise ParameterError(f"errors={errors!r}; expected 'strict' or 'replace'")
    number = empty = 0
    for group in _groups(_named(texts, text_column, glob, errors)):
        for (name, _), tokens in zip(group, encode_texts(tokenizer, [text for _, text in group])):
            if len(tokens):
                tokens = np.asarray(tokens, dtype=np.int64)
                yield Document(document_id(tokens), name, tokens)
            else:
                empty += 1
            number += 1
    report_empty(empty, number)


def document_id(*tokens: np.ndarray) -> int:
    """63 bits that say which text this is, from its tokens (of each of its parts, for a pair)."""
    digest = hashlib.blake2b(digest_size=8)
    for part in tokens:
        digest.update(len(part).to_bytes(8, "little") + np.ascontiguousarray(part, dtype="<i8").tobytes())
    return int.from_bytes(digest.digest(), "little") >> 1


def foretold(texts, tokenizer, *, text_column: str = "text", glob: str = "**/*", errors: str = "strict") -> int | None:
    """About how many tokens `texts` hold, by their size and the tokens of their beginning.

    None when that is not known before they are read: an iterator, a dataset, files that cannot be read.
    """
    if isinstance(texts, os.PathLike):
        texts = [texts]
    if not isinstance(texts, (list, tuple)):
        return None
    size, beginning = 0, ""
    for item in texts:
        if isinstance(item, os.PathLike):
            try:
                for _, path in _files(Path(item), glob):
                    size += path.stat().st_size
                    if len(beginning) < _SAMPLE:
                        beginning += path.read_bytes().decode("utf-8", "replace")
            except OSError:
                return None
        else:
            text = item[1] if isinstance(item, tuple) else item
            text = text.get(text_column) if isinstance(text, Mapping) else text
            if not isinstance(text, str):
                return None
            size += len(text)
            if len(beginning) < _SAMPLE:
                beginning += text
    beginning = beginning[:_SAMPLE]
    return size * len(encode_texts(tokenizer, [beginning])[0]) // len(beginning) if beginning else None


def encode_texts(tokenizer, texts: list[str], **options) -> list[list[int]]:
    """Token ids of each text; windows are cut later, so a text longer than the model's context is no news."""
    return tokenizer(texts, **{"add_special_tokens": False, "verbose": False, **options})["input_ids"]


def report_empty(empty: int, number: int) -> None:
    """Warn of texts that gave no token; ``InputError`` when none gave any."""
    if empty == number:
        raise InputError(
            f"the texts hold no token ({number} given, all of them empty)"
            if number
            else "there are no texts; expected at least one: check the folder, or the iterator (is it used up?)"
        )
    if empty:
        warnings.warn(f"{empty} of {number} texts are empty and were left out", UserWarning, stacklevel=3)


def tokenizer_hash(tokenizer) -> str:
    """16 hexadecimal digits that say which tokenizer it is.

    Of a fast tokenizer, all that decides a text's tokens (normaliser, pre-tokeniser, model, added tokens) is hashed,
    and not the padding or truncation it was last called with; of another, its sorted vocabulary.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if hasattr(backend, "to_str"):
        whole = json.loads(backend.to_str())
        state = {name: whole.get(name) for name in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
    elif hasattr(tokenizer, "get_vocab"):
        state = sorted(tokenizer.get_vocab().items())
    else:
        raise InputError(f"the tokenizer is a {type(tokenizer).__name__}; expected a transformers tokenizer")
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def prefix_of(tokenizer) -> int | None:
    """The token to put before a document: the tokenizer's bos, else its eos, else None."""
    for name in ("bos_token_id", "eos_token_id"):
        if getattr(tokenizer, name, None) is not None:
            return int(getattr(tokenizer, name))
    return None


def iterable(texts, what: str) -> Iterable:
    """`texts` itself, unless it is one text, a mapping, or nothing that can be read in turn."""
    if isinstance(texts, (str, bytes)):
        raise InputError(f"texts is one {type(texts).__name__}; expected {what}: pass a list, [text], or Path(file)")
    if isinstance(texts, Mapping):
        raise InputError(
            f"texts is a mapping of {list(texts)[:5]}; expected {what}: pass one of its values, or items()"
        )
    if not isinstance(texts, Iterable) and not hasattr(texts, "__getitem__"):
        raise InputError(f"texts is a {type(texts).__name__}; expected {what}")
    return texts


def column(row: Mapping, name: str, option: str) -> str:
    """One column of a dataset's row; ``InputError`` lists those there are."""
    if name not in row:
        raise InputError(f"a row has columns {sorted(map(str, row))}, and no {name!r}; pass {option}=")
    return row[name]


def _named(texts, text_column: str, glob: str, errors: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each text."""
    if isinstance(texts, os.PathLike):
        texts = [texts]
    count = 0
    for item in iterable(texts, "an iterable of texts, rows or files"):
        if isinstance(item, os.PathLike):
            for name, path in _files(Path(item), glob):
                yield name, _read(path, errors)
                count += 1
            continue
        name, text = str(count), item
        if isinstance(item, Mapping):
            text = column(item, text_column, "text_column")
        elif isinstance(item, tuple) and len(item) == 2:
            name, text = str(item[0]), item[1]
        if not isinstance(text, str):
            raise InputError(
                f"text {count} is a {type(text).__name__}; expected a str, a pair (name, str), a dataset's row, or a "
                "path"
            )
        yield name, text
        count += 1


def _files(path: Path, glob: str) -> list[tuple[str, Path]]:
    if not path.is_dir():
        return [(str(path), path)]
    found = sorted(file for file in path.glob(glob) if file.is_file())
    if not found:
        raise InputError(f"no file in {path} matches glob={glob!r}")
    return [(file.relative_to(path).as_posix(), file) for file in found]


def _read(path: Path, errors: str) -> str:
    try:
        return path.read_bytes().decode("utf-8", errors)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8: byte {error.object[error.start]:#04x} at position {error.start}; pass "
            "errors='replace', or leave it out (glob= chooses a folder's files)"
        ) from error


def _groups(items: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    group, size = [], 0
    for item in items:
        group.append(item)
        size += len(item[1]) + 1
        if size > _AT_ONCE or len(group) == 1024:
            yield group
            group, size = [], 0
    if group:
        yield group
