"""``residua report``: one page about a memory, in one file that holds everything."""

from pathlib import Path

import click

from residua.cli import options as shared
from residua.cli import output
from residua.cli.data import data_for
from residua.cli.loaders import needed
from residua.cli.store import reader_at
from residua.cli.verbosity import progress
from residua.errors import InputError

NPZ = {"type": shared.FILE, "multiple": True}


@click.command()
@shared.memory_argument
@click.argument("test", nargs=-1, type=shared.FILE)
@shared.text_options
@click.option("-o", "--output", "path", type=shared.FILE, default="report.html", show_default=True, help="The page.")
@click.option("--validation", help="To try every setting on, and for sets where --calibration is not given.", **NPZ)
@click.option("--calibration", help="Rows that were neither remembered nor tuned on, for sets and intervals.", **NPZ)
@click.option("--images", type=shared.FILE, help="The folder that the test rows' names are in, of pictures.")
@click.option("--remembered", type=shared.FILE, help="The same of the remembered rows.")
@click.option("--title", help="Its heading.")
@click.option("--audit/--no-audit", "review", default=None, help="What each memory is worth.  [up to 5,000 rows]")
@click.option("--examples", type=click.IntRange(min=0), default=8, show_default=True, help="Of each kind.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the resampling.")
@shared.reader_options
@shared.device_and_json
def report(memory: Path, test, text, path, validation, calibration, reader, device, as_json, **params):
    """Write one page about a memory: did it help, where, at what cost, what did it break, what to try next.

    TEST are encoded .npz files whose rows were neither remembered nor tuned on; a memory of text takes --text. The page
    is one file of HTML that asks no network for anything.

    \b
    Examples:
      residua report mem/ test.npz --validation val.npz
      residua report mem/ test.npz --images pictures/ --remembered pictures/ -o page.html
      residua report mem/ --text test/
    """
    of_text = shared.text_or_files(text, test, "TEST", files_only=("validation", "calibration", "images", "remembered"))
    needed("jinja2", "a report", "report")
    for folder in (params["images"], params["remembered"]):
        if folder is not None and not folder.is_dir():
            raise InputError(f"there is no folder {folder}; expected one that the rows' names are in, of pictures")
    reading = {name: params.pop(name) for name in shared.TEXT_ONLY}
    own = ("images", "remembered", "review", "examples", "seed")
    asked = {name: params.pop(name) for name in own}
    if (title := params.pop("title")) is not None:
        asked["title"] = title
    files = (*test, *validation, *calibration)
    used = reader_at(memory, reader, device, params, of_text=of_text, files=files)
    from residua.core import Encoded
    from residua.reporting import report as written

    data = data_for(used.memory, memory, test, text, reading)
    for name, rows in (("validation", validation), ("calibration", calibration)):
        asked[name] = [Encoded.load(file) for file in rows] or None
    found = written(used, data, path=path, progress=progress(), **asked)
    worst = None if found.review is None or not found.review.harmed else found.review.harmed[0].id
    then = (
        []
        if worst is None
        else [output.command("forget", memory, "--id", worst, why="should it be wrong, after a look")]
    )
    output.report(found.to_dict() | {"path": str(path)}, f"{found}\n{path}", as_json, then)
