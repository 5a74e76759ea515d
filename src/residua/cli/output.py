"""What is printed: text that a terminal cannot be tricked with, and JSON for machines."""

import json
import math

import click

from residua.printable import one_line


def say(text: str = "", indent: str = "") -> None:
    """Print `text` line by line, each made safe and indented."""
    for line in text.split("\n"):
        click.echo((indent + one_line(line)).rstrip())


def report(data: dict, text: str, as_json: bool) -> None:
    """The outcome of a verb: `data` for machines, or `text` for people."""
    if as_json:
        click.echo(json.dumps(plain(data), indent=1, allow_nan=False))
    else:
        say(text)


def plain(value):
    """`value` in JSON types; arrays become lists, NaN and infinity null."""
    if hasattr(value, "tolist"):  # arrays and their scalars
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(params: dict) -> str:
    """Parameters as ``k=3, sigma=0.1235``; those that are None are left out."""
    return ", ".join(f"{name}={short(value)}" for name, value in params.items() if value is not None)


def described(reader) -> str:
    """A reader and its parameters, without its memory."""
    return f"{type(reader).__name__}({shown(reader.params)})"


def short(value) -> str:
    """A parameter in few digits and words."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if hasattr(value, "shares"):  # an AdaptiveLambda
        return f"{min(value.shares):.2g} to {max(value.shares):.2g} by distance"
    return described(value) if hasattr(value, "params") else str(value)


def count(number: int, noun: str) -> str:
    """``1 row``, ``2 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """Bytes in the unit that people say: ``123.5 kB``."""
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= least:
            return f"{number / least:.1f} {unit}"
    return count(number, "byte")
