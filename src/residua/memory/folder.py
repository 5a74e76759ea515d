"""A memory on disk: immutable shards, a small file of edits, and a manifest that is written last.

``manifest.json`` names every file that counts, with its size and checksum, and is replaced by rename: a save that is
killed or runs out of disk leaves the old manifest and every file it names. Forgetting and relabelling write an edits
file (the forgotten rows, the relabelled rows and their labels) and leave the shards alone.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from residua.core import Head, Source
from residua.errors import MemoryFileError
from residua.index import load_index
from residua.memory import files
from residua.memory.files import write_json
from residua.memory.manifest import FORMAT, MANIFEST, OWN, checksum, generation_of, read_manifest, sweep, undo
from residua.memory.shard import get_rows, put_rows
from residua.memory.storage import make_storage


@dataclass
class Saved:
    """What a memory knows of the folder it was last saved to or loaded from."""

    path: Path
    generation: str
    shards: list[dict]
    rows: int


def save(memory, path: str | os.PathLike) -> None:
    """See ``Memory.save``."""
    path = Path(path).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        if (path / MANIFEST).exists():
            read_manifest(path)  # another program's, or another version's, is not overwritten
        elif not all(file.name.startswith(OWN) for file in path.iterdir()):  # our own: a first save was killed
            raise MemoryFileError(f"{path} holds files that are not a memory's; save into an empty or new folder")
        _save(memory, path)
    except MemoryFileError:
        raise
    except OSError as error:
        raise MemoryFileError(f"cannot save the memory to {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise MemoryFileError(f"cannot save the memory to {path}: {error}") from error


def _save(memory, path: Path) -> None:
    saved, table = memory._saved, memory.table
    fresh = saved is None or saved.path != path or generation_of(path) != saved.generation
    generation = uuid.uuid4().hex[:12]
    try:
        shards = [] if fresh else list(saved.shards)
        start = 0 if fresh else saved.rows
        if len(table) > start or not shards:
            rows = {name: table[name][start:] for name in table.names}
            shards.append(put_rows(path, f"rows-{generation}.safetensors", rows))
        edited = table["edited"].clone()
        if fresh:
            edited[:] = False  # the fresh shard holds the new labels already
        edits = {
            "forgotten": (~table["alive"]).nonzero()[:, 0].cpu(),
            "edited": edited.nonzero()[:, 0].cpu(),
            "label": table["label"][edited].cpu(),
        }
        write_manifest(memory, path, shards, edits=edits, generation=generation)
    except BaseException:
        undo(path, generation)
        raise
    memory._saved = Saved(path, generation, shards, len(table))
    if fresh:
        table["edited"][:] = False


def write_manifest(
    memory,
    path: Path,
    shards: list[dict],
    *,
    edits: dict[str, Tensor] | None = None,
    generation: str | None = None,
) -> str:
    """Make the shards in folder `path` a memory: write everything else, the manifest last, by rename.

    Parameters
    ----------
    memory : Memory
        Says all that is not in the shards: task, sizes, source, next id, storage (with its head), key dtype, whether
        keys are kept, about, names, and the index, which covers all rows and is saved here. Its own table is not
        read and may be empty: ``Memory.without_rows`` makes such a one.
    path : Path
    shards : list of dict
        What ``put_rows`` returned, in row order.
    edits : dict, optional
        Forgotten rows, relabelled rows and their labels.
    generation : str, optional
        What the names of this save's files have in common; a new one by default.

    Returns
    -------
    str
        The generation. Afterwards the folder holds no other files of a memory's (those named like ours and not in
        the manifest are removed); before the rename nothing is removed, and after a failure only this call's files.
    """
    generation = generation or uuid.uuid4().hex[:12]
    try:
        manifest = {
            "format": FORMAT,
            "generation": generation,
            "task": memory.task,
            "dim": memory.dim,
            "n_outputs": memory.n_outputs,
            "flat_labels": memory.flat_labels,
            "next_id": memory._next_id,
            "rows": sum(shard["rows"] for shard in shards),
            "key_dtype": memory.key_dtype,
            "keys_kept": memory.keys_kept,
            "typical_distance": memory._typical_distance,
            "about": memory.about,
            "source": memory.source and memory.source.to_json(),
            "storage": memory.storage.to_json(),
            "shards": shards,
        }
        if edits is not None:
            manifest["edits"] = files.put(path, f"edits-{generation}.safetensors", edits)
        head = getattr(memory.storage, "head", None)
        if head is not None:
            tensors = {"weight": head.weight.cpu()} | ({} if head.bias is None else {"bias": head.bias.cpu()})
            manifest["head"] = files.put(path, f"head-{generation}.safetensors", tensors)
        if memory.names:
            name = f"names-{generation}.json"
            write_json(path / name, {str(number): text for number, text in memory.names.items()})
            manifest["names"] = files.described(path / name)
        index_files = memory.index.save(path, f"index-{generation}")
        manifest["index"] = {
            "wanted": memory._index_wanted,
            "about": memory.index.to_json(),
            "files": [files.described(path / name) for name in index_files],
        }
        manifest["crc32"] = checksum(manifest)
        write_json(path / MANIFEST, manifest)
    except BaseException:
        undo(path, generation)
        raise
    sweep(path, manifest)
    return generation


def load(cls, path: str | os.PathLike, device):
    """See ``Memory.load``."""
    path = Path(path).absolute()
    manifest = read_manifest(path)
    try:
        memory = cls.without_rows(
            storage=make_storage(**manifest["storage"]),
            index_wanted=manifest["index"]["wanted"],
            device=device,
            key_dtype=manifest.get("key_dtype", "float32"),
            about=manifest.get("about"),
            names=_names(path, manifest),
        )
        memory.keys_kept = manifest.get("keys_kept", True)
        memory._typical_distance = manifest.get("typical_distance")
        memory.task, memory.dim, memory.n_outputs = manifest["task"], manifest["dim"], manifest["n_outputs"]
        memory.flat_labels, memory._next_id = manifest["flat_labels"], manifest["next_id"]
        memory.source = manifest["source"] and Source.from_json(manifest["source"])
        table, shards = memory.table, []
        for shard in manifest["shards"]:
            rows = get_rows(path, shard)
            count = len(rows["label"])
            if memory.task == "classification":
                rows["label"] = rows["label"].int()
            rows["alive"] = torch.ones(count, dtype=torch.bool)
            rows["edited"] = torch.zeros(count, dtype=torch.bool)
            table.append(rows, room=manifest["rows"])
            shards.append(shard | {"rows": count})
        if len(table) != manifest["rows"]:
            raise MemoryFileError(f"{path} holds {len(table)} rows and its manifest says {manifest['rows']}")
        if "edits" in manifest:
            edits = files.get(path, manifest["edits"])
            table["alive"][edits["forgotten"].to(table.device)] = False
            edited = edits["edited"].to(table.device)
            table["edited"][edited] = True
            table["label"][edited] = edits["label"].to(table["label"])
        memory._alive_count = int(table["alive"].sum())
        if "head" in manifest:
            head = files.get(path, manifest["head"])
            memory.storage.head = Head(head["weight"], head.get("bias"))
        for file in manifest["index"]["files"]:
            files.verify(path, file)
        memory.index = load_index(
            manifest["index"]["about"],
            path,
            memory.keys,
            (~table["alive"]).nonzero()[:, 0],
            device=table.device,
            n=len(table),
        )
        memory._saved = Saved(path, manifest["generation"], shards, len(table))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise MemoryFileError(f"{path / MANIFEST} is not a manifest this version understands: {error!r}") from error
    return memory


def _names(path: Path, manifest: dict) -> dict[int, str]:
    if "names" not in manifest:
        return {}
    with open(files.verify(path, manifest["names"]), encoding="utf-8") as file:
        return {int(number): name for number, name in json.load(file).items()}


__all__ = ["MANIFEST", "OWN", "get_rows", "load", "put_rows", "read_manifest", "save", "write_json", "write_manifest"]
