"""A memory on disk: immutable shards, a small file of edits, and a manifest that is written last.

``manifest.json`` names every file that counts, with its size and checksum, and is replaced by rename: a save that is
killed or runs out of disk leaves the old manifest and every file it names. Forgetting and relabelling write an edits
file (the forgotten rows, the relabelled rows and their labels) and leave the shards alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from residua.core import Head, Names
from residua.core.atomic import write_json
from residua.errors import MemoryFileError, StaleMemoryError
from residua.folder import FORMAT, MANIFEST, read_manifest, reader_in
from residua.index import Index, load_index
from residua.memory import manifest as files
from residua.memory.lock import locked
from residua.memory.manifest import get_tensors, put_tensors, verify, writing
from residua.memory.run_length import RunLengthArray
from residua.memory.schema import Schema
from residua.memory.storage import Storage, make_storage
from residua.memory.table import Column, Table

_NOT_SAVED = ("active", "edited")  # the edits file says it
_ATTEMPTS = 100  # to load what others save at the same time

Known: TypeAlias = dict[Path, set[str]]  # a memory's folders, and those generations there that are its own


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
    reader: dict[str, Any] | None = None  # that was saved with it; only read


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


def get_rows(path: Path, shard: dict[str, Any], held: files.Held | None = None) -> dict[str, Column]:
    """The columns that ``put_rows`` wrote, verified; `shard` is what it returned."""
    tensors = get_tensors(path, shard, held)
    count = len(tensors["label"])
    columns: dict[str, Column] = {name: tensor for name, tensor in tensors.items() if "#" not in name}
    for name in [name.removesuffix("#start") for name in tensors if name.endswith("#start")]:
        parts = {part: tensors[f"{name}#{part}"] for part in ("start", "first", "step")}
        columns[name] = RunLengthArray.from_tensors(parts, count)
    return columns


def put_head(path: Path, generation: str, head: Head) -> dict[str, Any]:
    """Write the model's last layer; what a manifest says of the file."""
    tensors = {"weight": head.weight} | ({} if head.bias is None else {"bias": head.bias})
    return put_tensors(path, f"head-{generation}.safetensors", tensors)


def get_head(path: Path, about: dict[str, Any], held: files.Held | None = None) -> Head:
    """The head that ``put_head`` wrote, verified."""
    tensors = get_tensors(path, about, held)
    return Head(tensors["weight"], tensors.get("bias"))


def save(
    path: Path,
    contents: Contents,
    index: Index,
    table: Table,
    saved: Saved | None,
    known: Known,
    reader: dict[str, Any] | None = None,
) -> Saved:
    """Write a memory, and `reader`, into folder `path`: only what changed, if that still holds what was `saved`.

    Without a `reader`, the one that is there stays, if the folder is one of those `known`. ``StaleMemoryError`` where
    it is, and holds a generation that is not this memory's.
    """
    path = folder_of(path)
    with locked(path), writing(path):
        files.check_folder(path, "save")
        now = files.generation_of(path)
        check_current(path, known, now)
        fresh = saved is None or saved.path != path or now != saved.generation
        shards, start = ([], 0) if saved is None or fresh else (list(saved.shards), saved.rows)
        if reader is None and now in known.get(path, ()):
            reader = reader_in(path, read_manifest(path))
        with files.new_generation(path) as generation:
            known[path] = {*known.get(path, ()), generation}  # an interrupt may come when it is in place already
            if len(table) > start or not shards:
                rows = {name: table[name][start:] for name in table.names}
                shards.append(put_rows(path, f"rows-{generation}.safetensors", rows))
            edited = table.dense("edited").clone()
            if fresh:
                edited[:] = False  # the fresh shard holds the new labels already
            edits = {"forgotten": (~table.dense("active")).nonzero()[:, 0], "edited": edited.nonzero()[:, 0]}
            edits["label"] = table["label"][edited]
            write_manifest(path, generation, contents, index, shards, edits, reader, keep=not fresh)
        known[path] = {generation}
        if fresh:
            table.dense("edited")[:] = False
    return Saved(path, generation, shards, len(table))


def folder_of(path: Path) -> Path:
    """The one name of a folder that may have several."""
    return Path(os.path.realpath(path))


def check_current(path: Path, known: Known, now: str | None) -> None:
    """Refuse to save over what somebody else saved since."""
    if now is not None and path in known and now not in known[path]:
        raise StaleMemoryError(
            f"{path} holds generation {now}, and this memory is of an earlier one ({', '.join(known[path])}): somebody "
            "else saved there since, and their changes would be lost. Load it again and repeat your changes, or save "
            "into another folder"
        )


def write_manifest(
    path: Path,
    generation: str,
    contents: Contents,
    index: Index,
    shards: list[dict[str, Any]],
    edits: dict[str, Tensor] | None = None,
    reader: dict[str, Any] | None = None,
    keep: bool = False,
) -> None:
    """Make the shards in folder `path`, which hold all rows in order, a memory: write all else, the manifest last.

    `edits` are the forgotten rows, the relabelled rows and their labels. Before the manifest is in place nothing is
    removed; with `keep`, nor are the generations before it, of which a few stay.
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
        **({} if reader is None else {"reader": reader}),
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
    files.commit(path, manifest | {"index": {"wanted": wanted, "about": made, "files": described}}, keep)


def add_summary(path: Path, summary: dict[str, Any]) -> None:
    """Say in the manifest of folder `path` what the memory there holds, where it was written without a memory."""
    with writing(path):
        files.commit(path, read_manifest(path) | {"summary": summary})


def load(path: Path, device: torch.device) -> tuple[Contents, Index, Table, Saved]:
    """What folder `path` holds, verified: the old state or the new one where somebody saves at this moment."""
    path = folder_of(path)
    for _ in range(_ATTEMPTS):
        manifest = read_manifest(path)
        try:
            with files.held(path, manifest) as held:
                return _load(path, manifest, device, held)
        except MemoryFileError:
            if files.generation_of(path) in (manifest["generation"], None):
                raise
    raise MemoryFileError(f"{path} was saved {_ATTEMPTS} times while it was loaded; load it while fewer save there")


def _load(
    path: Path, manifest: dict[str, Any], device: torch.device, held: files.Held
) -> tuple[Contents, Index, Table, Saved]:
    try:
        table, shards, columns = Table(device), [], {}
        for shard in manifest["shards"]:
            columns = get_rows(path, shard, held)
            label = columns["label"][:]
            count = len(label)
            columns["label"] = label.int() if label.dtype == torch.int64 else label
            columns |= {"active": torch.ones(count, dtype=torch.bool), "edited": torch.zeros(count, dtype=torch.bool)}
            table.append(columns, room=manifest["rows"])
            shards.append(shard | {"rows": count})
        if len(table) != manifest["rows"]:
            raise MemoryFileError(f"{path} holds {len(table)} rows and its manifest says {manifest['rows']}")
        schema = Schema.from_json(manifest["schema"] if manifest["format"] > 2 else old_schema(manifest, columns))
        if "edits" in manifest:
            edits = get_tensors(path, manifest["edits"], held)
            table.dense("active")[edits["forgotten"].to(device)] = False
            edited = edits["edited"].to(device)
            table.dense("edited")[edited] = True
            table.dense("label")[edited] = edits["label"].to(table.dense("label"))
        for file in manifest["index"]["files"]:
            verify(path, file)
        keys_kept, about = manifest.get("keys_kept", True), manifest["index"]["about"]
        keys, forgotten = table.dense("key") if keys_kept else None, (~table.dense("active")).nonzero()[:, 0]
        index = load_index(about, path, keys, forgotten, device=device, n=len(table))
        names = verify(path, manifest["names"], held).read_text(encoding="utf-8") if "names" in manifest else "{}"
        contents = Contents(
            schema=schema,
            storage=make_storage(schema, get_head(path, manifest["head"], held) if "head" in manifest else None),
            index_wanted=manifest["index"]["wanted"],
            next_id=manifest["next_id"],
            keys_kept=keys_kept,
            median_nn_distance=manifest.get("median_nn_distance", manifest.get("typical_distance")),
            about=manifest.get("about"),
            names=Names.from_json(json.loads(names)),
            reader=reader_in(path, manifest),
        )
        return contents, index, table, Saved(path, manifest["generation"], shards, len(table))
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
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
