"""``residua serve``: memories over HTTP, each tenant's own."""

import re
from pathlib import Path
from typing import Any

import click

from residua.cli import options as shared
from residua.cli.language import model_of
from residua.cli.loaders import model_named, needed
from residua.cli.output import report
from residua.cli.store import checked, reader_at, usual_reader
from residua.cli.verbosity import note
from residua.errors import InputError
from residua.folder import has_reader

TENANT = "A tenant and its memory's folder, in place of MEMORY; repeatable. Each gets a token of its own."
TOKENS = "A JSON file of names and tokens; made, for its owner alone, where there is none."
MODEL = "Reads what is asked: a language model's folder or name, or module:factory. Without it, callers bring keys."
SHAPE = "Of one example, such as 3,32,32: then others are refused before the model sees them."


@click.command()
@click.argument("memory", type=shared.FILE, required=False)
@shared.trust_option
@shared.index_option
@click.option("--tenant", "tenants", multiple=True, metavar="NAME=FOLDER", help=TENANT)
@click.option("--model", metavar="FOLDER|NAME|MODULE:FACTORY", help=MODEL)
@click.option("--dtype", type=shared.Choice(shared.DTYPES), default="auto", show_default=True, help="The model's.")
@click.option("--input-shape", "shape", type=shared.NUMBERS, help=SHAPE)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option("--tokens", type=shared.FILE, help=TOKENS)
@click.option("--certificate", type=shared.FILE, help="For HTTPS: a PEM file.")
@click.option("--key", type=shared.FILE, help="For HTTPS: the certificate's key.")
@click.option("--max-bytes", "body", type=shared.AT_LEAST_1, default=2**24, show_default=True, help="Of a request.")
@click.option("--max-rows", "rows", type=shared.AT_LEAST_1, default=1024, show_default=True, help="Of a request.")
@click.option("--max-tokens", "tokens_most", type=shared.AT_LEAST_1, default=1024, show_default=True, help="New ones.")
@click.option("--capacity", type=shared.AT_LEAST_1, help="Rows that a memory may have.")
@click.option("--rate", type=float, help="Requests per second of each tenant.")
@click.option("--timeout", "seconds", type=float, default=30, show_default=True, help="Seconds of a request.")
@click.option("--queue", type=shared.AT_LEAST_1, default=1024, show_default=True, help="Requests that may wait.")
@click.option("--batch", type=shared.AT_LEAST_1, default=256, show_default=True, help="Rows predicted together.")
@click.option("--wait", "milliseconds", type=float, default=2, show_default=True, help="Until a batch closes, in ms.")
@shared.reader_options
@shared.device_and_json
def serve(
    memory: Path | None,
    tenants,
    model,
    dtype,
    shape,
    host,
    port,
    tokens,
    certificate,
    key,
    tokens_most,
    milliseconds,
    reader,
    device,
    as_json,
    **options: Any,
) -> None:
    """Serve a model with its memory over HTTP: predict, explain, familiarity, add, update and forget.

    Several memories of one model are served by --tenant, each to whoever bears its token. What is added is on the disk
    when the answer comes, and read by the next request. The address's own page says what can be asked; of a language
    model also /v1/completions, as OpenAI's clients ask. Logs are JSON on stderr. Ctrl-C or SIGTERM ends it.

    \b
    Examples:
      residua serve mem/ --model net:model
      residua serve mem/ --model gpt2/ --port 8000
      residua serve --tenant ada=ada/ --tenant bob=bob/ --model gpt2/ --tokens tokens.json --host 0.0.0.0
    """
    for package in ("starlette", "uvicorn", "prometheus_client"):
        needed(package, "residua serve", "serve")
    folders = _folders(memory, tenants)
    limits = {name: options.pop(name) for name in ("body", "rows", "capacity", "rate", "seconds", "queue", "batch")}
    kinds = {name: "documents" in checked(path).get("summary", {}) for name, path in folders.items()}
    readers = {}
    for name, path in folders.items():
        named = reader
        if named is None and not has_reader(path) and not kinds[name]:
            named = usual_reader(False)
            note(f"{path} holds no tuned reader: {named}'s defaults are served; 'residua tune' finds better ones")
        readers[name] = (reader_at(path, named, device, options, of_text=kinds[name], live=True), path)
    first, path = next(iter(readers.values()))
    loaded = None
    if any(kinds.values()):
        loaded = model_of(first.memory, path, model, dtype)
    elif model is not None:
        loaded, data = model_named(model)
        shape = shape or _shape(data)
    from residua.serving import Limits, Server

    server = Server(
        readers,
        loaded,
        name=_called(model or first.memory.about.get("model")),
        shape=shape,
        tokens=tokens,
        host=host,
        port=port,
        limits=Limits(tokens=tokens_most, wait=milliseconds / 1000, **limits),
        certificate=certificate,
        key=key,
    )
    report({"url": server.url, "memories": list(readers)}, server.url, as_json)
    server.run()


def _folders(memory: Path | None, tenants: tuple[str, ...]) -> dict[str, Path]:
    """The folders, by the names of their tenants."""
    if (memory is None) == (not tenants):
        raise click.UsageError("expected either MEMORY or --tenant NAME=FOLDER")
    if memory is not None:
        return {memory.resolve().name: memory}
    found: dict[str, Path] = {}
    for one in tenants:
        name, _, folder = one.partition("=")
        if not (re.fullmatch(r"[\w.-]{1,64}", name) and folder) or name == "operator":
            raise click.UsageError(f"--tenant {one!r} is not NAME=FOLDER, of a name in letters, digits, . _ -")
        if name in found:
            raise InputError(f"two tenants are called {name!r}; each needs its own name")
        found[name] = Path(folder)
    return found


def _called(model: Any) -> str:
    """What a model alone is called: the last part of its folder, its name on the hub, or its factory."""
    return Path(model).name.rpartition(":")[2] if isinstance(model, str) and Path(model).name else "base"


def _shape(data: Any) -> tuple[int, ...] | None:
    """Of one example, where the model's factory gave some: an array, or a pair (x, y)."""
    x = data[0] if isinstance(data, tuple) and len(data) == 2 else data
    shape = getattr(x, "shape", None)
    return None if shape is None or len(shape) < 2 else tuple(int(one) for one in shape[1:])
