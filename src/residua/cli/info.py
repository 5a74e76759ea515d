"""``residua info``: what a memory folder holds."""

from __future__ import annotations

from pathlib import Path

import click

from residua.cli.options import json_option, memory_argument
from residua.cli.text import count, described, report, shown, size


@click.command()
@memory_argument
@json_option
def info(memory: Path, as_json: bool) -> None:
    """Say what a memory holds, and whose it is."""
    from residua.cli.opened import memory_at
    from residua.readers import load
    from residua.readers.reader import FILE as SAVED

    reader = load(memory) if (memory / SAVED).exists() else None
    opened = memory_at(memory) if reader is None else reader.memory
    source, recall = opened.source, opened.recall
    data = {
        "task": opened.task,
        "rows": len(opened),
        "forgotten": len(opened.table) - len(opened),
        "dim": opened.dim,
        "outputs": opened.n_outputs,
        "columns": opened.columns,
        "bytes_per_row": opened.bytes_per_row,
        "bytes_on_disk": sum(file.stat().st_size for file in memory.iterdir() if file.is_file()),
        "index": opened.index.name,
        "exact": opened.index.exact,
        "recall": recall and recall.to_json(),
        "storage": opened.storage.to_json(),
        "reader": reader and {"name": type(reader).__name__, "params": reader.to_json()["params"]},
        "source": source and {"model": source.name, "key": source.key, "dtype": source.dtype},
    }
    if opened.of_tokens:
        data |= {
            "documents": len({*opened.ids.tolist()}),
            "windowing": opened.about.get("windowing"),
            "model": opened.about.get("model"),
            "key_dtype": opened.key_dtype,
            "keys_kept": opened.keys_kept,
        }
    report(data, _table(memory, data, recall, reader), as_json)


def _table(path: Path, data: dict, recall, reader) -> str:
    forgotten = f" ({data['forgotten']:,} forgotten ones still in the files)" if data["forgotten"] else ""
    columns = data["bytes_per_row"]
    storage = {name: value for name, value in data["storage"].items() if name not in ("name", "classes")}
    source, of_tokens = data["source"], "documents" in data
    lines = {
        "task": f"{data['task']}, {count(data['outputs'], 'output')}",
        "tokens" if of_tokens else "rows": f"{data['rows']:,}{forgotten}",
        **(_of_tokens(data) if of_tokens else {"keys": f"{data['dim']} numbers each"}),
        "columns": ", ".join(data["columns"]) or "none of their own",
        "bytes per row": f"{sum(columns.values())} ({', '.join(f'{name} {size}' for name, size in columns.items())})",
        "on disk": size(data["bytes_on_disk"]),
        "index": data["index"] + (f", {recall}" if recall else ""),
        "storage": data["storage"]["name"] + (f" ({shown(storage)})" if storage else ""),
        "reader": described(reader) if reader else "none saved; run residua tune",
        "made by": f"{source['model']} ({source['dtype']}), key {source['key']}" if source else "unknown",
    }
    width = max(map(len, lines))
    return "\n".join([str(path), *(f"  {name:<{width}}  {value}" for name, value in lines.items())])


def _of_tokens(data: dict) -> dict[str, str]:
    """What there is to say of a memory of tokens alone."""
    cut = data["windowing"] or {}
    kept = f"kept as {data['key_dtype']}" if data["keys_kept"] else "dropped: the index's codes of them are kept"
    return {
        "documents": f"{data['documents']:,}",
        "windows": ", ".join(f"{name} {cut[name]}" for name in ("window", "stride") if name in cut) or "unknown",
        "keys": f"{data['dim']} numbers each, {kept}",
        "model": data["model"] or "unknown: name it with --model",
    }
