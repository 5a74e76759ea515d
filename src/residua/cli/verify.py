"""``residua verify`` and ``compact``: whether a memory's folder is whole, and the folder written anew."""

from dataclasses import asdict
from pathlib import Path

import click

from residua.cli.options import indexed, json_option, memory_argument, trusted
from residua.cli.output import command, report
from residua.cli.store import bytes_in, checked
from residua.printable import size


@click.command()
@memory_argument
@click.option(
    "--repair",
    is_flag=True,
    help="Build a damaged index anew; else, go back to the newest whole generation.",
)
@json_option
@click.pass_context
def verify(context: click.Context, memory: Path, repair: bool, as_json: bool) -> None:
    """Read every byte of a memory's folder; name what is damaged, and what survives. Exit code 1 where something is.

    \b
    Examples:
      residua verify mem/
      residua verify mem/ --repair
    """
    from residua.memory import Memory

    found = Memory.verify(memory, repair=repair)
    whole = not found.damaged or found.repaired
    why = "nothing is lost" if found.index_alone else "the last save is lost" if found.earlier else None
    then = [command("verify", memory, "--repair", why=why)] if why and not whole else []
    report(asdict(found), f"{memory}: {found}", as_json, then)
    context.exit(0 if whole else 1)


@click.command()
@memory_argument
@json_option
def compact(memory: Path, as_json: bool) -> None:
    """Write a memory's folder anew, of as few files as there can be; earlier generations go.

    \b
    Examples:
      residua compact mem/
    """
    checked(memory)
    from residua.memory import Memory

    before = bytes_in(memory)
    Memory.compact(memory, index=indexed(), trust=trusted())
    now = bytes_in(memory)
    report({"bytes_before": before, "bytes": now}, f"{memory}: {size(before)} before, {size(now)} now", as_json)
