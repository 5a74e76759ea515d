"""Which texts are remembered, tuned on and scored: three sets of documents that have none in common."""

import hashlib
import importlib.util
import json
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from residua.encoding.text import encode_texts
from residua.errors import InputError, ParameterError

# Beside a model: which files of Python's standard library it was trained on, and which it never saw.
SPLIT = "split.json"
PACKAGE = "package:"
Stream = Iterator[tuple[str, Path]]
DOCUMENTS = 10  # at least so many documents are scored: of each at most a tenth of the tokens


@dataclass(frozen=True)
class Text:
    """A document: its name, its text, and how many tokens it is."""

    name: str
    text: str
    tokens: int


@dataclass(frozen=True)
class Texts:
    """The documents of one corpus by what they are for."""

    memory: list[Text]
    tune: list[Text]
    score: list[Text]

    def counts(self) -> dict:
        """Documents and tokens of each set."""
        return {name: [len(texts), sum(text.tokens for text in texts)] for name, texts in vars(self).items()}


def pairs(texts: list[Text], tokens: int | None = None) -> list[tuple[str, str]]:
    """(name, text), as ``rs.lm`` takes them: of all, or of the first, with about `tokens` tokens together."""
    if tokens is not None:
        before = accumulate((text.tokens for text in texts), initial=0)
        texts = [cut(text, tokens - begun) for text, begun in zip(texts, before) if begun < tokens]
    return [(text.name, text.text) for text in texts]


def cut(text: Text, tokens: int) -> Text:
    """The beginning of a text, by the share of its characters that should hold so many tokens."""
    if text.tokens <= tokens:
        return text
    return Text(text.name, text.text[: len(text.text) * tokens // text.tokens], tokens)


def own_texts(
    tokenizer, model: str, texts: str, validation: str, test: str, *, glob: str, memory_tokens: int, eval_tokens: int
) -> Texts:
    """The texts of the model's own domain.

    From three folders; from one, whose files are dealt out; or, without any, from Python's standard library by the
    ``split.json`` beside the model: its training files are remembered, of the others every second one is tuned on.
    """
    if bool(validation) != bool(test) or (validation and not texts):
        raise ParameterError(
            f"texts={texts!r}, validation={validation!r}, test={test!r}; expected all three, texts alone, or none"
        )
    if validation:
        streams = [files(folder, glob) for folder in (texts, validation, test)]
    elif texts:
        return domain_texts(tokenizer, texts, glob=glob, memory_tokens=memory_tokens, eval_tokens=eval_tokens)
    else:
        split, library = _split(Path(model) / SPLIT), Path(sysconfig.get_path("stdlib"))
        remembered, held_out = (
            shuffled([(name, library / name) for name in split[part]]) for part in ("train", "validation")
        )
        streams = [remembered, held_out[::2], held_out[1::2]]
    return dealt(tokenizer, *map(iter, streams), memory_tokens, eval_tokens)


def domain_texts(tokenizer, folder: str, *, glob: str, memory_tokens: int, eval_tokens: int) -> Texts:
    """The files of one folder or ``package:NAME`` dealt out: to be scored, then to be tuned on, then remembered."""
    every = iter(files(folder, glob))
    return dealt(tokenizer, every, every, every, memory_tokens, eval_tokens)


def dealt(tokenizer, remembered: Stream, tuned: Stream, scored: Stream, memory_tokens: int, eval_tokens: int) -> Texts:
    """Documents from three streams of files, which may be one; a text that occurs twice is taken once.

    `memory_tokens` are remembered, `eval_tokens` scored and half as many tuned on, or as many as there are.
    """
    seen: set[bytes] = set()
    each = max(1, eval_tokens // DOCUMENTS)
    score = list(_until(tokenizer, scored, eval_tokens, seen, each))
    tune = list(_until(tokenizer, tuned, max(1, eval_tokens // 2), seen, each))
    memory = list(_until(tokenizer, remembered, memory_tokens, seen))
    for name, found in (("score", score), ("tune on", tune), ("remember", memory)):
        if len(found) < 2:
            raise InputError(
                f"{len(found)} documents to {name}; expected at least two for each of the three uses: give more text, "
                f"or a smaller eval_tokens (of {eval_tokens})"
            )
    return Texts(memory, tune, score)


def files(folder: str, glob: str) -> list[tuple[str, Path]]:
    """(name, path) of the files of a folder or an installed package, in an order apart from their names."""
    root = Path(folder)
    if folder.startswith(PACKAGE):
        spec = importlib.util.find_spec(folder.removeprefix(PACKAGE))
        if spec is None or not spec.submodule_search_locations:
            raise ParameterError(f"{folder!r}: no such package is installed here; install it, or give a folder")
        root = Path(next(iter(spec.submodule_search_locations)))
    found = [(path.relative_to(root).as_posix(), path) for path in root.glob(glob) if path.is_file()]
    if not found:
        raise InputError(f"no file in {folder} matches {glob!r}; expected a folder of texts, or package:NAME")
    return shuffled(found)


def shuffled(found: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """By the hash of the name: the same order everywhere, in which the first tenth is like the rest."""
    return sorted(found, key=lambda item: hashlib.sha256(item[0].encode()).digest())


def _until(tokenizer, found: Stream, tokens: int, seen: set[bytes], each: int | None = None) -> Iterator[Text]:
    """Documents of `found` that were not seen yet, until they hold about so many tokens; of each, the first `each`."""
    total = 0
    for name, path in found:
        try:
            text = path.read_bytes().decode("utf-8", "replace")
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        digest = hashlib.sha256(text.encode()).digest()
        count = len(encode_texts(tokenizer, [text])[0])
        if digest in seen or not count:
            continue
        seen.add(digest)
        taken = cut(Text(name, text, count), min(tokens - total, each or tokens))
        yield taken
        total += taken.tokens
        if total >= tokens:
            return


def _split(path: Path) -> dict:
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ParameterError(f"{error}; say which texts to use: --texts, --validation, --test") from error
    if split.get("python") != platform.python_version():
        raise ParameterError(
            f"{path} splits the standard library of Python {split.get('python')}, and this is "
            f"{platform.python_version()}; give --texts, --validation and --test"
        )
    return split
