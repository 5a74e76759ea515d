"""``residua build --text``: a language model reads texts once, and every token of them is remembered."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from residua.cli.language import language_model, spelled
from residua.cli.opened import unfinished
from residua.cli.text import count, size
from residua.cli.texts import texts_at


def remembered(text: tuple[Path, ...], output: Path, *, model, dtype, device, glob, errors, no_keys, **options):
    """The memory of these texts in folder `output`, built now or finished."""
    import residua as rs

    if model is None:
        raise click.UsageError("--text needs --model: a folder, a name on the hub, or module:factory")
    before = unfinished(output)
    if before and not options["overwrite"]:
        click.echo(f"Going on with the unfinished build: {count(before, 'token')} on disk.", err=True)
    language, tokenizer = language_model(model, dtype, device)
    texts, reading = texts_at(text, language, {"glob": glob, "errors": errors})
    options["index"], options["storage"] = options["index"] or "auto", options["storage"] or "none"
    try:
        return rs.lm.remember(
            language,
            tokenizer,
            texts,
            output,
            keep_keys=not no_keys,
            about={"model": spelled(model)},
            progress=sys.stderr.isatty(),
            **options,
            **reading,
        )
    except KeyboardInterrupt:
        done = unfinished(output)
        if done:
            click.echo(f"{count(done, 'token')} on disk: the same command goes on from there.", err=True)
        raise


def summary(memory, output: Path) -> tuple[dict, str]:
    """What was built, for machines and for people."""
    recall, on_disk = memory.recall, sum(file.stat().st_size for file in output.iterdir() if file.is_file())
    about = {
        "rows": len(memory),
        "documents": len(memory.names),
        "bytes_on_disk": on_disk,
        "index": memory.index.name,
        "recall": recall and recall.to_json(),
        "storage": memory.storage.name,
        "key": memory.source.key,
        "key_dtype": memory.key_dtype if memory.keys_kept else None,
        "output": str(output),
    }
    keys = f"kept as {memory.key_dtype}" if memory.keys_kept else "dropped: the index's codes of them are kept"
    texts = count(len(memory.names), "document")
    lines = [
        f"{output}: {count(len(memory), 'token')} of {texts} remembered, {size(on_disk)}",
        f"  keys   {memory.source.key}, {memory.dim} numbers, {keys}",
        f"  index  {memory.index.name}" + (f", {recall}" if recall else ""),
        "",
        f"next: residua tune {output} --text VALIDATION     (text that is not remembered)",
        f"      residua generate {output} 'a prompt'",
    ]
    return about, "\n".join(lines)
