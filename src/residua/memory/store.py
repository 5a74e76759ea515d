"""A memory on disk: immutable files, and a manifest that is written last.

``manifest.json`` names every file that counts, with its size and checksum, and is replaced by rename: a save that is
killed or runs out of disk leaves the old manifest and every file it names. Rows are in shards, each as it was new or
later; what was done to them is the log, in files of edits, which is replayed. A save writes new rows and edits alone;
so that there are few files, it takes the last ones into the new one where they are no larger.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from residua import described
from residua.caution import warn
from residua.core import ChunkedTensor, Head, Names, Rows
from residua.errors import EngineError, MemoryFileError, ParameterError, StaleMemoryError
from residua.folder import FORMAT, MANIFEST, folder_of, present, read_manifest, reader_in
from residua.index import GroundTruth, Index, RemoteIndex, check_wanted, given_index, is_remote, load_index
from residua.memory import journal, validate
from residua.memory import manifest as files
from residua.memory.history import Changes, Event
from residua.memory.keys_left import TAIL, KeysLeft
from residua.memory.lock import locked
from residua.memory.manifest import get_tensors, map_tensors, put_tensors, small_crc32, verify, writing
from residua.memory.members import Members
from residua.memory.run_length import RunLengthArray
from residua.memory.schema import Schema, written
from residua.memory.storage import Storage, make_storage
from residua.memory.table import Column, Table, alike
from residua.strict import loads

_NOT_SAVED = ("active",)  # the log says it
_SHARD = 131_072  # rows
_SMALL = 1024  # rows or edits in a file that is written anew with each save, so that a small memory has few files
_SHOWN = 5  # edits of others

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
    keys_left: KeysLeft | None = None  # where keys are not kept
    members: Members | None = None  # where rows were merged


@dataclass(frozen=True)
class Saved:
    """What a memory knows of the folder it was last saved to or loaded from, and what it was then."""

    path: Path
    manifest: dict[str, Any]
    table: Table  # labels, ids, and which rows were remembered
    names: Names
    n_outputs: int
    moved: Tensor | None = None  # where the next save writes all rows: which of that table's each row was (-1: none)

    @classmethod
    def of(cls, path: Path, manifest: dict[str, Any], table: Table, contents: Contents) -> Self:
        """Of what was just read or written."""
        return cls(
            path, manifest, table.only("label", "id", "active"), contents.names or Names(), contents.schema.n_outputs
        )

    @property
    def generation(self) -> str:
        return self.manifest["generation"]

    def origin(self, n: int) -> Tensor:
        """Which row of the table each of n rows was; -1: none."""
        known = torch.arange(len(self.table), device=self.table.device) if self.moved is None else self.moved
        return torch.cat([known[:n], known.new_full((max(n - len(known), 0),), -1)])

    def anew(self, n: int, kept: Tensor | slice = slice(None)) -> Self:
        """After an edit of a memory of n rows, of which only those `kept` are left, so that what is in the files is not
        what a save has to write any more."""
        return replace(self, moved=self.origin(n)[kept])


def put_rows(path: Path, name: str, rows: Mapping[str, Column]) -> dict[str, Any]:
    """Write table columns of some rows as one shard, which never changes; what a manifest says of it.

    Not by rename: what a killed call leaves counts for nothing until a manifest names it, and may be written over.
    Integers (int64, one number per row) go to disk as runs where that is smaller.
    """
    tensors, count = {}, len(rows["label"])
    for column, values in rows.items():
        if column in _NOT_SAVED:
            continue
        values = values[:] if isinstance(values, ChunkedTensor) else values
        if isinstance(values, RunLengthArray) or (values.dtype == torch.int64 and values.ndim == 1):
            runs = values if isinstance(values, RunLengthArray) else RunLengthArray(values.cpu())
            if 24 * runs.count < 8 * count:
                tensors |= {f"{column}#{part}": tensor for part, tensor in runs.to_tensors().items()}
                continue
            values = runs[:]
        tensors[column] = written(values) if column == "label" else values
    about = put_tensors(path, name, tensors) | {"rows": count}
    return about | {"small_crc32": small_crc32(path / name, tensors)}


def get_rows(
    path: Path, shard: dict[str, Any], held: files.Held | None = None, mmap: bool = False
) -> dict[str, Column]:
    """The columns that ``put_rows`` wrote, verified; `shard` is what it returned. With `mmap`, as ``map_tensors``."""
    read = map_tensors if mmap else get_tensors
    tensors: Mapping[str, Rows] = read(path, shard, held)
    count = len(tensors["label"])
    columns: dict[str, Column] = {name: tensor for name, tensor in tensors.items() if "#" not in name}
    for name in [name.removesuffix("#start") for name in tensors if name.endswith("#start")]:
        if name in columns:
            raise MemoryFileError(f"{path / shard['file']} holds column {name!r} twice")
        parts = {part: tensors[f"{name}#{part}"][:] for part in ("start", "first", "step")}
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
    events: Sequence[Event],
    saved: Saved | None,
    known: Known,
    reader: dict[str, Any] | None = None,
) -> Saved:
    """Write a memory, and `reader`, into folder `path`: only what changed, if that still holds what was `saved`.

    Files of that which are missing or torn are written again. What a reader has ``"learned"``, tensors by name, is in a
    file of its own. Without a `reader`, the one that is there stays, if the
    folder is one of those `known`. ``StaleMemoryError`` where it is, and holds a generation that is not this memory's.
    """
    path = folder_of(path)
    with locked(path), writing(path):
        there = files.check_folder(path, "save")
        now = None if there is None else there["generation"]
        check_current(path, known, now, events)
        same = saved is not None and saved.moved is None and (saved.path, saved.generation) == (path, now)
        old = saved.manifest if saved is not None and same else {}
        if reader is None and there is not None and now in known.get(path, ()):
            reader = reader_in(path, there)
            learned = (reader or {}).get("learned")
            if learned and (_drops_rows(saved) or not _is_whole(path, learned)):
                reader = None  # it learned from rows that are dropped for good, or is torn
        with files.new_generation(path) as generation:
            known[path] = {*known.get(path, ()), generation}  # an interrupt may come when it is in place already
            shards, start = _kept(path, old.get("shards", []), "rows", len(table))
            if start < len(table) or not shards:
                for part in _parts(table, start):
                    rows = {name: table[name][part] for name in table.names}
                    number = f"-{part.start:010}" if part.start > start else ""
                    shards.append(put_rows(path, f"rows-{generation}{number}.safetensors", rows))
            edits = old.get("edits", [])
            edits, start = _kept(path, edits if isinstance(edits, list) else [], "events", len(events))
            if start < len(events):
                tensors = journal.to_tensors(events[start:])
                about = put_tensors(path, f"edits-{generation}.safetensors", tensors)
                edits.append(about | {"events": len(events) - start})
            keys = table.rows("key") if contents.keys_kept else None
            reader = _put_learned(path, generation, reader)
            manifest = write_manifest(path, generation, contents, index, shards, edits, old, reader, keys)
        known[path] = {generation}
    return Saved.of(path, manifest, table, contents)


def _drops_rows(saved: Saved | None) -> bool:
    """Whether this save leaves out rows that are in the files."""
    return saved is not None and saved.moved is not None and int((saved.moved >= 0).sum()) < len(saved.table)


def _put_learned(path: Path, generation: str, reader: dict[str, Any] | None) -> dict[str, Any] | None:
    """Write what a reader has learned, where that is not in a file already; the reader as a manifest says it."""
    learned = (reader or {}).get("learned")
    if reader is None or learned is None or isinstance(learned.get("file"), str):
        return reader
    return reader | {"learned": put_tensors(path, f"learned-{generation}.safetensors", learned)}


def mapped_anew(path: Path, written: Sequence[dict[str, Any]], table: Table) -> Table:
    """`table`, which was just `written` as shards into folder `path`: where it was some of the rows of older files, it
    is now all rows of the new ones, and what these older files held besides is on no disk any more."""
    columns = {name: table[name] for name in table.names}
    names = [name for name, column in columns.items() if isinstance(column, ChunkedTensor) and not column.is_whole]
    shards = [map_tensors(path, shard) for shard in written] if names else []
    for name in names:
        found = [column for shard in shards if isinstance(column := shard[name], ChunkedTensor)]
        table = table.with_column(name, ChunkedTensor([chunk for column in found for chunk in column.chunks]))
    return table


def _kept(path: Path, written: list[dict[str, Any]], what: str, total: int) -> tuple[list[dict[str, Any]], int]:
    """Which of the files `written` stay, and how many rows or events of `total` these hold: not what follows one that
    is missing or torn, and, where another has to be written, none at the end that is no larger, or small."""
    whole = [about for about in written]
    for at, about in enumerate(written):
        if not _is_whole(path, about):
            whole = written[:at]
            break
    done = sum(about[what] for about in whole)
    while whole and done < total and whole[-1][what] <= max(total - done, _SMALL):
        done -= whole.pop()[what]
    return whole, done


def _is_whole(path: Path, about: dict[str, Any]) -> bool:
    try:
        return bool(present(path, about))
    except MemoryFileError:
        return False


def check_current(path: Path, known: Known, now: str | None, events: Sequence[Event]) -> None:
    """Refuse to save over what somebody else saved since."""
    if now is not None and path in known and now not in known[path]:
        raise StaleMemoryError(
            f"{path} holds generation {now}, and this memory is of an earlier one ({', '.join(known[path])}): somebody "
            f"else saved there since{_others(path, events)}, and their changes would be lost. Take them in by "
            "memory.refresh() and save again, or save into another folder"
        )


def _others(path: Path, events: Sequence[Event]) -> str:
    """What the log of folder `path` has beside these events, in words."""
    try:
        found = _log(path, read_manifest(path))
    except MemoryFileError:  # it is damaged, or saved at this moment: that they did is enough
        return ""
    common = next((n for n, (a, b) in enumerate(zip(found, events)) if str(a) != str(b)), min(len(found), len(events)))
    done = [str(event) for event in found[common:]]
    more = f"{len(done) - _SHOWN} more edits, then " if len(done) > _SHOWN else ""
    return f" [{more}{'; '.join(done[-_SHOWN:])}]" if done else ""


def _log(path: Path, manifest: dict[str, Any], held: files.Held | None = None) -> list[Event]:
    return [event for about in manifest["edits"] for event in journal.from_tensors(get_tensors(path, about, held))]


def _parts(table: Table, start: int) -> Iterator[slice]:
    """The rows from `start` on, in shards: one, or several where they lie in files and may not fit in RAM at once."""
    rows = max(len(table) - start, 1)
    step = _SHARD if any(isinstance(table[name], ChunkedTensor) for name in table.names) else rows
    return (slice(first, first + step) for first in range(start, start + rows, step))


def write_manifest(
    path: Path,
    generation: str,
    contents: Contents,
    index: Index,
    shards: list[dict[str, Any]],
    edits: list[dict[str, Any]] | None = None,
    old: dict[str, Any] | None = None,
    reader: dict[str, Any] | None = None,
    keys: Rows | None = None,
) -> dict[str, Any]:
    """Make the shards in folder `path`, which hold all rows in order, a memory: write all else, the manifest last.

    `edits` are the files of the log; without, all rows were there from the first. Files of the `old` manifest that say
    the same are kept, and so are those that it names, as an earlier generation. Before the manifest is in place nothing
    is removed. An index on a server is brought in step; `keys` are then those of all rows. The manifest is returned.
    """
    old, rows = old or {}, sum(shard["rows"] for shard in shards)
    manifest = {
        "format": FORMAT,
        "generation": generation,
        "schema": contents.schema.to_json(),
        "next_id": contents.next_id,
        "rows": rows,
        "keys_kept": contents.keys_kept,
        "median_nn_distance": contents.median_nn_distance,
        "about": contents.about or {},
        **({} if contents.summary is None else {"summary": contents.summary}),
        **({} if reader is None else {"reader": reader}),
        "shards": shards,
        "edits": edits,
    }
    if edits is None:
        tensors = journal.to_tensors([Event.of("create", Changes(0, rows))])
        manifest["edits"] = [put_tensors(path, f"edits-{generation}.safetensors", tensors) | {"events": 1}]
    if contents.storage.head is not None:
        same = "head" in old and _is_whole(path, old["head"])
        manifest["head"] = old["head"] if same else put_head(path, generation, contents.storage.head)
    if contents.names:
        said = json.dumps(contents.names.to_json()).encode()
        manifest["names"] = _put_small(path, f"names-{generation}.json", said, old.get("names"))
    if contents.keys_left is not None:
        data = safetensors_bytes({name: part.cpu() for name, part in contents.keys_left.truth.to_tensors().items()})
        manifest["truth"] = _put_small(path, f"truth-{generation}.safetensors", data, old.get("truth"))
    before = files.generation_of(path) if isinstance(index, RemoteIndex) else None
    if isinstance(index, RemoteIndex):
        index.hold(generation, before, keys)
    if contents.members is not None:
        manifest["members"] = _put_members(path, generation, contents.members, old.get("members", {}))
    manifest["index"] = _put_index(path, generation, contents, index, old.get("index"))
    manifest = files.commit(path, manifest, files.kept(path, old) if old else ())
    if isinstance(index, RemoteIndex):
        index.held(generation, keys)
    return manifest


def _put_small(path: Path, name: str, data: bytes, old: dict[str, Any] | None) -> dict[str, Any]:
    """A file that is written whole, and stays where it is the same."""
    if old and (old["bytes"], old["crc32"]) == (len(data), zlib.crc32(data)) and _is_whole(path, old):
        return old
    (path / name).write_bytes(data)
    return files.described(path / name)


def _put_members(path: Path, generation: str, members: Members, old: dict[str, Any]) -> dict[str, Any]:
    """The rows that were merged, in shards that stay, and which row of the memory stands for each."""
    shards, start = _kept(path, old.get("shards", []), "rows", len(members.table))
    if start < len(members.table):
        for part in _parts(members.table, start):
            rows = {name: members.table[name][part] for name in members.table.names}
            shards.append(put_rows(path, f"members-{generation}-{part.start:010}.safetensors", rows))
    entries = safetensors_bytes({"rows": members.rows, "owners": members.owners})
    return {
        "shards": shards,
        "entries": _put_small(path, f"members-{generation}.safetensors", entries, old.get("entries")),
    }


def _get_members(path: Path, about: dict[str, Any], schema: Schema, rows: int, held: files.Held, deep: bool) -> Members:
    """The inverse, of a memory of so many rows. The large columns stay in their files, verified if `deep`."""
    table = Table("cpu")
    for shard in about["shards"]:
        if deep:
            verify(path, shard, held)
        columns = get_rows(path, shard, held, mmap=True)
        validate.members(schema, columns, shard["rows"])
        table = table.appended(columns | {"label": columns["label"][:].to(schema.label_dtype)})
    entries = get_tensors(path, about["entries"], held)
    validate.entries(entries, len(table), rows)
    return Members(table, entries["rows"], entries["owners"])


def _put_index(
    path: Path, generation: str, contents: Contents, index: Index, old: dict[str, Any] | None
) -> dict[str, Any]:
    wanted, made, covered = contents.index_wanted, index.to_json(), index.n
    # An index of the caller's own, or one on a server, whose address is in no file, as it describes itself.
    if not isinstance(wanted["index"], str) or isinstance(index, RemoteIndex):
        params = made["params"] | ({} if index.exact else {"rerank": made["rerank"]})
        wanted = {"index": made["engine"], "params": params, "overfetch": made["overfetch"]}
    old = old if old and old["files"] and all(_is_whole(path, file) for file in old["files"]) else None
    had, left = old.get("rows", 0) if old else 0, contents.keys_left
    # What the file lacks is added when it is loaded, from the keys, or from those that are left.
    if old and had <= covered <= had + had // TAIL and (left is None or left.start <= had):
        described, made, covered = old["files"], made | {"file": old["about"]["file"]}, had
    else:
        described = [files.described(path / name) for name in index.save(path, f"index-{generation}")]
        made, old = index.to_json(), None
    about = {"wanted": wanted, "about": made, "files": described, "rows": covered}
    return about if left is None else about | {"tail": _put_tail(path, generation, left, covered, old)}


def _put_tail(
    path: Path, generation: str, left: KeysLeft, covered: int, old: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Write the keys of the rows from `covered` on; those that the index `old` has already, stay."""
    written, start = _kept(path, (old or {}).get("tail", []), "rows", left.rows - covered)
    if start < left.rows - covered:
        keys = left.keys(covered + start)
        about = put_tensors(path, f"keys-{generation}.safetensors", {"key": keys})
        written.append(about | {"rows": len(keys)})
    return written


def add_summary(path: Path, summary: dict[str, Any]) -> None:
    """Say in the manifest of folder `path` what the memory there holds, where it was written without a memory."""
    with writing(path):
        files.commit(path, read_manifest(path) | {"summary": summary})


def load(
    path: Path,
    device: torch.device,
    mmap: bool = False,
    trust: bool = False,
    reindex: bool = False,
    given: str | Index | None = None,
) -> tuple[Contents, Index, Table, list[Event], Saved]:
    """What folder `path` holds, verified: the old state or the new one where somebody saves at this moment.

    With `mmap`, the large columns stay in their files, unread; `trust` is ``load_index``'s. To `reindex`: the index is
    built from the keys, whatever its files hold. `given` is the index in place of the folder's, or where that is."""
    path = folder_of(path)
    for _ in range(files.ATTEMPTS):
        manifest = read_manifest(path)
        if reindex:
            manifest["index"] |= {"files": [], "about": manifest["index"]["about"] | {"file": None}}
        try:
            with files.held(path, manifest) as held:
                return _load(path, manifest, device, held, mmap, trust, given)
        except (MemoryFileError, FileNotFoundError, EngineError):
            if files.generation_of(path) in (manifest["generation"], None):
                raise
    raise files.busy(path, "loaded")


def _load(
    path: Path,
    manifest: dict[str, Any],
    device: torch.device,
    held: files.Held,
    mmap: bool,
    trust: bool,
    given: str | Index | None,
) -> tuple[Contents, Index, Table, list[Event], Saved]:
    try:
        table, shards, schema = Table(device), [], None
        keys_kept = manifest.get("keys_kept", True)
        for shard in manifest["shards"]:
            columns = get_rows(path, shard, held, mmap)
            label = columns["label"][:]
            count = len(label)
            columns["label"] = label.int() if label.dtype == torch.int64 else label
            if schema is None:
                schema = Schema.from_json(
                    manifest["schema"] if manifest["format"] > 2 else old_schema(manifest, columns)
                )
                validate.schema(schema)
                validate.room(manifest["rows"], manifest["shards"], columns)
            validate.columns(schema, columns, shard.get("rows", count), keys_kept, deep=not mmap)
            columns |= {"label": columns["label"][:].to(schema.label_dtype), "active": alike(True, count)}
            table = table.appended(columns, room=manifest["rows"])
            shards.append(shard | {"rows": count})
        if len(table) != manifest["rows"]:
            raise MemoryFileError(f"{path} holds {len(table)} rows and its manifest says {manifest['rows']}")
        if schema is None:
            raise MemoryFileError(f"{path / MANIFEST} names no rows")
        validate.ids(table["id"], manifest["next_id"])
        events = _get_events(path, manifest, table, schema, held)
        table = journal.replay(events, table)
        for file in manifest["index"]["files"]:
            verify(path, file)
        wanted = manifest["index"]["wanted"]
        if not trust:
            check_wanted(wanted["index"], wanted["params"] or {}, schema.dim)
        left = None if keys_kept else _get_keys_left(path, manifest, table, schema, held)
        if given is None:
            index = _get_index(path, manifest, table, left, trust)
        else:
            index, wanted = _get_given(path, manifest, table, left, given)
        head = get_head(path, manifest["head"], held) if "head" in manifest else None
        validate.head(schema, head)
        members = None
        if "members" in manifest:
            members = _get_members(path, manifest["members"], schema, len(table), held, deep=not mmap)
        names = loads(verify(path, manifest["names"], held).read_bytes()) if "names" in manifest else {}
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
            reader=_get_reader(path, manifest, held),
            keys_left=left,
            members=members,
        )
        saved = Saved.of(path, manifest | {"shards": shards}, table, contents)
        return contents, index, table, events, saved
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError) as error:
        if given is not None and isinstance(error, ParameterError):  # what the caller gave
            raise
        raise MemoryFileError(f"{path / MANIFEST} is not a manifest this version understands: {error!r}") from error


def _get_reader(path: Path, manifest: dict[str, Any], held: files.Held) -> dict[str, Any] | None:
    """The reader that was saved with the memory, and what it has learned."""
    reader = reader_in(path, manifest)
    if reader is None or "learned" not in reader:
        return reader
    return reader | {"learned": get_tensors(path, reader["learned"], held)}


def _get_events(path: Path, manifest: dict[str, Any], table: Table, schema: Schema, held: files.Held) -> list[Event]:
    """The log; of formats up to 3, which had none, what was changed in all."""
    n = len(table)
    if manifest["format"] > 3:
        events = _log(path, manifest, held)
    else:
        events = [Event.of("create", Changes(0, n))]
        if "edits" in manifest:
            edits = get_tensors(path, manifest["edits"], held)
            rows, after = edits["edited"], edits["label"]
            after = after.int() if after.dtype == torch.int64 else after
            validate.row_numbers(rows, n, "edited")
            before = written(table.dense("label")[rows.to(table.device)].cpu())
            changes = Changes(n, n, edits["forgotten"], relabelled=rows, before=before, after=after)
            events.append(Event.of("earlier", changes))
    validate.changes(schema, [event.changes for event in events if event.changes is not None], n)
    return events


def _get_keys_left(path: Path, manifest: dict[str, Any], table: Table, schema: Schema, held: files.Held) -> KeysLeft:
    """What is left of keys that were discarded; of earlier versions nothing."""
    about = manifest["index"]
    left = KeysLeft.none(about.get("rows", len(table)), schema.dim, table.device)
    for shard in about.get("tail", []):
        tensors = get_tensors(path, shard, held)
        validate.keys(schema, tensors, shard["rows"])
        left = left.appended(tensors["key"])
    if left.rows != len(table):
        raise MemoryFileError(f"{path / MANIFEST} has an index and keys of {left.rows} rows and holds {len(table)}")
    if "truth" not in manifest:
        return left
    return replace(left, truth=get_truth(path, manifest["truth"], schema, len(table), held).to(table.device))


def get_truth(
    path: Path, about: dict[str, Any], schema: Schema, rows: int, held: files.Held | None = None
) -> GroundTruth:
    """What recall is measured by, verified; of so many rows."""
    tensors = get_tensors(path, about, held)
    validate.truth(schema, tensors, rows)
    return GroundTruth(**tensors)


def _get_index(path: Path, manifest: dict[str, Any], table: Table, left: KeysLeft | None, trust: bool) -> Index:
    """The index, with the rows that were added since it was written."""
    about, forgotten = manifest["index"], (~table.dense("active")).nonzero()[:, 0]
    if is_remote(about["about"]):
        engine = about["about"]["engine"]
        raise MemoryFileError(
            f"the index of {path} lies on a server ({engine}), and no folder says where: give its address, such as "
            f'rs.Memory.load(..., index="{engine}://host:port/name"), or another index, such as index="exact"'
        )
    n = about.get("rows", len(table)) if about["files"] else len(table)
    if n > len(table):
        raise MemoryFileError(f"{path / MANIFEST} has an index of {n} rows and holds {len(table)}")
    first = None if left is not None else table.first(n).rows("key")
    index = load_index(about["about"], path, first, forgotten[forgotten < n], device=table.device, n=n, trust=trust)
    if left is not None and n < len(table):
        index.add(left.keys(n))
    elif left is None:
        for start in range(n, len(table), _SHARD):
            index.add(table.rows("key")[start : start + _SHARD])
    if n < len(table):
        index.forget(forgotten[forgotten >= n])
    return index


def _get_given(
    path: Path, manifest: dict[str, Any], table: Table, left: KeysLeft | None, given: str | Index
) -> tuple[Index, dict[str, Any]]:
    """The index that the caller gives, and how to make another."""
    about, generation = manifest["index"]["about"], manifest["generation"]
    forgotten, keys = (~table.dense("active")).nonzero()[:, 0], table.rows("key") if left is None else None
    about = about if "engine" in about else {}  # of version 0.1
    shape: dict[str, Any] = {"n": len(table), "dim": manifest["schema"]["dim"], "device": table.device}
    index, wanted, same = given_index(given, about, generation, keys, forgotten, **shape)
    if same and index.n < len(table):
        gone = f"the server has no collection of {path} as it is now"
        if keys is None or files.generation_of(path) != generation:
            raise MemoryFileError(f"{gone}, and there are no keys to make it from: restore the server's data")
        warn(f"{gone}: another is made from the keys, which goes again unless the memory is saved")
        index.build(keys)
        index.forget(forgotten)
    return index, wanted


def old_schema(manifest: dict[str, Any], columns: Mapping[str, Column]) -> dict[str, Any]:
    """The schema of formats 1 and 2, which kept keys and targets as they were given."""
    extra = {name[7:]: column for name, column in columns.items() if name.startswith("column.")}
    return manifest | {
        "key_dtype": manifest.get("key_dtype", "float32"),
        "key_centre": None,
        "target_centre": None,
        "columns": {name: [str(column.dtype)[6:], column.shape[1:]] for name, column in extra.items()},
    }
