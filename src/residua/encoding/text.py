"""Texts as documents of tokens, known by a hash of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from residua.caution import warn
from residua.encoding.documents import Prompt, Reading, items, named_text, named_texts
from residua.encoding.files import report_left_out
from residua.encoding.options import Texts, Tokenizer
from residua.errors import InputError

_SAMPLE = 1 << 16  # characters whose tokens tell how many there are in all
_AT_ONCE = 1 << 20  # characters per call of the tokenizer, which works on several texts in parallel


class Document(NamedTuple):
    """One text: its tokens int64 (n,), its name, its length in bytes of UTF-8, and its id, a hash of the tokens: a
    memory can leave a document's own rows out, whatever it was called and wherever it was read first."""

    id: int
    name: str
    tokens: np.ndarray
    size: int


def documents(
    texts: Texts, tokenizer: Tokenizer, reading: Reading | None = None, *, split_special_tokens: bool = True
) -> Iterator[Document]:
    """Texts become tokens, lazily and in order; a warning at the end counts those left out.

    None are added. What looks like a special token in a text (``<|endoftext|>`` in a file) is text, unless
    `split_special_tokens` is False; those of a conversation are what the tokenizer's template makes of it.
    """
    if not callable(tokenizer):
        raise InputError(f"the tokenizer is a {type(tokenizer).__name__}; expected a transformers tokenizer")
    if isinstance(texts, list) and texts and all(isinstance(one, Document) for one in texts):
        yield from cast("list[Document]", texts)  # they are read already
        return
    number = empty = special = 0
    left_out: list[str] = []
    for group in _groups(named_texts(texts, reading or Reading(), left_out)):
        read = [text for _, text in group]
        special += sum(_begins_as_template(tokenizer, text) for text in read) if split_special_tokens else 0
        for (name, text), tokens in zip(group, encode_prompts(tokenizer, read, split_special_tokens)):
            if len(tokens):
                array = np.asarray(tokens, dtype=np.int64)
                yield Document(document_id(array), name, array, utf8_bytes(_words(text)))
            else:
                empty += 1
            number += 1
    report_left_out(left_out, number + len(left_out))
    if special:
        cure = "split_special_tokens=False reads it as a token; conversations may be given as lists of messages"
        warn(f"{special} of {number} texts begin with what looks like a special token; {cure}")
    report_empty(empty, number)


def utf8_bytes(text: str) -> int:
    """How long a text is in UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))


def document_id(*tokens: np.ndarray) -> int:
    """63 bits that say which text this is, from its tokens (of each of its parts, for a pair)."""
    digest = hashlib.blake2b(digest_size=8)
    for part in tokens:
        digest.update(len(part).to_bytes(8, "little") + np.ascontiguousarray(part, dtype="<i8").tobytes())
    return int.from_bytes(digest.digest(), "little") >> 1


def estimate_tokens(texts: Texts, tokenizer: Tokenizer, reading: Reading, more: int = 0) -> int | None:
    """About how many tokens `texts` hold, by their size and the tokens of their beginning, with so many `more` for each
    text; None when that is not known before they are read: an iterator, a dataset, files that cannot be read."""
    try:
        listed = items(texts, {}) if isinstance(texts, (str, os.PathLike)) else texts
        if not isinstance(listed, (list, tuple)):
            return None
        paths = [item for item in listed if isinstance(item, os.PathLike)]
        others = [item for item in listed if not isinstance(item, os.PathLike)]
        sizes = [file.size for file in reading.files(paths)] if paths else []
        sizes += [len(named_text(item, number, reading)[1]) for number, item in enumerate(others)]
        beginning = ""
        for _, text in named_texts(listed, reading, []):
            if not isinstance(text, str):
                return None
            beginning += text[:_SAMPLE]
            if len(beginning) >= _SAMPLE:
                break
    except (InputError, OSError):
        return None
    tokens = len(encode_texts(tokenizer, [beginning])[0])
    return more * sum(map(bool, sizes)) + sum(sizes) * tokens // len(beginning) if beginning else None


def encode_texts(tokenizer: Tokenizer, texts: list[str], **options: Any) -> list[list[int]]:
    """Token ids of each text; windows are cut later, so a text longer than the model's context is no news."""
    return tokenizer(texts, **{"add_special_tokens": False, "verbose": False, **options})["input_ids"]


def encode_prompts(
    tokenizer: Tokenizer, texts: Sequence[Prompt], split_special_tokens: bool, *, answer: bool = False
) -> Iterator[list[int]]:
    """Token ids of each text or conversation; to be answered, a conversation ends where the assistant's words begin."""
    # A tokenizer of one's own need not know the option where nothing is to be split.
    options = {"split_special_tokens": True} if split_special_tokens else {}
    strings = [text for text in texts if isinstance(text, str)]
    plain = iter(encode_texts(tokenizer, strings, **options) if strings else [])
    for text in texts:
        yield next(plain) if isinstance(text, str) else _by_template(tokenizer, list(text), answer)


def _by_template(tokenizer: Any, messages: list[Any], answer: bool) -> list[int]:
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("the tokenizer has no chat_template for a list of messages; give the conversation as one str")
    goes_on = answer and messages[-1]["role"] == "assistant"
    how = {"add_generation_prompt": answer and not goes_on, "continue_final_message": goes_on}
    tokens = list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **how))
    # Nothing comes after the eos, though many templates put a line's end there.
    return tokens[:-1] if not answer and eos_token(tokenizer) in tokens[-2:-1] else tokens


def _words(text: Prompt) -> str:
    return text if isinstance(text, str) else "".join(str(message["content"]) for message in text)


def _begins_as_template(tokenizer: Any, text: Prompt) -> bool:
    special = tuple(getattr(tokenizer, "all_special_tokens", ()))
    return isinstance(text, str) and bool(special) and text.startswith(special)


def report_empty(empty: int, number: int) -> None:
    """Warn of texts that gave no token; ``InputError`` when none gave any."""
    if not number:
        raise InputError("there are no texts; expected at least one: check the folder or iterator (is it used up?)")
    if empty == number:
        raise InputError(f"the texts hold no token ({number} given, all of them empty)")
    if empty:
        warn(f"{empty} of {number} texts are empty and were left out")


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


def eos_token(tokenizer: object) -> int | None:
    """The token that says that a document ends, where there is one."""
    token = getattr(tokenizer, "eos_token_id", None)
    return None if token is None else int(token)


def bos_token(tokenizer: object) -> int | None:
    """The token to put before a document: the tokenizer's bos, else its eos, else None."""
    tokens = (getattr(tokenizer, name, None) for name in ("bos_token_id", "eos_token_id"))
    return next((int(token) for token in tokens if token is not None), None)


def _groups(items: Iterator[tuple[str, Prompt]]) -> Iterator[list[tuple[str, Prompt]]]:
    group, size = [], 0
    for item in items:
        group.append(item)
        size += len(item[1]) + 1
        if size > _AT_ONCE or len(group) == 1024:
            yield group
            group, size = [], 0
    if group:
        yield group
