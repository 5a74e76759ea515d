"""Texts, from wherever they come, as numbered documents of tokens."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from residua.encoding.options import Text, Texts, Tokenizer
from residua.errors import InputError, ParameterError

_SAMPLE = 1 << 16  # characters whose tokens tell how many there are in all
_AT_ONCE = 1 << 20  # characters per call of the tokenizer, which works on several texts in parallel


class Document(NamedTuple):
    """One text: its tokens int64 (n,), its name, and its id, a hash of the tokens: a memory can leave a document's own
    rows out, whatever it was called and wherever it was read first."""

    id: int
    name: str
    tokens: np.ndarray


def documents(
    texts: Texts, tokenizer: Tokenizer, *, text_column: str = "text", glob: str = "**/*", errors: str = "strict"
) -> Iterator[Document]:
    """Texts become tokens, lazily and in order, without special tokens; empty ones are counted in a warning at the end.

    `texts` is a file or folder, or an iterable of texts, of (name, text), of a dataset's rows (dictionaries, whose
    `text_column` is read) or of files (``os.PathLike``, UTF-8; a folder stands for its files that match `glob`, sorted
    by path). A text without a name is called by its number, a file by its path (inside its folder).
    """
    if not callable(tokenizer):
        raise InputError(f"the tokenizer is a {type(tokenizer).__name__}; expected a transformers tokenizer")
    if errors not in ("strict", "replace"):
        raise ParameterError(f"errors={errors!r}; expected 'strict' or 'replace'")
    if isinstance(texts, list) and texts and all(isinstance(one, Document) for one in texts):
        yield from cast("list[Document]", texts)  # they are read already
        return
    number = empty = 0
    for group in _groups(_named(texts, text_column, glob, errors)):
        for (name, _), tokens in zip(group, encode_texts(tokenizer, [text for _, text in group])):
            if len(tokens):
                array = np.asarray(tokens, dtype=np.int64)
                yield Document(document_id(array), name, array)
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


def estimate_tokens(
    texts: Texts, tokenizer: Tokenizer, *, text_column: str = "text", glob: str = "**/*", errors: str = "strict"
) -> int | None:
    """About how many tokens `texts` hold, by their size and the tokens of their beginning; None when that is not known
    before they are read: an iterator, a dataset, files that cannot be read."""
    texts = _listed(texts)
    if not isinstance(texts, (list, tuple)):
        return None
    size, beginning = 0, ""
    try:
        for count, item in enumerate(texts):
            if isinstance(item, os.PathLike):
                size += sum(path.stat().st_size for _, path in _files(Path(item), glob))
            else:
                size += len(_named_text(item, count, text_column)[1])
        for _, text in _named(texts, text_column, glob, errors):
            beginning += text[:_SAMPLE]
            if len(beginning) >= _SAMPLE:
                break
    except (InputError, OSError):
        return None
    return size * len(encode_texts(tokenizer, [beginning])[0]) // len(beginning) if beginning else None


def encode_texts(tokenizer: Tokenizer, texts: list[str], **options: Any) -> list[list[int]]:
    """Token ids of each text; windows are cut later, so a text longer than the model's context is no news."""
    return tokenizer(texts, **{"add_special_tokens": False, "verbose": False, **options})["input_ids"]


def report_empty(empty: int, number: int) -> None:
    """Warn of texts that gave no token; ``InputError`` when none gave any."""
    if not number:
        raise InputError("there are no texts; expected at least one: check the folder or iterator (is it used up?)")
    if empty == number:
        raise InputError(f"the texts hold no token ({number} given, all of them empty)")
    if empty:
        warnings.warn(f"{empty} of {number} texts are empty and were left out", stacklevel=3)


def tokenizer_hash(tokenizer: Any) -> str:
    """16 hexadecimal digits that say which tokenizer it is, by all that decides a text's tokens (not the padding or
    truncation it was last called with); of one that is not fast, by its sorted vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state: object
    if backend is not None and hasattr(backend, "to_str"):
        whole = json.loads(backend.to_str())
        state = {name: whole.get(name) for name in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
    elif hasattr(tokenizer, "get_vocab"):
        state = sorted(tokenizer.get_vocab().items())
    else:
        raise InputError(f"the tokenizer is a {type(tokenizer).__name__}; expected a transformers tokenizer")
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def bos_token(tokenizer: object) -> int | None:
    """The token to put before a document: the tokenizer's bos, else its eos, else None."""
    tokens = (getattr(tokenizer, name, None) for name in ("bos_token_id", "eos_token_id"))
    return next((int(token) for token in tokens if token is not None), None)


def check_iterable(texts: Texts, what: str) -> Iterable[Text]:
    """`texts` itself, unless it is one text, a mapping, or nothing that can be read in turn."""
    if isinstance(texts, (str, bytes, os.PathLike)):
        kind = type(texts).__name__
        raise InputError(f"texts is one {kind}, and no file is called so; expected {what}: pass a list, [text]")
    if isinstance(texts, Mapping):
        raise InputError(f"texts is a mapping of {list(texts)[:5]}; expected {what}: pass a value of it, or items()")
    if not isinstance(texts, Iterable) and not hasattr(texts, "__getitem__"):
        raise InputError(f"texts is a {type(texts).__name__}; expected {what}")
    return texts


def column(row: Mapping[str, Any], name: str, option: str) -> str:
    """One column of a dataset's row; ``InputError`` lists those there are."""
    if name not in row:
        raise InputError(f"a row has columns {sorted(map(str, row))}, and no {name!r}; pass {option}=")
    return row[name]


def _listed(texts: Texts) -> Texts:
    """A file or folder, given by its path or as a str that names one, as the list of it; else `texts` itself."""
    if isinstance(texts, os.PathLike) or (isinstance(texts, str) and os.path.exists(texts)):
        return [Path(texts)]
    return texts


def _named(texts: Texts, text_column: str, glob: str, errors: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each text."""
    count = 0
    for item in check_iterable(_listed(texts), "an iterable of texts, rows or files"):
        if isinstance(item, os.PathLike):
            for name, path in _files(Path(item), glob):
                yield name, _read(path, errors)
                count += 1
        else:
            yield _named_text(item, count, text_column)
            count += 1


def _named_text(item: Text, count: int, text_column: str) -> tuple[str, str]:
    name, text = str(count), item
    if isinstance(item, Mapping):
        text = column(item, text_column, "text_column")
    elif isinstance(item, tuple) and len(item) == 2:
        name, text = str(item[0]), item[1]
    if not isinstance(text, str):
        expected = "expected a str, a pair (name, str), a dataset's row, or a path"
        raise InputError(f"text {count} is a {type(text).__name__}; {expected}")
    return name, text


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
        what = f"{path} is not UTF-8: byte {error.object[error.start]:#04x} at position {error.start}"
        cure = "pass errors='replace', or leave it out (glob= chooses a folder's files)"
        raise InputError(f"{what}; {cure}") from error


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
