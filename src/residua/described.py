"""What the JSON files of a memory's folder may say: every field that is read, in one table.

A field that is not named here is read by nobody, and let be: a later version may have written it. What is handed on as
arguments is closed, and any other field refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from residua.strict import (
    Check,
    anything,
    digits,
    each,
    either,
    flag,
    list_of,
    map_of,
    nullable,
    number,
    one_of,
    record,
    text,
    whole,
)

WIDE = 2**24  # dimensions of a key, outputs: a table of one row of them is 64 MB
ROWS = 2**40
IDS = r"-?[0-9]{1,19}"
NUMBER = r"-?[0-9]{1,9}"

centre: Check = number(-3.5e38, most=3.5e38)  # what float32 holds
word: Check = text(r"[A-Za-z0-9_]{1,64}")
plain: Check = text(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}", "the name of a file in its folder")
file: Check = record({"file": plain, "bytes": whole(), "crc32": whole(0, 2**32 - 1)})
shard: Check = record({"file": plain, "bytes": whole(), "crc32": whole(0, 2**32 - 1), "rows": whole(0, ROWS)})
logged: Check = record({"file": plain, "bytes": whole(), "crc32": whole(0, 2**32 - 1), "events": whole(0, ROWS)})
task: Check = one_of("classification", "regression", "multi-label")
key_dtype: Check = one_of("float32", "float16", "bfloat16")
names: Check = map_of(either(list_of(text()), text()), IDS)
recall: Check = nullable(
    record(
        {"value": number(0), "k": whole(), "queries": whole()},
        {"n": whole(), "rows": whole(), "date": text()},
        closed=True,
    )
)
kinds = "bool|u?int(8|16|32|64)|float(16|32|64)|bfloat16"
column: Check = each(text(kinds), list_of(whole(0, WIDE), 8))

storage: Check = either(
    record({"name": one_of("full", "none", "head")}),
    record({"name": one_of("top-m"), "m": whole(1, WIDE), "temperature": number(above=0)}),
)


def _probe(value: Any, where: str) -> None:
    sides = either(list_of(digits), digits)
    fields = {"shape": list_of(whole(0, WIDE), 8), "low": sides, "high": sides, "whole": flag}
    record({}, {**fields, "rows": whole(0, 1024), "answers": list_of(digits)}, closed=True)(value, where)
    if math.prod(value.get("shape", ())) * value.get("rows", 4) > 16 * WIDE:
        raise ValueError(f"{where} asks a model {value['shape']} numbers; expected fewer")


source: Check = nullable(
    record(
        {
            "name": text(),
            "key": text(),
            "dtype": text(),
            "parameters": map_of(each(list_of(whole()), digits)),
            "extra": map_of(text()),
        },
        {
            "statistics": map_of(list_of(anything)),
            "output": nullable(text()),
            "item": nullable(either(whole(-(2**31), 2**31), text())),
            "position": nullable(text()),
            "projections": map_of(map_of(digits)),
            "structure": map_of(either(flag, digits, text())),
            "probe": nullable(_probe),
            "class_weight": nullable(either(map_of(number(0), NUMBER), one_of("balanced"))),
        },
    )
)
_SHAPE = {
    "task": task,
    "dim": whole(1, WIDE),
    "n_outputs": whole(1, WIDE),
    "flat_labels": flag,
    "storage": storage,
    "source": source,
}
_schema: Check = record(
    {
        **_SHAPE,
        "key_dtype": key_dtype,
        "key_centre": nullable(list_of(centre)),
        "target_centre": nullable(list_of(centre)),
        "columns": map_of(column),
    },
    {"normalise": flag, "model_outputs": nullable(whole(1, WIDE)), "classes": nullable(list_of(text()))},
)


def schema(value: Any, where: str) -> None:
    """A schema whose lists are as long as it says."""
    _schema(value, where)
    lengths = {"key_centre": value["dim"], "target_centre": value["n_outputs"], "classes": value["n_outputs"]}
    for name, length in lengths.items():
        if value.get(name) is not None and len(value[name]) != length:
            raise ValueError(f"{where}.{name} has {len(value[name])} values; expected {length}")


_counts = ("added", "forgotten", "restored", "relabelled", "dropped")
# The words of a log.
events: Check = list_of(
    record(
        {"what": text(), "when": text()},
        {"note": text(), "undoes": nullable(whole()), **{name: whole(0, ROWS) for name in _counts}}
        | {"rows": list_of(whole(0, ROWS), 2), "counts": list_of(whole(0, ROWS), 3)}
        | {"names": map_of(list_of(list_of(text()), 2), IDS)},
        closed=True,
    )
)


# An index says what it is made of by parameters of its engine's own, which judges them.
_made: Check = either(
    record(
        {"engine": text(r"[\w-]+"), "dim": whole(1, WIDE), "params": map_of(anything), "overfetch": number(1)}
        | {"rerank": either(flag, whole()), "file": nullable(plain), "recall": recall},
        {"name": text(), "module": text(), "mac": nullable(text("[0-9a-f]{64}")), "former": list_of(text(r"\w+"))},
    ),
    record(  # of version 0.1
        {"name": text()},
        {"dim": whole(1, WIDE), "params": map_of(anything), "overfetch": number(1), "rerank": either(flag, whole())}
        | {"file": nullable(plain), "recall": recall, "mean": nullable(list_of(number()))},
    ),
)
_wanted: Check = record(
    {"index": text(), "params": nullable(map_of(anything)), "overfetch": number(1)},
    closed=True,
)
_of_source = {"model": text(), "key": text(), "dtype": text(), "output": nullable(text())}
summary: Check = record(
    {
        "task": task,
        "rows": whole(),
        "forgotten": whole(),
        "dim": whole(),
        "key_dtype": text(),
        "keys_kept": flag,
        "outputs": whole(),
        "columns": list_of(text()),
        "bytes_per_row": map_of(whole()),
        "storage": record({"name": text()}),
        "index": text(),
        "recall": recall,
        "source": nullable(record({name: _of_source[name] for name in ("model", "key", "dtype")}, _of_source)),
    },
    {
        "normalised": flag,
        "exact": flag,
        "documents": whole(),
        "stands_for": whole(),
        "model": nullable(anything),
        "windowing": nullable(map_of(anything)),
    },
)
READER: Check = record({"reader": text(), "params": map_of(anything)}, {"module": nullable(text()), "learned": file})
_manifest: Check = record(
    {
        "generation": word,
        "next_id": whole(0, 2**63),
        "rows": whole(0, ROWS),
        "shards": list_of(either(shard, file)),
        "index": record(
            {"wanted": _wanted, "about": _made, "files": list_of(file)},
            {"rows": whole(0, ROWS), "tail": list_of(shard)},
        ),
    },
    {
        "schema": schema,
        "keys_kept": flag,
        "median_nn_distance": nullable(number(0)),
        "typical_distance": nullable(number(0)),
        "about": map_of(anything),
        "summary": summary,
        "edits": either(list_of(logged), file),
        "earlier": list_of(word),
        "head": file,
        "names": file,
        "truth": file,
        "members": record({"shards": list_of(shard), "entries": file}),
        "reader": nullable(READER),
    },
)
_old: Check = record(_SHAPE, {"key_dtype": key_dtype})  # formats 1 and 2 have no schema, and say this beside the rest


def manifest(value: dict[str, Any]) -> None:
    """``ValueError`` where a manifest of formats 1 to 4 is not one that a save wrote."""
    _manifest(value, "manifest")
    if value["format"] > 2:
        record({"schema": schema})(value, "manifest")
    else:
        _old(value, "manifest")
    if value["format"] > 1:
        list_of(shard)(value["shards"], "manifest.shards")
    rows, length = sum(one.get("rows", 0) for one in value["shards"]), value["rows"]
    if value["format"] > 1 and rows != length:
        raise ValueError(f"manifest.rows is {length}, and its shards have {rows}")
    made, shape = value["index"]["about"], value.get("schema", value)
    _named_once(one["file"] for one in (*value["index"]["files"], *value["index"].get("tail", ())))
    if made.get("file") not in (None, *(one["file"] for one in value["index"]["files"])):
        raise ValueError(f"manifest.index.about names {made['file']}, which is none of the index's files")
    if made.get("dim", shape["dim"]) != shape["dim"]:
        raise ValueError(f"manifest.index.about.dim is {made['dim']}, and keys have {shape['dim']}")
    _named_once(one["file"] for one in value["shards"])


# What an ``.npz`` of encoded rows says beside its arrays.
_encoded: Check = record(
    {}, {"task": nullable(task), "source": source, "new_classes": flag, "classes": nullable(list_of(text()))}
)


def encoded(value: Any) -> None:
    """``ValueError`` where this is not what encoded rows say of themselves."""
    _encoded(value, "about")


def build(value: Any) -> None:
    """``ValueError`` where this is not what an unfinished build says of itself."""
    _build(value, "build")
    if len(value["shards"]) != len(value["text"]):
        raise ValueError(f"build has {len(value['shards'])} shards and {len(value['text'])} checksums of their text")


_index_of_build = record(
    {"about": _made, "file": file, "rows": whole(0, ROWS)},
    {"median_nn_distance": nullable(number(0)), "typical_distance": nullable(number(0)), "truth": file},
)
_build: Check = record(
    {
        "format": whole(1, 9),
        "settings": map_of(anything),
        "name": word,
        "shards": list_of(shard),
        "text": list_of(whole()),
        "waiting": list_of(file),
        "index": nullable(_index_of_build),
        "head": nullable(file),
    },
    {
        "schema": nullable(schema),
        "next_id": whole(0, 2**63),
        "nature": nullable(record({**_SHAPE, "_next_id": whole(0, 2**63)})),
        "parts": list_of(
            record({"file": plain, "bytes": whole(), "crc32": whole(), "rows": whole(0, ROWS), "text": whole()})
        ),
    },
)


def _named_once(files: Iterable[str]) -> None:
    seen: set[str] = set()
    for one in files:
        if one in seen:
            raise ValueError(f"the manifest names {one} twice")
        seen.add(one)
