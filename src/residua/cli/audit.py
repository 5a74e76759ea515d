"""``residua audit``: which remembered labels somebody should look at again, and what each row is worth."""

from pathlib import Path

import click

from residua.cli import options as shared
from residua.cli.output import command, report
from residua.cli.store import memory_at, reader_at
from residua.cli.verbosity import progress


@click.command()
@shared.memory_argument
@click.argument("utility", nargs=-1, type=shared.FILE)
@click.option("--csv", type=shared.FILE, help="Write the whole queue into this file.")
@shared.reader_options
@shared.device_and_json
def audit(memory: Path, utility, csv, reader, device, as_json, **params):
    """Review a memory's own rows: a queue of doubtful labels. Nothing is changed.

    UTILITY are encoded .npz files whose rows the memory serves, such as a validation set: what each remembered row is
    worth to them, and which are there too. A memory is read by label k-NN, unless options name a reader.

    \b
    Examples:
      residua audit mem/ validation.npz --csv queue.csv
    """
    from residua.core import Encoded
    from residua.review import audit as review

    named = reader is not None or any(value not in (None, {}) for value in params.values())
    where = {"of_text": False, "files": utility}
    asked = reader_at(memory, reader, device, params, **where) if named else memory_at(memory, device, **where)
    rows = [Encoded.load(file) for file in utility] or None
    found = review(asked, rows, progress=progress())
    if csv is not None:
        found.to_frame().to_csv(csv, index_label="row")
    first = int(found.ids[found.order[0]])
    then = [command("relabel", memory, "--id", first, "--label", "LABEL", why="should its label be wrong")]
    report(found.to_dict(), str(found), as_json, then)
