"""A memory on disk: immutable shards, a small file of edits, and a manifest that is written last.

``manifest.json`` names every file that counts, with its size and checksum, and is replaced by rename: a save that is
killed or runs out of disk leaves the old manifest and every file it names. Forgetting and relabelling write an edits
file (the forgotten rows, the relabelled rows and their labels) and leave the shards alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from residua.errors import MemoryFileError
from residua.index import load_index
from residua.memory.storage import make_storage
from residua.records import Head, Source

FORMAT = 1
MANIFEST = "manifest.json"
# How the files that a save writes begin; safetensors writes into .tmpXXXXXX and renames, and so may be killed there.
OWN = ("rows-", "edits-", "head-", "index-", f"{MANIFEST}.", ".tmp")


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
            _manifest(path)  # another program's, or another version's, is not overwritten
        elif not all(file.name.startswith(OWN) for file in path.iterdir()):  # our own: a first save was killed
            raise MemoryFileError(f"{path} holds files that are not a memory's; save into an empty or new folder")
        _write(memory, path)
    except OSError as error:
        if isinstance(error, MemoryFileError):
            raise
        raise MemoryFileError(f"cannot save the memory to {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise MemoryFileError(f"cannot save the memory to {path}: {error}") from error


def _write(memory, path: Path) -> None:
    generation = uuid.uuid4().hex[:12]
    written: list[str] = []
    try:
        saved = memory._saved
        fresh = saved is None or saved.path != path or _generation(path) != saved.generation
        shards = [] if fresh else list(saved.shards)
        start = 0 if fresh else saved.rows
        table = memory.table
        if len(table) > start or not shards:
            stored = [name for name in table.names if name not in ("alive", "edited")]
            rows = {name: table[name][start:].contiguous().cpu() for name in stored}
            shards.append(_put(path, f"rows-{generation}.safetensors", rows, written))
        edited = table["edited"].clone()
        if fresh:
            edited[:] = False  # the fresh shard holds the new labels already
        edits = {
            "forgotten": (~table["alive"]).nonzero()[:, 0].cpu(),
            "edited": edited.nonzero()[:, 0].cpu(),
            "label": table["label"][edited].cpu(),
        }
        manifest = {
            "format": FORMAT,
            "generation": generation,
            "task": memory.task,
            "dim": memory.dim,
            "n_outputs": memory.n_outputs,
            "flat_labels": memory.flat_labels,
            "next_id": memory._next_id,
            "rows": len(table),
            "source": memory.source and memory.source.to_json(),
            "storage": memory.storage.to_json(),
            "shards": shards,
            "edits": _put(path, f"edits-{generation}.safetensors", edits, written),
        }
        head = getattr(memory.storage, "head", None)
        if head is not None:
            tensors = {"weight": head.weight.cpu().contiguous()}
            if head.bias is not None:
                tensors["bias"] = head.bias.cpu().contiguous()
            manifest["head"] = _put(path, f"head-{generation}.safetensors", tensors, written)
        index_files = memory.index.save(path, f"index-{generation}")
        written += index_files
        manifest["index"] = {
            "wanted": memory._index_wanted,
            "about": memory.index.to_json(),
            "files": [_described(path / name) for name in index_files],
        }
        manifest["crc32"] = _sum(manifest)
        write_json(path / MANIFEST, manifest)
    except BaseException:
        if _generation(path) != generation:  # an interrupt may come just after the rename
            for name in written:
                with contextlib.suppress(OSError):
                    (path / name).unlink(missing_ok=True)
        raise
    memory._saved = Saved(path, generation, shards, len(table))
    if fresh:
        table["edited"][:] = False
    _sweep(path, manifest)


def load(cls, path: str | os.PathLike, device):
    """See ``Memory.load``."""
    path = Path(path).absolute()
    manifest = _manifest(path)
    try:
        memory = object.__new__(cls)
        memory._start(make_storage(**manifest["storage"]), device)
        memory._index_wanted = manifest["index"]["wanted"]
        memory.task, memory.dim, memory.n_outputs = manifest["task"], manifest["dim"], manifest["n_outputs"]
        memory.flat_labels, memory._next_id = manifest["flat_labels"], manifest["next_id"]
        memory.source = manifest["source"] and Source.from_json(manifest["source"])
        table = memory.table
        for shard in manifest["shards"]:
            rows = _get(path, shard)
            count = len(rows["id"])
            rows["alive"], rows["edited"] = (
                torch.ones(count, dtype=torch.bool),
                torch.zeros(count, dtype=torch.bool),
            )
            table.append(rows)
        if len(table) != manifest["rows"]:
            raise MemoryFileError(f"{path} holds {len(table)} rows and its manifest says {manifest['rows']}")
        edits = _get(path, manifest["edits"])
        table["alive"][edits["forgotten"].to(table.device)] = False
        edited = edits["edited"].to(table.device)
        table["edited"][edited] = True
        table["label"][edited] = edits["label"].to(table.device)
        memory._alive_count = int(table["alive"].sum())
        if "head" in manifest:
            head = _get(path, manifest["head"])
            memory.storage.head = Head(head["weight"], head.get("bias"))
        for file in manifest["index"]["files"]:
            _verify(path, file)
        memory.index = load_index(
            manifest["index"]["about"],
            path,
            table["key"],
            (~table["alive"]).nonzero()[:, 0],
            device=table.device,
        )
        memory._saved = Saved(path, manifest["generation"], manifest["shards"], len(table))
    except (KeyError, TypeError, IndexError) as error:
        raise MemoryFileError(f"{path / MANIFEST} is not a manifest this version understands: {error!r}") from error
    return memory


def write_json(path: Path, data: dict) -> None:
    """Write a JSON file whole or not at all: a temporary file, flushed to disk, then a rename."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _put(path: Path, name: str, tensors: dict, written: list[str]) -> dict:
    written.append(name)
    save_file(tensors, path / name)
    return _described(path / name)


def _described(file: Path) -> dict:
    with open(file, "rb") as stream:
        os.fsync(stream.fileno())  # on the disk before a manifest names it
    return {"file": file.name, "bytes": file.stat().st_size, "crc32": _crc32(file)}


def _crc32(file: Path) -> int:
    value = 0
    with open(file, "rb") as stream:
        while block := stream.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def _verify(path: Path, described: dict) -> Path:
    file = path / described["file"]
    if not file.is_file():
        raise MemoryFileError(f"{file} is missing; restore it from a copy, or build the memory again")
    size = file.stat().st_size
    if size != described["bytes"]:
        raise MemoryFileError(f"{file} has {size} bytes and should have {described['bytes']}: it is torn")
    if _crc32(file) != described["crc32"]:
        raise MemoryFileError(f"{file} is corrupted: its checksum is not the manifest's")
    return file


def _get(path: Path, described: dict) -> dict[str, torch.Tensor]:
    file = _verify(path, described)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise MemoryFileError(f"{file} is not a safetensors file: {error}") from error


def _manifest(path: Path) -> dict:
    try:
        with open(path / MANIFEST, encoding="utf-8") as file:
            manifest = json.load(file)
    except FileNotFoundError as error:
        raise MemoryFileError(
            f"{path} is not a memory: it has no {MANIFEST}; expected a folder that save wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise MemoryFileError(f"{path / MANIFEST} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise MemoryFileError(f"{path / MANIFEST} has format {found}; this version reads format {FORMAT}")
    if manifest.get("crc32") != _sum(manifest):
        raise MemoryFileError(f"{path / MANIFEST} is corrupted: its checksum is not its own")
    return manifest


def _sum(manifest: dict) -> int:
    """Checksum of everything else in a manifest."""
    return zlib.crc32(json.dumps({name: value for name, value in manifest.items() if name != "crc32"}).encode())


def _generation(path: Path) -> str | None:
    try:
        return _manifest(path)["generation"]
    except (MemoryFileError, KeyError):
        return None


def _sweep(path: Path, manifest: dict) -> None:
    """Remove the files of older generations; one that cannot be removed is only untidy."""
    named = {shard["file"] for shard in manifest["shards"]} | {manifest["edits"]["file"]}
    named |= {file["file"] for file in manifest["index"]["files"]}
    named |= {manifest["head"]["file"]} if "head" in manifest else set()
    for file in path.iterdir():
        if file.name.startswith(OWN) and file.name not in named:
            with contextlib.suppress(OSError):
                file.unlink()
