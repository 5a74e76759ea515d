"""What is printed: text that a terminal cannot be tricked with, and JSON for machines."""

import json

import click

from residua.printable import count, one_line, plain


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


def size(number: int) -> str:
    """Bytes in the unit that people say: ``123.5 kB``."""
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= least:
            return f"{number / least:.1f} {unit}"
    return count(number, "byte")
