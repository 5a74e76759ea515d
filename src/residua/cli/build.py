"""``residua build``: encoded rows become a memory folder."""

from __future__ import annotations

from pathlib import Path

import click

from residua.cli.options import FILE, device_option, json_option
from residua.cli.text import report
from residua.errors import MemoryFileError, ParameterError

STORAGES = ("full", "none", "head", "top-m")


@click.command()
@click.argument("encoded", nargs=-1, required=True, type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The folder to write.")
@click.option("--index", default="exact", show_default=True, help="exact, auto, or a FAISS factory string.")
@click.option("--index-param", "index_params", multiple=True, metavar="NAME=N", help="Such as nprobe=64.")
@click.option("--overfetch", type=click.IntRange(min=1), default=4, show_default=True, help="Candidates per neighbour.")
@click.option(
    "--storage", type=click.Choice(STORAGES), default="full", show_default=True, help="What is kept of logits."
)
@click.option("--m", type=click.IntRange(min=1), default=128, show_default=True, help="Entries per row (top-m).")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="The one they are kept for (top-m).")
@click.option("--overwrite", is_flag=True, help="Replace the memory that is there, and its reader.")
@device_option
@json_option
def build(encoded, output: Path, index, index_params, overfetch, storage, m, temperature, overwrite, device, as_json):
    """Remember the rows of encoded .npz files in a folder.

    \b
    residua build train.npz -o mem/
    residua build a.npz b.npz -o mem/ --index IVF256,PQ32x4fs --index-param nprobe=16
    """
    from residua.memory import Memory
    from residua.memory.folder import MANIFEST
    from residua.read.reader import FILE as READER
    from residua.records import Encoded

    if (output / MANIFEST).exists() and not overwrite:
        raise MemoryFileError(
            f"{output} holds a memory already; give another folder, or replace it with --overwrite "
            "(residua add extends it)"
        )
    memory = Memory(
        (Encoded.load(path) for path in encoded),
        index=index,
        index_params=dict(map(_parameter, index_params)) or None,
        overfetch=overfetch,
        storage=storage,
        m=m,
        temperature=temperature,
        device=device,
    )
    memory.save(output)
    (output / READER).unlink(missing_ok=True)  # it was tuned on the memory that was here
    recall = memory.recall
    about = {"rows": len(memory), "index": memory.index.name, "storage": storage, "output": str(output)}
    text = f"{output}: {memory}" + (f", {recall}" if recall else "")
    report({**about, "recall": recall and recall.to_json()}, text, as_json)


def _parameter(text: str) -> tuple[str, int | float]:
    name, _, value = text.partition("=")
    try:
        return name, int(value) if value.lstrip("-").isdigit() else float(value)
    except ValueError as error:
        raise ParameterError(f"--index-param {text!r}; expected NAME=NUMBER, such as nprobe=64") from error
