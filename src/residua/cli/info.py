"""``residua info``: what a memory folder holds."""

from __future__ import annotations

from pathlib import Path

import click

from residua.cli.options import json_option, memory_argument
from residua.cli.text import count, report, shown


@click.command()
@memory_argument
@json_option
def info(memory: Path, as_json: bool) -> None:
    """Say what a memory holds, and whose it is."""
    from residua.memory import Memory
    from residua.read import load
    from residua.read.reader import FILE as SAVED

    reader = load(memory) if (memory / SAVED).exists() else None
    opened = Memory.load(memory) if reader is None else reader.memory
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
        "reader": reader and {"name": type(reader).__name__, "params": reader.params},
        "source": source and {"model": source.name, "key": source.key, "dtype": source.dtype},
    }
    report(data, _table(memory, data, recall), as_json)


def _table(path: Path, data: dict, recall) -> str:
    forgotten = f" ({data['forgotten']:,} forgotten ones still in the files)" if data["forgotten"] else ""
    columns = data["bytes_per_row"]
    storage = {name: value for name, value in data["storage"].items() if name not in ("name", "classes")}
    reader, source = data["reader"], data["source"]
    lines = {
        "task": f"{data['task']}, {count(data['outputs'], 'output')}",
        "rows": f"{data['rows']:,}{forgotten}",
        "keys": f"{data['dim']} numbers each",
        "columns": ", ".join(data["columns"]) or "none of their own",
        "bytes per row": f"{sum(columns.values())} ({', '.join(f'{name} {size}' for name, size in columns.items())})",
        "on disk": f"{data['bytes_on_disk']:,} bytes",
        "index": data["index"] + (f", {recall}" if recall else ""),
        "storage": data["storage"]["name"] + (f" ({shown(storage)})" if storage else ""),
        "reader": f"{reader['name']}({shown(reader['params'])})" if reader else "none saved; run residua tune",
        "made by": f"{source['model']} ({source['dtype']}), key {source['key']}" if source else "unknown",
    }
    width = max(map(len, lines))
    return "\n".join([str(path), *(f"  {name:<{width}}  {value}" for name, value in lines.items())])
