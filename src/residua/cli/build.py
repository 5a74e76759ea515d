"""``residua build``: encoded rows, or a language model's texts, become a memory folder."""

import logging
import os
from pathlib import Path

import click
from click import Choice, IntRange
from click.shell_completion import CompletionItem

from residua.cli.data import reading_for
from residua.cli.language import language_model
from residua.cli.loaders import check_npz, needed
from residua.cli.options import (
    AT_LEAST_1,
    FILE,
    device_and_json,
    has_imports,
    number,
    text_options,
    text_or_files,
    trust_option,
    trusted,
)
from residua.cli.output import command, report
from residua.cli.store import bytes_in, next_step, unfinished
from residua.cli.verbosity import note, progress
from residua.errors import MemoryFileError, ParameterError
from residua.folder import MANIFEST
from residua.printable import count, shown_keys, size

log: logging.Logger = logging.getLogger(__name__)

STORAGES = ("full", "none", "head", "top-m")
KEY_DTYPES = ("float16", "bfloat16", "float32")
INDEXES = ("exact", "auto", "knnlm", "knnlm-fast")  # those that need no FAISS, or do without where it is not there
INDEX = "exact, auto, knnlm(-fast), a FAISS factory string, your own.  [exact; auto for text]"
SERVERS = {"milvus": ("pymilvus", "milvus"), "postgresql": ("psycopg", "pgvector")}  # client, extra
KEYS = ("ffn", "head")
KEY = "ffn, head, or a module: NAME, or NAME:input."
WINDOWED = ("window", "stride", "min_context", "key", "no_keys")


def _one_of(names: tuple[str, ...]):
    """Completion of an option that takes these names among others."""
    return lambda ctx, param, incomplete: [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command()
@click.argument("encoded", nargs=-1, type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The folder to write.")
@text_options
@click.option("--window", type=IntRange(min=2), help="Tokens the model sees at a time; at most 1024 of its own.")
@click.option("--stride", type=AT_LEAST_1, help="How far windows advance; three quarters of the window.")
@click.option("--min-context", type=IntRange(min=0), help="Another way to say it: window - stride.")
@click.option("--key", default="ffn", show_default=True, shell_complete=_one_of(KEYS), help=KEY)
@click.option("--key-dtype", type=Choice(KEY_DTYPES), help="Of kept keys.  [float32; float16 for text]")
@click.option("--normalise", is_flag=True, help="Give keys length 1, so that the nearest have the largest cosine.")
@click.option("--no-keys", is_flag=True, help="Keep only the index's codes of the keys: a fraction of the disk.")
@click.option("--index", shell_complete=_one_of(INDEXES), help=INDEX)
@click.option("--index-param", "index_params", multiple=True, metavar="NAME=N", help="Such as nprobe=64.")
@click.option("--overfetch", type=AT_LEAST_1, default=4, show_default=True, help="Candidates per neighbour.")
@click.option("--storage", type=Choice(STORAGES), help="What is kept of logits.  [full; none for text]")
@click.option("--m", type=AT_LEAST_1, default=128, show_default=True, help="Entries per row (top-m).")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="The one they are kept for (top-m).")
@click.option("--overwrite", is_flag=True, help="Replace the memory that is there, and its reader.")
@trust_option
@device_and_json
def build(encoded, text, output: Path, index_params, overwrite: bool, device: str, as_json: bool, **options):
    """Remember encoded .npz files, or every token of texts, in a folder.

    With --text, a language model reads the texts once; a build that is stopped goes on where it was when the same
    command is given again. Started by torchrun, all processes share the work, each on a GPU of its own. Text files are
    UTF-8; an encoder-decoder's are .jsonl (source, target) or .tsv.

    \b
    Examples:
      residua build train.npz -o mem/
      residua build a.npz b.npz -o mem/ --index IVF256,PQ32x4fs --index-param nprobe=16
      residua build --text src/ --glob '**/*.py' --model MODEL -o mem/ --window 256
      torchrun --nproc-per-node 4 -m residua build --text src/ --model MODEL -o mem/ --device cuda
    """
    of_text = text_or_files(text, encoded, "ENCODED", text_only=WINDOWED)
    if (output / MANIFEST).exists() and not overwrite:
        extends = "" if of_text else " (residua add extends it)"
        how = f"give another folder, or replace it with --overwrite{extends}"
        raise MemoryFileError(f"{output} holds a memory already; {how}")
    options["index"] = options["index"] or ("auto" if of_text else "exact")
    options["storage"] = options["storage"] or ("none" if of_text else "full")
    options["key_dtype"] = options["key_dtype"] or ("float16" if of_text else "float32")
    engine, remote, _ = options["index"].partition("://")
    params = [_parameter(text, words=bool(remote)) for text in index_params]
    options |= {"index_params": dict(params) or None, "device": device}
    if remote and engine in SERVERS:
        package, extra = SERVERS[engine]
        needed(package, f"an index at {engine}://", extra)
    if options["index"] not in INDEXES and not remote and not has_imports(click.get_current_context()):
        needed("faiss", f"index {options['index']!r}", "faiss")
    if output.exists() and not output.is_dir():
        raise MemoryFileError(f"{output} is a file; expected the name of a folder to write")
    check_npz(encoded)
    if of_text:
        options["device"] = _joined(device)
        memory = _of_text(text, output, overwrite=overwrite, **options)
    else:
        from residua.core import Encoded
        from residua.memory import Memory

        taken = (
            "index",
            "storage",
            "device",
            "index_params",
            "overfetch",
            "m",
            "temperature",
            "normalise",
            "key_dtype",
        )
        memory = Memory(map(Encoded.load, encoded), **{name: options[name] for name in taken})
        memory.save(output)
    log.info("memory %s: %r", output, memory)
    if of_text and _launched():
        return  # the first process says it for all
    then = [next_step(output, of_text), *([command("generate", output, "a prompt")] if of_text else [])]
    report(*_summary(memory, output), as_json, then)


def _launched() -> int | None:
    """Which of several processes this is, where one launcher, such as torchrun, has started them; else None."""
    return int(os.environ.get("RANK", 0)) if int(os.environ.get("WORLD_SIZE", 1)) > 1 else None


def _joined(device: str) -> str:
    """The device of this process, which joins the others that its launcher has started."""
    if _launched() is None:
        return device
    from torch import distributed

    if "MASTER_ADDR" in os.environ and not distributed.is_initialized():
        distributed.init_process_group("gloo")
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if device == "cuda" and local else device


def _of_text(text: tuple[Path, ...], output: Path, *, model, dtype, device, no_keys, **options):
    """The memory of these texts in folder `output`, built now or finished."""
    if model is None:
        raise click.UsageError("--text needs --model: a folder, a name on the hub, or module:factory")
    rank = _launched()
    before = unfinished(output)
    if before and not rank and not options["overwrite"]:
        note(f"Going on with the unfinished build: {count(before, 'token')} on disk.")
    language, tokenizer = language_model(model, dtype, device)
    import residua as rs

    reading = reading_for(language, options)
    known_as = str(Path(model).resolve()) if Path(model).is_dir() else model
    options |= {"keep_keys": not no_keys, "about": {"model": known_as}, "progress": progress(), "trust": trusted()}
    options |= {"mmap": True, "together": rank is not None}  # nothing but its figures is shown
    if rank:
        options["progress"] = False
    try:
        return rs.lm.remember(language, tokenizer, list(text), output, **options, **reading)
    except KeyboardInterrupt:
        done = unfinished(output)
        if done:
            note(f"{count(done, 'token')} on disk: the same command goes on from there.")
        raise


def _summary(memory, output: Path) -> tuple[dict, str]:
    """What was built, for machines and for people."""
    recall, text = memory.recall, memory.schema.is_text
    about = {"rows": len(memory), "documents": len(memory.names) if text else None, "bytes_on_disk": bytes_in(output)}
    about |= {"index": memory.index.name, "recall": recall and recall.to_json(), "storage": memory.storage.name}
    about |= {"key": memory.source and memory.source.key, "output": str(output)}
    about["key_dtype"] = memory.schema.key_dtype if memory.keys_kept else None
    kept = shown_keys(memory.keys_kept, memory.schema.key_dtype, memory.schema.normalise)
    tokens = f"{count(len(memory), 'token')} of {count(len(memory.names), 'document')}" if text else None
    lines = [
        f"{output}: {tokens or count(len(memory), 'row')} remembered, {size(about['bytes_on_disk'])}",
        f"  keys     {about['key'] or 'given as arrays'}, {memory.dim} numbers, {kept}",
        f"  index    {memory.index.name}" + (f", {recall}" if recall else ""),
        f"  storage  {memory.storage.name}",
    ]
    return about, "\n".join(lines)


def _parameter(text: str, words: bool) -> tuple[str, int | float | str]:
    """NAME=NUMBER, or NAME=WORD of an index that has `words`."""
    name, _, value = text.partition("=")
    if words and value.isidentifier():
        return name, value
    try:
        return name, number(value)
    except ValueError as error:
        raise ParameterError(f"--index-param {text!r}; expected NAME=NUMBER, such as nprobe=64") from error
