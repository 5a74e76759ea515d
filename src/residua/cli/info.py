"""``residua info``: what a memory folder holds."""

from pathlib import Path

import click

from residua.cli.options import json_option, memory_argument
from residua.cli.output import report, size
from residua.cli.store import bytes_in, keys_kept, memory_at
from residua.printable import count, short, shown


@click.command()
@memory_argument
@json_option
def info(memory: Path, as_json: bool) -> None:
    """Say what a memory holds, and whose it is."""
    from residua.readers import load
    from residua.readers.reader import FILE as SAVED

    reader = load(memory) if (memory / SAVED).exists() else None
    opened = memory_at(memory) if reader is None else reader.memory
    source, recall, schema, index = opened.source, opened.recall, opened.schema, opened.index
    data = {"task": opened.task, "rows": len(opened), "forgotten": opened.n_rows - len(opened)}
    data |= {"dim": opened.dim, "outputs": opened.n_outputs, "columns": list(schema.columns)}
    data |= {"bytes_per_row": opened.bytes_per_row, "bytes_on_disk": bytes_in(memory), "storage": schema.storage}
    data |= {"index": index.name, "exact": index.exact, "recall": recall and recall.to_json()}
    data["reader"] = reader and {"name": type(reader).__name__, "params": reader.to_json()["params"]}
    data["source"] = source and {"model": source.name, "key": source.key, "dtype": source.dtype}
    if schema.is_text:
        data |= {name: opened.about.get(name) for name in ("windowing", "model")}
        data |= {"documents": len({*opened.ids.tolist()}), "key_dtype": schema.key_dtype, "keys_kept": opened.keys_kept}
    lines = _lines(data, opened, reader)
    width = max(map(len, lines))
    table = [f"  {name:<{width}}  {value}" for name, value in lines.items()]
    report(data, "\n".join([str(memory), *table]), as_json)


def _lines(data: dict, opened, reader) -> dict[str, str]:
    forgotten = f" ({data['forgotten']:,} forgotten ones still in the files)" if data["forgotten"] else ""
    rows, keys = f"{data['rows']:,}{forgotten}", f"{data['dim']} numbers each"
    if opened.schema.is_text:
        cut = data["windowing"] or {}
        of_its_kind = {
            "tokens": rows,
            "documents": f"{data['documents']:,}",
            "windows": ", ".join(f"{name} {cut[name]}" for name in ("window", "stride") if name in cut) or "unknown",
            "keys": f"{keys}, {keys_kept(opened)}",
            "model": data["model"] or "unknown: name it with --model",
        }
    else:
        of_its_kind = {"rows": rows, "keys": keys}
    columns, source = data["bytes_per_row"], data["source"]
    storage = {name: value for name, value in data["storage"].items() if name not in ("name", "classes")}
    return {
        "task": f"{data['task']}, {count(data['outputs'], 'output')}",
        **of_its_kind,
        "columns": ", ".join(data["columns"]) or "none of their own",
        "bytes per row": f"{sum(columns.values())} ({', '.join(f'{name} {size}' for name, size in columns.items())})",
        "on disk": size(data["bytes_on_disk"]),
        "index": data["index"] + (f", {opened.recall}" if opened.recall else ""),
        "storage": data["storage"]["name"] + (f" ({shown(storage)})" if storage else ""),
        "reader": short(reader) if reader else "none saved; run residua tune",
        "made by": f"{source['model']} ({source['dtype']}), key {source['key']}" if source else "unknown",
    }
