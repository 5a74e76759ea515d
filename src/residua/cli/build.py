"""``residua build``: encoded rows, or a language model's texts, become a memory folder."""

import sys
from pathlib import Path

import click
from click import Choice, IntRange

from residua.cli.data import texts_at
from residua.cli.language import language_model
from residua.cli.options import AT_LEAST_1, FILE, device_and_json, number, text_options, text_or_files
from residua.cli.output import report, size
from residua.cli.store import bytes_in, keys_kept, unfinished
from residua.errors import MemoryFileError, ParameterError
from residua.printable import count

STORAGES = ("full", "none", "head", "top-m")
KEY_DTYPES = ("float16", "bfloat16", "float32")
WINDOWED = ("window", "stride", "min_context", "key", "key_dtype", "no_keys")


@click.command()
@click.argument("encoded", nargs=-1, type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The folder to write.")
@text_options
@click.option("--window", type=IntRange(min=2), help="Tokens the model sees at a time; at most 1024 of its own.")
@click.option("--stride", type=AT_LEAST_1, help="How far windows advance; three quarters of the window.")
@click.option("--min-context", type=IntRange(min=0), help="Another way to say it: window - stride.")
@click.option("--key", default="ffn", show_default=True, help="ffn, head, or a module: NAME, or NAME:input.")
@click.option("--key-dtype", type=Choice(KEY_DTYPES), default="float16", show_default=True, help="Of kept keys.")
@click.option("--no-keys", is_flag=True, help="Keep only the index's codes of the keys: a fraction of the disk.")
@click.option("--index", help="exact, auto, knnlm(-fast), a FAISS factory string, your own.  [exact; auto for text]")
@click.option("--index-param", "index_params", multiple=True, metavar="NAME=N", help="Such as nprobe=64.")
@click.option("--overfetch", type=AT_LEAST_1, default=4, show_default=True, help="Candidates per neighbour.")
@click.option("--storage", type=Choice(STORAGES), help="What is kept of logits.  [full; none for text]")
@click.option("--m", type=AT_LEAST_1, default=128, show_default=True, help="Entries per row (top-m).")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="The one they are kept for (top-m).")
@click.option("--overwrite", is_flag=True, help="Replace the memory that is there, and its reader.")
@device_and_json
def build(encoded, text, output: Path, index_params, overwrite: bool, device: str, as_json: bool, **options):
    """Remember encoded .npz files, or every token of texts, in a folder.

    With --text, a language model reads the texts once; a build that is stopped goes on where it was when the same
    command is given again. Text files are UTF-8; an encoder-decoder's are .jsonl (source, target) or .tsv.

    \b
    residua build train.npz -o mem/
    residua build a.npz b.npz -o mem/ --index IVF256,PQ32x4fs --index-param nprobe=16
    residua build --text src/ --glob '**/*.py' --model MODEL -o mem/ --window 256
    """
    from residua.core import Encoded
    from residua.memory import Memory
    from residua.memory.manifest import MANIFEST
    from residua.readers.reader import FILE as READER

    of_text = text_or_files(text, encoded, "ENCODED", text_only=WINDOWED)
    if (output / MANIFEST).exists() and not overwrite:
        extends = "" if of_text else " (residua add extends it)"
        how = f"give another folder, or replace it with --overwrite{extends}"
        raise MemoryFileError(f"{output} holds a memory already; {how}")
    options |= {"index_params": dict(map(_parameter, index_params)) or None, "device": device}
    options["index"] = options["index"] or ("auto" if of_text else "exact")
    options["storage"] = options["storage"] or ("none" if of_text else "full")
    if of_text:
        memory = _of_text(text, output, overwrite=overwrite, **options)
    else:
        taken = ("index", "storage", "device", "index_params", "overfetch", "m", "temperature")
        memory = Memory((Encoded.load(path) for path in encoded), **{name: options[name] for name in taken})
        memory.save(output)
    (output / READER).unlink(missing_ok=True)  # it was tuned on the memory that was here
    report(*_summary(memory, output), as_json)


def _of_text(text: tuple[Path, ...], output: Path, *, model, dtype, device, glob, errors, no_keys, **options):
    """The memory of these texts in folder `output`, built now or finished."""
    import residua as rs

    if model is None:
        raise click.UsageError("--text needs --model: a folder, a name on the hub, or module:factory")
    before = unfinished(output)
    if before and not options["overwrite"]:
        click.echo(f"Going on with the unfinished build: {count(before, 'token')} on disk.", err=True)
    language, tokenizer = language_model(model, dtype, device)
    texts, reading = texts_at(text, language, {"glob": glob, "errors": errors})
    known_as = str(Path(model).resolve()) if Path(model).is_dir() else model
    options |= {"keep_keys": not no_keys, "about": {"model": known_as}, "progress": sys.stderr.isatty()}
    try:
        return rs.lm.remember(language, tokenizer, texts, output, **options, **reading)
    except KeyboardInterrupt:
        done = unfinished(output)
        if done:
            click.echo(f"{count(done, 'token')} on disk: the same command goes on from there.", err=True)
        raise


def _summary(memory, output: Path) -> tuple[dict, str]:
    """What was built, for machines and for people."""
    recall, text = memory.recall, memory.schema.is_text
    about = {"rows": len(memory), "documents": len(memory.names) if text else None, "bytes_on_disk": bytes_in(output)}
    about |= {"index": memory.index.name, "recall": recall and recall.to_json(), "storage": memory.storage.name}
    about |= {"key": memory.source and memory.source.key, "output": str(output)}
    about["key_dtype"] = memory.schema.key_dtype if memory.keys_kept else None
    tokens = f"{count(len(memory), 'token')} of {count(len(memory.names), 'document')}" if text else None
    data = "--text VALIDATION     (text that is not remembered)" if text else "VALIDATION.npz"
    lines = [
        f"{output}: {tokens or count(len(memory), 'row')} remembered, {size(about['bytes_on_disk'])}",
        f"  keys     {about['key'] or 'given as arrays'}, {memory.dim} numbers, {keys_kept(memory)}",
        f"  index    {memory.index.name}" + (f", {recall}" if recall else ""),
        f"  storage  {memory.storage.name}",
        "",
        f"next: residua tune {output} {data}",
        *([f"      residua generate {output} 'a prompt'"] if text else []),
    ]
    return about, "\n".join(lines)


def _parameter(text: str) -> tuple[str, int | float]:
    name, _, value = text.partition("=")
    try:
        return name, number(value)
    except ValueError as error:
        raise ParameterError(f"--index-param {text!r}; expected NAME=NUMBER, such as nprobe=64") from error
