"""``residua inspect``: a page to look at a memory in, on this machine alone."""

import webbrowser
from pathlib import Path
from typing import Any

import click

from residua.cli import options as shared
from residua.cli.collections import COLLECTIONS, reader_of_pictures
from residua.cli.data import reading_for
from residua.cli.language import model_of
from residua.cli.loaders import check_npz, data_named, model_named, needed
from residua.cli.output import report
from residua.cli.store import checked, reader_at, usual_reader
from residua.cli.verbosity import note, progress
from residua.errors import InputError
from residua.folder import has_reader
from residua.printable import count

DATA = "Examples: what 'residua encode' takes, with --model; or an encoded .npz. Repeatable."
IMAGES = "Pictures of the examples, by row number: an .npz with x, a folder that names are in, or module:name."


@click.command()
@shared.memory_argument
@click.argument("test", nargs=-1, type=shared.FILE)
@click.option("--data", multiple=True, metavar="FILE|MODULE:FACTORY", help=DATA)
@shared.text_options
@click.option("--checkpoint", type=shared.FILE, help="timm: a file of weights for the model.")
@click.option("--images", metavar="FILE|FOLDER|MODULE:NAME", help=IMAGES)
@click.option("--remembered", metavar="FILE|FOLDER|MODULE:NAME", help="The same of what is remembered, by id.")
@click.option("--rows", type=shared.AT_LEAST_1, help="The most examples that are held.  [10000; fewer tokens]")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Where it is served; any that is free.")
@click.option("--open", "opened", is_flag=True, help="Open it in the browser.")
@shared.reader_options
@shared.device_and_json
def inspect(
    memory: Path,
    test,
    data,
    text,
    checkpoint,
    images,
    remembered,
    rows,
    port,
    opened,
    reader,
    device,
    as_json,
    **options: Any,
) -> None:
    """Look at a memory in a browser, and edit it.

    The page shows what the memory does to each example and which memories did it; its sliders move k, sigma, T and
    lambda; what is remembered can be looked through, forgotten, relabelled, taken back and kept. It is served on this
    machine alone, at an address that cannot be guessed, until Ctrl-C.

    TEST are encoded .npz files; a memory of text takes --text. --model reads --data that are not encoded, and what is
    brought to the page: module:factory as for encode (one that gives (model, prepare) reads pictures, too), timm:NAME
    or hf:FOLDER.

    \b
    Examples:
      residua inspect mem/ test.npz
      residua inspect mem/ test.npz --images test/ --remembered train/
      residua inspect mem/ --data net:test --model net:model
      residua inspect mem/ --text test/ --model gpt2/
    """
    needed("starlette", "the inspector", "inspect")
    needed("uvicorn", "the inspector", "inspect")
    data = [*map(str, test), *data]
    about = checked(memory, True if text else False if data else None)
    is_text = "documents" in about.get("summary", {})
    reading = {name: options.pop(name) for name in shared.TEXT_ONLY}
    if reader is None and not has_reader(memory) and not is_text:
        reader = "knnlm" if about.get("summary", {}).get("storage", {}).get("name") == "none" else usual_reader(False)
        note(f"{memory} holds no tuned reader: {reader}'s defaults are shown; 'residua tune' finds better ones")
    asked = reader_at(memory, reader, device, options, of_text=is_text)
    from residua.inspector import inspect as serve

    model = prepare = rows_of = own = None
    if is_text:
        model = _language(asked.memory, memory, reading, needed=bool(text))
    elif reading["model"]:
        model, prepare = _model(reading["model"], checkpoint)
    if text:
        rows_of = _texts(model, text, asked, reading)
    elif data:
        rows_of, own = _examples(data, model, asked)
    pictures = {"images": _pictures(images) if images else own, "remembered": remembered and _pictures(remembered)}
    page = serve(asked, rows_of, model=model, prepare=prepare, path=memory, rows=rows, port=port, **pictures)
    with page:
        report({"url": page.url}, page.url, as_json)
        note("Ctrl-C ends it")
        if opened:
            webbrowser.open(page.url)
        try:
            page.wait()
        finally:
            edits = page.session.status()["edits"]
            if edits:
                note(f"{count(edits, 'edit')} {'was' if edits == 1 else 'were'} not kept")


def _language(opened: Any, path: Path, reading: dict, needed: bool) -> Any:
    """The language model and its tokenizer, which shows tokens as text; None where nobody named one that is here."""
    try:
        return model_of(opened, path, reading["model"], reading["dtype"])
    except InputError as error:
        if needed or reading["model"]:
            raise
        note(f"tokens are shown by their numbers: {error}")
        return None


def _model(spec: str, checkpoint: Path | None) -> tuple[Any, Any]:
    """A model, and what prepares a picture for it, where that is known."""
    if spec.partition(":")[0] in COLLECTIONS:
        return reader_of_pictures(spec, checkpoint)
    model, second = model_named(spec)
    return model, second if callable(second) else None


def _examples(data: list[str], model: Any, reader: Any) -> tuple[list, Any]:
    """The examples, encoded, and their pictures, where the data are arrays of them."""
    import residua as rs
    from residua.core.npz import read_npz

    found, pictures = [], []
    for spec in data:
        if spec.endswith(".npz"):
            check_npz([Path(spec)])
            if "keys" in read_npz(spec, "an .npz file of arrays"):
                found.append(rs.Encoded.load(spec))
                continue
        if model is None:
            raise InputError(f"--data {spec} is not encoded: give the model that reads it, --model module:factory")
        x, y, ids = data_named(spec)
        found.append(rs.encode(model, x, y, ids=ids, like=reader, progress=progress()))
        pictures.append(_pixels(x))
    alone = len(pictures) == len(data) == 1
    return found, pictures[0] if alone else None


def _pixels(x: Any) -> Any:
    """Data that look like pictures: an array (n, h, w), (n, h, w, c) or (n, c, h, w)."""
    x = x[0] if isinstance(x, tuple) and len(x) == 2 else x
    shape = tuple(getattr(x, "shape", ()))
    is_pictures = len(shape) == 3 or (len(shape) == 4 and {shape[1], shape[3]} & {1, 3})
    return x if is_pictures and min(shape[1:3]) >= 1 else None


def _texts(model: Any, text: tuple[Path, ...], reader: Any, options: dict) -> Any:
    import residua as rs

    batch_size, reading = options["batch_size"], reading_for(model[0], options)
    return rs.encode(model, list(text), like=reader.memory, batch_size=batch_size, progress=progress(), **reading)


def _pictures(spec: str) -> Any:
    """What ``images=`` takes: the array x of an .npz, a folder, or what module:name is."""
    if Path(spec).is_dir():
        return Path(spec)
    x, _, _ = data_named(spec)
    return x[0] if isinstance(x, tuple) and len(x) == 2 else x
