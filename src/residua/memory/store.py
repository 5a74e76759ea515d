"""A memory on disk: immutable shards, a small file of edits, and a manifest that is written last.

``manifest.json`` names every file that counts, with its size and checksum, and is replaced by rename: a save that is
killed or runs out of disk leaves the old manifest and every file it names. Forgetting and relabelling write an edits
file (the forgotten rows, the relabelled rows and their labels) and leave the shards alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from residua import described
from residua.core import Head, Names
from residua.core.atomic import write_json
from residua.errors import MemoryFileError
from residua.folder import FORMAT, MANIFEST, read_manifest
from residua.index import Index, check_wanted, load_index
from residua.memory import manifest as files
from residua.memory import validate
from residua.memory.history import Changes, Event
from residua.memory.manifest import get_tensors, put_tensors, verify, writing
from residua.memory.run_length import RunLengthArray
from residua.memory.schema import Schema
from residua.memory.storage import Storage, make_storage
from residua.memory.table import Column, Table
from residua.strict import loads

_NOT_SAVED = ("active",)  # the edits file says it


@dataclass
class Contents:
    """All that a memory is, beside its rows and their index."""

    schema: Schema
    storage: Storage
    index_wanted: dict[str, Any]
    next_id: int = 0
    keys_kept: bool = True
    median_nn_distance: float | None = None
    about: dict[str, Any] | None = None
    names: Names | None = None
    summary: dict[str, Any] | None = None  # what `residua info` shows; only written


@dataclass
class Saved:
    """What a memory knows of the folder it was last saved to or loaded from."""

    path: Path
    generation: str
    shards: list[dict[str, Any]]
    rows: int


def put_rows(path: Path, name: str, rows: Mapping[str, Column]) -> dict[str, Any]:
    """Write table columns of some rows as one shard, which never changes; what a manifest says of it.

    Not by rename: what a killed call leaves counts for nothing until a manifest names it, and may be written over.
    Integers (int64, one number per row) go to disk as runs where that is smaller.
    """
    tensors, count = {}, len(rows["label"])
    for column, values in rows.items():
        if column in _NOT_SAVED:
            continue
        if isinstance(values, RunLengthArray) or (values.dtype == torch.int64 and values.ndim == 1):
            runs = values if isinstance(values, RunLengthArray) else RunLengthArray(values.cpu())
            if 24 * runs.count < 8 * count:
                tensors |= {f"{column}#{part}": tensor for part, tensor in runs.to_tensors().items()}
                continue
            values = runs[:]
        tensors[column] = values
    return put_tensors(path, name, tensors) | {"rows": count}


def get_rows(path: Path, shard: dict[str, Any]) -> dict[str, Column]:
    """The columns that ``put_rows`` wrote, verified; `shard` is what it returned."""
    tensors = get_tensors(path, shard)
    count = len(tensors["label"])
    columns: dict[str, Column] = {name: tensor for name, tensor in tensors.items() if "#" not in name}
    for name in [name.removesuffix("#start") for name in tensors if name.endswith("#start")]:
        if name in columns:
            raise MemoryFileError(f"{path / shard['file']} holds column {name!r} twice")
        parts = {part: tensors[f"{name}#{part}"] for part in ("start", "first", "step")}
        columns[name] = RunLengthArray.from_tensors(parts, count)
    return columns


def put_head(path: Path, generation: str, head: Head) -> dict[str, Any]:
    """Write the model's last layer; what a manifest says of the file."""
    tensors = {"weight": head.weight} | ({} if head.bias is None else {"bias": head.bias})
    return put_tensors(path, f"head-{generation}.safetensors", tensors)


def get_head(path: Path, about: dict[str, Any]) -> Head:
    """The head that ``put_head`` wrote, verified."""
    tensors = get_tensors(path, about)
    return Head(tensors["weight"], tensors.get("bias"))


def save(
    path: Path, contents: Contents, index: Index, table: Table, events: Sequence[Event], saved: Saved | None
) -> Saved:
    """Write a memory into folder `path`: only what changed, if that still holds what was `saved`."""
    path = path.absolute()
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        files.check_folder(path, "save")
        fresh = saved is None or saved.path != path or files.generation_of(path) != saved.generation
        shards, start = ([], 0) if saved is None or fresh else (list(saved.shards), saved.rows)
        with files.new_generation(path) as generation:
            if len(table) > start or not shards:
                rows = {name: table[name][start:] for name in table.names}
                shards.append(put_rows(path, f"rows-{generation}.safetensors", rows))
            edited = torch.cat(
                [torch.empty(0, dtype=torch.int64), *(e.changes.relabelled for e in events if e.changes)]
            )
            edited = edited[:0] if fresh else edited.unique()  # a fresh shard holds the new labels already
            edits = {"forgotten": (~table.dense("active")).nonzero()[:, 0], "edited": edited}
            edits["label"] = table.dense("label")[edited.to(table.device)]
            write_manifest(path, generation, contents, index, shards, edits)
    return Saved(path, generation, shards, len(table))


def write_manifest(
    path: Path,
    generation: str,
    contents: Contents,
    index: Index,
    shards: list[dict[str, Any]],
    edits: dict[str, Tensor] | None = None,
) -> None:
    """Make the shards in folder `path`, which hold all rows in order, a memory: write all else, the manifest last.

    `edits` are the forgotten rows, the relabelled rows and their labels. Before the manifest is in place nothing is
    removed.
    """
    manifest = {
        "format": FORMAT,
        "generation": generation,
        "schema": contents.schema.to_json(),
        "next_id": contents.next_id,
        "rows": sum(shard["rows"] for shard in shards),
        "keys_kept": contents.keys_kept,
        "median_nn_distance": contents.median_nn_distance,
        "about": contents.about or {},
        **({} if contents.summary is None else {"summary": contents.summary}),
        "shards": shards,
    }
    if edits is not None:
        manifest["edits"] = put_tensors(path, f"edits-{generation}.safetensors", edits)
    if contents.storage.head is not None:
        manifest["head"] = put_head(path, generation, contents.storage.head)
    if contents.names:
        name = f"names-{generation}.json"
        write_json(path / name, contents.names.to_json())
        manifest["names"] = files.described(path / name)
    index_files = index.save(path, f"index-{generation}")
    wanted, made = contents.index_wanted, index.to_json()
    if not isinstance(wanted["index"], str):  # an index of the caller's own, as it describes itself
        params = made["params"] | ({} if index.exact else {"rerank": made["rerank"]})
        wanted = {"index": made["engine"], "params": params, "overfetch": made["overfetch"]}
    described = [files.described(path / name) for name in index_files]
    files.commit(path, manifest | {"index": {"wanted": wanted, "about": made, "files": described}})


def add_summary(path: Path, summary: dict[str, Any]) -> None:
    """Say in the manifest of folder `path` what the memory there holds, where it was written without a memory."""
    with writing(path):
        files.commit(path, read_manifest(path) | {"summary": summary})


def load(path: Path, device: torch.device, trust: bool = False) -> tuple[Contents, Index, Table, list[Event], Saved]:
    """What folder `path` holds, verified; `trust` is ``load_index``'s."""
    path = path.absolute()
    manifest = read_manifest(path)
    try:
        table, shards, schema = Table(device), [], None
        keys_kept = manifest.get("keys_kept", True)
        for shard in manifest["shards"]:
            columns = get_rows(path, shard)
            label = columns["label"][:]
            count = len(label)
            columns["label"] = label.int() if label.dtype == torch.int64 else label
            if schema is None:
                schema = Schema.from_json(
                    manifest["schema"] if manifest["format"] > 2 else old_schema(manifest, columns)
                )
                validate.schema(schema)
                validate.room(manifest["rows"], manifest["shards"], columns)
            validate.columns(schema, columns, shard.get("rows", count), keys_kept)
            columns |= {"active": torch.ones(count, dtype=torch.bool)}
            table = table.appended(columns, room=manifest["rows"])
            shards.append(shard | {"rows": count})
        if len(table) != manifest["rows"]:
            raise MemoryFileError(f"{path} holds {len(table)} rows and its manifest says {manifest['rows']}")
        if schema is None:
            raise MemoryFileError(f"{path / MANIFEST} names no rows")
        validate.ids(table["id"], manifest["next_id"])
        events = [Event.of("create", Changes(0, len(table)))]
        if "edits" in manifest:
            edits = get_tensors(path, manifest["edits"])
            for rows in ("forgotten", "edited"):
                validate.row_numbers(edits[rows], len(table), rows)
            edits["label"] = edits["label"].int() if edits["label"].dtype == torch.int64 else edits["label"]
            validate.labels(schema, edits["label"], len(edits["edited"]))
            old = table.dense("label")[edits["edited"].to(device)].cpu()
            n, rows, label = len(table), edits["edited"], edits["label"]
            changes = Changes(n, n, edits["forgotten"], relabelled=rows, before=old, after=label)
            table, _ = changes.made(table, Names())
            events.append(Event.of("earlier", changes))
        for file in manifest["index"]["files"]:
            verify(path, file)
        about, wanted = manifest["index"]["about"], manifest["index"]["wanted"]
        if not trust:
            check_wanted(wanted["index"], wanted["params"] or {}, schema.dim)
        keys, forgotten = table.dense("key") if keys_kept else None, (~table.dense("active")).nonzero()[:, 0]
        index = load_index(about, path, keys, forgotten, device=device, n=len(table), trust=trust)
        head = get_head(path, manifest["head"]) if "head" in manifest else None
        validate.head(schema, head)
        names = loads(verify(path, manifest["names"]).read_bytes()) if "names" in manifest else {}
        described.names(names, "names")
        contents = Contents(
            schema=schema,
            storage=make_storage(schema, head),
            index_wanted=wanted,
            next_id=manifest["next_id"],
            keys_kept=keys_kept,
            median_nn_distance=manifest.get("median_nn_distance", manifest.get("typical_distance")),
            about=manifest.get("about"),
            names=Names.from_json(names),
        )
        return contents, index, table, events, Saved(path, manifest["generation"], shards, len(table))
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError) as error:
        raise MemoryFileError(f"{path / MANIFEST} is not a manifest this version understands: {error!r}") from error


def old_schema(manifest: dict[str, Any], columns: Mapping[str, Column]) -> dict[str, Any]:
    """The schema of formats 1 and 2, which kept keys and targets as they were given."""
    extra = {name[7:]: column for name, column in columns.items() if name.startswith("column.")}
    return manifest | {
        "key_dtype": manifest.get("key_dtype", "float32"),
        "key_centre": None,
        "target_centre": None,
        "columns": {name: [str(column.dtype)[6:], column.shape[1:]] for name, column in extra.items()},
    }
