"""JSON that anybody may have written: read without harm, and held to a table of what each field may be."""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

MOST = 2**26  # bytes of one file
DEEP = 64  # lists in lists

Check: TypeAlias = Callable[[Any, str], None]  # a value, and where it stands; ``ValueError`` says what is wrong with it


def read_json(file: Path, most: int = MOST) -> Any:
    """What a JSON file says. ``OSError``; ``ValueError`` for what is no regular file (a link may lead anywhere, a pipe
    has no end), or longer than `most` bytes, or not what ``loads`` reads."""
    about = file.lstat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("it is a link, or no file; expected the file itself")
    if about.st_size > most:
        raise ValueError(f"it has {about.st_size:,} bytes; expected at most {most:,}")
    return loads(file.read_bytes())


def loads(text: bytes) -> Any:
    """What UTF-8 JSON says; ``ValueError`` for a name that is given twice, and for lists in lists without end."""
    try:
        found = json.loads(text.decode(), object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    held = [found]
    for _ in range(DEEP):
        held = [one for some in held for one in _inside(some) if isinstance(one, (dict, list))]
        if not held:
            return found
    raise ValueError(f"it is nested more than {DEEP} deep")


def _inside(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def anything(value: Any, where: str) -> None:
    """Any JSON."""


def whole(least: int = 0, most: int = 2**63) -> Check:
    """A whole number."""
    return _which(lambda value: type(value) is int and least <= value <= most, f"a whole number from {least} to {most}")


def number(least: float = -math.inf, above: float = -math.inf, most: float = 1e300) -> Check:
    """A finite number of at least `least`, more than `above`, and at most `most`."""

    def fits(value: Any) -> bool:
        return type(value) in (int, float) and least <= value <= most and abs(value) <= 1e300 and value > above

    return _which(fits, "a finite number" + (f" of at least {least}" if least > -math.inf else ""))


def text(pattern: str = r"(?s).*", expected: str = "") -> Check:
    """Text of which all matches."""
    known = re.compile(pattern)
    return _which(
        lambda value: isinstance(value, str) and known.fullmatch(value) is not None, expected or f"text like {pattern}"
    )


def one_of(*values: str) -> Check:
    """One of some words."""
    return _which(lambda value: isinstance(value, str) and value in values, f"one of {values}")


def nullable(check: Check) -> Check:
    """That, or null."""
    return lambda value, where: None if value is None else check(value, where)


def either(*checks: Check) -> Check:
    """What one of several checks lets pass; the last one says what is wrong."""

    def checked(value: Any, where: str) -> None:
        for check in checks[:-1]:
            try:
                return check(value, where)
            except ValueError:
                continue
        return checks[-1](value, where)

    return checked


def list_of(check: Check, most: float = math.inf) -> Check:
    """A list of such values."""

    def checked(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) > most:
            raise _wrong(value, where, "a list")
        for place, one in enumerate(value):
            check(one, f"{where}[{place}]")

    return checked


def each(*checks: Check) -> Check:
    """A list of one value for each check."""

    def checked(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) != len(checks):
            raise _wrong(value, where, f"a list of {len(checks)}")
        for place, (check, one) in enumerate(zip(checks, value)):
            check(one, f"{where}[{place}]")

    return checked


def map_of(check: Check, names: str = r"(?s).*") -> Check:
    """An object of such values, under any names that match."""
    known = re.compile(names)

    def checked(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(value, where, "an object")
        for name, one in value.items():
            if not known.fullmatch(name):
                raise _wrong(name, f"a name in {where}", f"one like {names}")
            check(one, f"{where}.{name}")

    return checked


def record(fields: Mapping[str, Check], optional: Mapping[str, Check] | None = None, closed: bool = False) -> Check:
    """An object of these fields; others are refused where it is `closed`, else nobody reads them."""
    optional = optional or {}

    def checked(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(value, where, "an object")
        if lacks := [name for name in fields if name not in value]:
            raise ValueError(f"{where} lacks {', '.join(lacks)}")
        if closed and (unknown := value.keys() - fields.keys() - optional.keys()):
            raise ValueError(f"{where} has {sorted(unknown)[0]!r:.80}, which nobody knows")
        for name, check in {**fields, **optional}.items():
            if name in value:
                check(value[name], f"{where}.{name}")

    return checked


def _which(fits: Callable[[Any], bool], expected: str) -> Check:
    def checked(value: Any, where: str) -> None:
        if not fits(value):
            raise _wrong(value, where, expected)

    return checked


def _wrong(value: Any, where: str, expected: str) -> ValueError:
    shown = f"{value!r:.80}" if isinstance(value, (str, int, float, type(None))) else type(value).__name__
    return ValueError(f"{where} is {shown}; expected {expected}")


flag: Check = _which(lambda value: isinstance(value, bool), "true or false")
digits: Check = _which(lambda value: type(value) in (int, float), "a number")  # NaN and infinity, too
