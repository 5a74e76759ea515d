"""``residua build``: encoded rows, or a language model's texts, become a memory folder."""

from __future__ import annotations

from pathlib import Path

import click

from residua.cli.options import FILE, device_option, json_option, text_options, text_or_files, together
from residua.cli.text import report
from residua.errors import MemoryFileError, ParameterError

STORAGES = ("full", "none", "head", "top-m")
KEY_DTYPES = ("float16", "bfloat16", "float32")

_window_options = together(
    click.option(
        "--window", type=click.IntRange(min=2), help="Tokens the model sees at a time; at most 1024 of its own."
    ),
    click.option("--stride", type=click.IntRange(min=1), help="How far windows advance; three quarters of the window."),
    click.option("--min-context", type=click.IntRange(min=0), help="Another way to say it: window - stride."),
    click.option("--key", default="ffn", show_default=True, help="ffn, head, or a module: NAME, or NAME:input."),
    click.option(
        "--key-dtype", type=click.Choice(KEY_DTYPES), default="float16", show_default=True, help="Of kept keys."
    ),
    click.option("--no-keys", is_flag=True, help="Keep only the index's codes of the keys: a fraction of the disk."),
)
WINDOWED = ("window", "stride", "min_context", "key", "key_dtype", "no_keys")


@click.command()
@click.argument("encoded", nargs=-1, type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The folder to write.")
@text_options
@_window_options
@click.option("--index", help="exact, auto, knnlm, knnlm-fast, or a FAISS factory string.  [exact; auto for text]")
@click.option("--index-param", "index_params", multiple=True, metavar="NAME=N", help="Such as nprobe=64.")
@click.option("--overfetch", type=click.IntRange(min=1), default=4, show_default=True, help="Candidates per neighbour.")
@click.option("--storage", type=click.Choice(STORAGES), help="What is kept of logits.  [full; none for text]")
@click.option("--m", type=click.IntRange(min=1), default=128, show_default=True, help="Entries per row (top-m).")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="The one they are kept for (top-m).")
@click.option("--overwrite", is_flag=True, help="Replace the memory that is there, and its reader.")
@device_option
@json_option
def build(encoded, text, output: Path, index_params, overwrite: bool, device: str, as_json: bool, **options):
    """Remember encoded .npz files, or every token of texts, in a folder.

    With --text, a language model reads the texts once; a build that is stopped goes on where it was when the same
    command is given again. Text files are UTF-8; an encoder-decoder's are .jsonl (source, target) or .tsv.

    \b
    residua build train.npz -o mem/
    residua build a.npz b.npz -o mem/ --index IVF256,PQ32x4fs --index-param nprobe=16
    residua build --text src/ --glob '**/*.py' --model MODEL -o mem/ --window 256
    """
    from residua.memory.manifest import MANIFEST
    from residua.readers.reader import FILE as READER

    of_text = text_or_files(text, encoded, "ENCODED", text_only=WINDOWED)
    if (output / MANIFEST).exists() and not overwrite:
        extends = "" if of_text else " (residua add extends it)"
        raise MemoryFileError(
            f"{output} holds a memory already; give another folder, or replace it with --overwrite{extends}"
        )
    options["index_params"] = dict(map(_parameter, index_params)) or None
    if of_text:
        from residua.cli.build_text import remembered, summary

        memory = remembered(text, output, overwrite=overwrite, device=device, **options)
        about, shown = summary(memory, output)
    else:
        memory = _of_rows(encoded, device, options)
        memory.save(output)
        recall = memory.recall
        about = {"rows": len(memory), "index": memory.index.name, "storage": memory.storage.name, "output": str(output)}
        about["recall"] = recall and recall.to_json()
        shown = f"{output}: {memory}" + (f", {recall}" if recall else "")
    (output / READER).unlink(missing_ok=True)  # it was tuned on the memory that was here
    report(about, shown, as_json)


def _of_rows(encoded: tuple[Path, ...], device: str, options: dict):
    from residua.core import Encoded
    from residua.memory import Memory

    return Memory(
        (Encoded.load(path) for path in encoded),
        index=options["index"] or "exact",
        storage=options["storage"] or "full",
        device=device,
        **{name: options[name] for name in ("index_params", "overfetch", "m", "temperature")},
    )


def _parameter(text: str) -> tuple[str, int | float]:
    name, _, value = text.partition("=")
    try:
        return name, int(value) if value.lstrip("-").isdigit() else float(value)
    except ValueError as error:
        raise ParameterError(f"--index-param {text!r}; expected NAME=NUMBER, such as nprobe=64") from error
