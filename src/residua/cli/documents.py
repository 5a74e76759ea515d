"""``residua update``: a memory of text follows its documents."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from residua.cli.data import reading_for
from residua.cli.language import model_of
from residua.cli.options import device_and_json, memory_argument, note_option, text_options
from residua.cli.output import report
from residua.cli.store import memory_at, next_step
from residua.cli.verbosity import progress
from residua.printable import one_line

SHOWN = 20  # names of each kind


@click.command()
@memory_argument
@text_options
@click.option("--keep", is_flag=True, help="Keep remembered documents that are not among these.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@note_option
@device_and_json
def update(memory: Path, text, keep: bool, dry_run: bool, why, device: str, as_json: bool, **options: Any) -> None:
    """Make a memory of text hold what is in these files now, by their names.

    Changed files are read again, new ones are added, removed ones forgotten, all others left as they are. Give the
    folder that was remembered: names are paths below it.

    \b
    Examples:
      residua update mem/ --text src/ --glob '**/*.py'
      residua update mem/ --text src/ --dry-run
    """
    if not text:
        raise click.UsageError("expected --text PATH: the folder as it is now")
    missing = "keep" if keep else "forget"
    follow(memory, text, options, device, as_json, missing=missing, dry_run=dry_run, note=why)


def follow(
    memory: Path, text: tuple[Path, ...], options: dict, device: str, as_json: bool, *, note=None, **how: Any
) -> None:
    """Update the memory in a folder from these texts, read as `options` say, and report it."""
    opened = memory_at(memory, device, of_text=True, edit=not how.get("dry_run"))
    language, tokenizer = model_of(opened, memory, options["model"], options["dtype"])
    import residua as rs

    reading = reading_for(language, options)
    how |= {"progress": progress(), "batch_size": options["batch_size"]}
    with opened.editing("update", note):
        done = rs.lm.update(language, tokenizer, list(text), opened, **how, **reading)
    if not how.get("dry_run"):
        opened.save(memory)
    now = "nothing was changed (--dry-run)" if how.get("dry_run") else f"{len(opened):,} now"
    lines = [f"{memory}: {done}; {now}"]
    for kind in ("added", "changed", "removed"):
        names = getattr(done, kind)
        lines += [f"  {kind:<8} {one_line(name)}" for name in names[:SHOWN]]
        lines += [f"  {kind:<8} and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    report(asdict(done) | {"rows": len(opened)}, "\n".join(lines), as_json, [next_step(memory, of_text=True)])
