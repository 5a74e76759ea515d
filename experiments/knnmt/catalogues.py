"""Translated messages, as many Python packages bring them: gettext catalogues become pairs of texts."""

import importlib.metadata
import random
import struct
from pathlib import Path
from typing import NamedTuple

from residua.errors import InputError

Pair = tuple[str, str]
MAGIC = 0x950412DE


class Split(NamedTuple):
    """Pairs to remember, to tune on and to score."""

    memory: list[Pair]
    tune: list[Pair]
    score: list[Pair]


def pairs(place: str, language: str, longest: int) -> list[Pair]:
    """(English, translation) of the catalogues in a folder, or else of an installed package, sorted; each English
    message once, with its first translation. What stays as it is in the translation, and what has more than `longest`
    characters, is left out."""
    found: dict[str, str] = {}
    for path in catalogues(place, language):
        for source, target in messages(path.read_bytes()):
            short = source and target and max(len(source), len(target)) <= longest
            if short and source != target and source not in found:
                found[source] = target
    if not found:
        raise InputError(
            f"{place} has no message in {language!r}; expected a folder or package with gettext's .mo files"
        )
    return sorted(found.items())


def catalogues(place: str, language: str) -> list[Path]:
    """The ``LANGUAGE/LC_MESSAGES/*.mo`` of a folder or an installed package, in any region (de, de_DE)."""
    if Path(place).is_dir():
        files = list(Path(place).rglob("*.mo"))
    else:
        try:
            files = [Path(str(file.locate())) for file in importlib.metadata.files(place) or [] if file.suffix == ".mo"]
        except importlib.metadata.PackageNotFoundError as error:
            raise InputError(f"{place!r} is neither a folder nor an installed package; pip install it") from error
    return sorted(file for file in files if file.parent.parent.name.partition("_")[0] == language)


def messages(content: bytes) -> list[Pair]:
    """What a .mo file holds, contexts and plurals left out."""
    order = "<" if struct.unpack_from("<I", content)[0] == MAGIC else ">"
    count, sources, targets = struct.unpack_from(f"{order}3I", content, 8)

    def text(table: int, number: int) -> str:
        length, start = struct.unpack_from(f"{order}2I", content, table + 8 * number)
        return content[start : start + length].decode()

    found = ((text(sources, number).rpartition("\x04")[2], text(targets, number)) for number in range(count))
    return [(source, target) for source, target in found if source and "\0" not in source]


def split(domain: list[Pair], seed: int = 0) -> Split:
    """A domain's pairs at random: 70 % to remember, 12 % to tune on, 18 % to score."""
    shuffled = random.Random(seed).sample(domain, len(domain))
    first, second = round(0.70 * len(domain)), round(0.82 * len(domain))
    return Split(shuffled[:first], shuffled[first:second], shuffled[second:])
