"""``residua add``, ``forget``, ``relabel`` and ``purge``: change what is remembered, in its folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from residua.cli.documents import follow
from residua.cli.options import (
    FILE,
    device_and_json,
    json_option,
    memory_argument,
    note_option,
    number,
    text_options,
    text_or_files,
    together,
)
from residua.cli.output import command, report
from residua.cli.store import memory_at, next_step
from residua.cli.verbosity import note, progress
from residua.errors import IdError, MemoryFileError, ShapeError
from residua.printable import count, one_line

LABEL = "The new label (a class by its number or name): one for all ids, or one for each in their order."
ids_options = together(
    click.option("--id", "ids", type=int, multiple=True, help="An id; give it as often as needed."),
    click.option("--ids-file", type=FILE, help="A text file with one id per line."),
)


@click.command()
@memory_argument
@click.argument("encoded", nargs=-1, type=FILE)
@text_options
@click.option("--replace", is_flag=True, help="Forget rows of the same ids, or documents of the same names, first.")
@click.option("--new-classes", is_flag=True, help="Take in classes that the model has no output for.")
@note_option
@device_and_json
def add(
    memory: Path, encoded, text, replace: bool, new_classes: bool, why, device: str, as_json: bool, **options: Any
) -> None:
    """Remember the rows of encoded .npz files, or texts, too, all or none.

    \b
    Examples:
      residua add mem/ more.npz
      residua add mem/ corrected.npz --replace
      residua add mem/ koalas.npz --new-classes
      residua add mem/ --text src/
    """
    if text_or_files(text, encoded, "ENCODED", files_only=("new_classes",)):
        follow(memory, text, options, device, as_json, missing="keep", replace=replace, note=why)
        return
    opened = memory_at(memory, of_text=False, files=encoded, edit=True)
    from residua.core import Encoded

    ids = opened.add((Encoded.load(path) for path in encoded), replace=replace, new_classes=new_classes, note=why)
    opened.save(memory)
    which = f", ids {ids.min()} to {ids.max()}" if len(ids) else ""
    text = f"{memory}: {count(len(ids), 'row')} added{which}; {len(opened):,} now"
    report({"added": len(ids), "ids": ids, "rows": len(opened)}, text, as_json, [next_step(memory, of_text=False)])


@click.command()
@memory_argument
@ids_options
@click.option("--document", "documents", multiple=True, help="A document's name, or its id; as often as needed.")
@click.option("--rebuild", is_flag=True, help="Also remove them from the files, and train the index anew.")
@note_option
@json_option
def forget(memory: Path, ids, ids_file, documents, rebuild: bool, why, as_json: bool) -> None:
    """Forget every row that bears one of the ids, all or none.

    \b
    Examples:
      residua forget mem/ --id 3 --id 4
      residua forget mem/ --document json/decoder.py --rebuild
    """
    wanted = wanted_ids(ids, ids_file) if ids or ids_file or not documents else []
    opened = memory_at(memory, edit=True)
    from residua.memory.documents import forget as forget_documents

    if wanted:
        opened.rows_with_ids(wanted)  # an unknown id is refused before a document is forgotten
    with opened.editing("forget", why) as draft:
        gone, kept = forget_documents(draft, documents)
        gone += draft.forget([id for id in wanted if id in draft]) if wanted else 0
    if rebuild:
        opened.rebuild(note=why)
    opened.save(memory)
    for name, others in kept.items():
        note(f"{one_line(name)} is forgotten; its text stays, for it is also that of {one_line(', '.join(others))}")
    text = f"{memory}: {count(gone, 'row')} forgotten; {len(opened):,} left"
    then = [next_step(memory, opened.schema.is_text), command("purge", memory, why="remove them from the files, too")]
    about = {"forgotten": gone, "kept": {name: list(others) for name, others in kept.items()}, "rows": len(opened)}
    report(about, text, as_json, then[: 1 if rebuild or not gone else 2])


@click.command()
@memory_argument
@note_option
@json_option
def purge(memory: Path, why, as_json: bool) -> None:
    """Remove forgotten rows from the files too, and search every byte of the folder to prove it.

    \b
    Examples:
      residua purge mem/
    """
    opened = memory_at(memory, edit=True)
    done = opened.purge(memory, note=why, progress=progress())
    report(asdict(done) | {"left": len(opened)}, f"{memory}: {done}", as_json)


@click.command()
@memory_argument
@ids_options
@click.option("--label", "labels", multiple=True, required=True, help=LABEL)
@note_option
@json_option
def relabel(memory: Path, ids, ids_file, labels, why, as_json: bool) -> None:
    """Give the rows that bear the ids another label, all or none.

    \b
    Examples:
      residua relabel mem/ --id 12 --label 3
      residua relabel mem/ --id 12 --id 15 --label 3 --label 0
      residua relabel mem/ --id 12 --label 'tabby cat'
    """
    wanted = wanted_ids(ids, ids_file)
    opened = memory_at(memory, edit=True)
    import numpy as np

    changed = opened.relabel(wanted, np.asarray(_labels(labels, opened.schema.classes or ())), note=why)
    opened.save(memory)
    text = f"{memory}: {count(changed, 'row')} relabelled; {len(opened):,} in all"
    report({"relabelled": changed, "rows": len(opened)}, text, as_json, [next_step(memory, opened.schema.is_text)])


def _labels(given: tuple[str, ...], classes: tuple[str, ...]) -> list:
    """Names of classes as they are; anything else as numbers, a row for each label, where it looks like them."""
    if set(given) <= set(classes):
        return list(given)
    try:
        labels = [[number(part) for part in label.split(",")] for label in given]
    except ValueError:
        return list(given)
    lengths = {len(label) for label in labels}
    if len(lengths) > 1:
        raise ShapeError(f"the labels have {sorted(lengths)} numbers; expected as many in each")
    return labels


def wanted_ids(ids: tuple[int, ...], file: Path | None) -> list[int]:
    """The ids given one by one, then those of the file; ``IdError`` when there is none at all."""
    wanted = list(ids)
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file else []
    except (OSError, UnicodeDecodeError) as error:
        raise MemoryFileError(f"cannot read ids from {file}: {error}") from error
    for place, line in enumerate(lines, 1):
        try:
            wanted += [int(line)] if line.strip() else []
        except ValueError as error:
            raise IdError(f"{file}, line {place}: {line.strip()!r} is not an integer id") from error
    if not wanted:
        raise IdError("no ids were given; name them with --id 3 --id 4, or with --ids-file")
    return wanted
