"""What is printed: text that a terminal cannot be tricked with, and JSON for machines."""

import json
import shlex
from collections.abc import Iterable

import click

from residua.cli.verbosity import note
from residua.printable import one_line, plain


def say(text: str = "", indent: str = "") -> None:
    """Print `text` line by line, each made safe and indented."""
    for line in text.split("\n"):
        click.echo((indent + one_line(line)).rstrip())


def report(data: dict, text: str, as_json: bool, then: Iterable[str] = ()) -> None:
    """The outcome of a verb: `data` for machines, or `text` for people, who are also told what to type next."""
    if as_json:
        click.echo(json.dumps(plain(data), indent=1, allow_nan=False))
        return
    say(text)
    for number, command in enumerate(then):
        note(("      " if number else "next: ") + command)


def command(verb: str, *words: object, why: str = "") -> str:
    """A line that can be typed: ``residua VERB WORDS``, each quoted where a shell needs it, and a comment."""
    line = shlex.join(["residua", verb, *map(str, words)])
    return f"{line}  # {why}" if why else line
