"""``residua log`` and ``undo``: what was done to a memory, and how the last of it is taken back."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from residua.cli.options import json_option, memory_argument, note_option
from residua.cli.output import report
from residua.cli.store import memory_at, next_step
from residua.printable import one_line


@click.command()
@memory_argument
@json_option
def log(memory: Path, as_json: bool) -> None:
    """List every edit of a memory, the oldest first: when, what, how many rows, and the note.

    \b
    Examples:
      residua log mem/
    """
    events = memory_at(memory).log()
    report({"log": [_said(event) for event in events]}, "\n".join(one_line(str(event)) for event in events), as_json)


@click.command()
@memory_argument
@note_option
@json_option
def undo(memory: Path, why: str | None, as_json: bool) -> None:
    """Take back the last edit that was not taken back yet.

    Not across forget --rebuild or purge, which drop rows for good.

    \b
    Examples:
      residua undo mem/
      residua undo mem/ --note 'the wrong folder'
    """
    opened = memory_at(memory, edit=True)
    event = opened.undo(note=why)
    opened.save(memory)
    undone = opened.log()[event.undoes or 0]
    text = f"{memory}: '{undone}' is undone; {len(opened):,} rows now"
    then = [next_step(memory, opened.schema.is_text)]
    report({"undone": _said(undone), "undo": _said(event), "rows": len(opened)}, text, as_json, then)


def _said(event: Any) -> dict[str, Any]:
    return {field.name: getattr(event, field.name) for field in fields(event) if field.name != "changes"}
