"""The folder of a memory: it is saved there, loaded from there, and catches up with what others saved there."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

import torch

from residua.errors import StorageError
from residua.folder import folder_of, read_manifest
from residua.hub import HubOptions, Shared, fetched
from residua.index import Index, RemoteIndex
from residua.memory import arguments, manifest, store
from residua.memory.edits import Editable
from residua.memory.history import Event
from residua.memory.lock import locked
from residua.memory.purge import Purge, purge
from residua.memory.refresh import refreshed
from residua.memory.table import Table
from residua.memory.verify import Verified, verify

if TYPE_CHECKING:  # the whole of which this is a part
    from residua.memory.memory import Memory


class Savable(Editable, Shared):
    """A memory's contents in a folder: all that it knows of that are the folder's state as it was last seen, and which
    states of which folders are its own."""

    keys_kept: bool
    device: torch.device
    _saved: store.Saved | None
    _known: store.Known
    _trust: bool  # whoever wrote the folder
    _given: str | Index | None  # in place of the folder's index, or where that is

    @abstractmethod
    def _begin(self, contents: store.Contents, table: Table, saved: store.Saved | None) -> None:
        """Be a memory of these contents."""

    @abstractmethod
    def _to_contents(self) -> store.Contents:
        """The inverse of ``_begin``."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the memory into a folder: safetensors shards, and a manifest last, by rename.

        Saving again into the same folder writes only what changed. Whatever fails (``MemoryFileError``), a folder that
        held a memory still holds that memory; one that holds something else is left alone. When it returns, not even a
        power cut undoes it.

        A folder that this memory was loaded from, or saved to, is not saved over once somebody else has saved there
        (``StaleMemoryError``). The reader that is saved in such a folder stays; in any other, it goes.
        """
        self._write(path)

    def _write(
        self,
        path: str | os.PathLike[str],
        reader: dict[str, Any] | None = None,
        beside: Mapping[str, Savable] | None = None,
    ) -> None:
        """``save``, with a reader, and the memories `beside` it, in folders of these names: they first, for the reader
        is of use with them alone."""
        with self._locks.edits, self._turn():
            now = self._draft()
            with locked(Path(path)):  # nobody takes the new files away before they are mapped
                if beside:
                    manifest.check_folder(folder_of(path), "save")
                for name, other in (beside or {}).items():
                    other.save(Path(path) / name)
                self._saved = now._saved = now._put(path, now._events, reader)
                written, held = now._saved.manifest, now._members
                table = store.mapped_anew(now._saved.path, written["shards"], now._table)
                if held is not None:
                    own = store.mapped_anew(now._saved.path, written["members"]["shards"], held.table)
                    now._members = replace(held, table=own)
            if table is not now._table or (now._members and now._members.table) is not (held and held.table):
                now._table = table
                now._refresh()
                now.version = self.version  # it holds what it held
                self._become(now)

    def _beside(self, name: str) -> Self:
        """The memory in a folder of that name beside this one, loaded as this one was."""
        if self._saved is None:
            raise StorageError(f"this memory is of no folder, and {name!r} would lie beside it")
        live = self._live is not None
        return type(self).load(self._saved.path / name, self.device, trust=self._trust, live=live)

    def _put(
        self, path: str | os.PathLike[str], events: list[Event], reader: dict[str, Any] | None = None
    ) -> store.Saved:
        contents, known = self._to_contents(), self._known
        return store.save(Path(path), contents, self.index, self._table, events, self._saved, known, reader)

    def refresh(self) -> dict[int, int]:
        """Take in what others saved into the folder that this memory is of; what was edited here stays, on top of it.

        It goes by ids: rows that were added here, ids forgotten, labels and names changed since the last load or save
        are so afterwards, too, and can then be saved; an id that others forgot stays forgotten. The log calls all of it
        one edit. A memory that was rebuilt here, or whose keys were discarded, is rebuilt, or loses its keys, again.

        Returns
        -------
        dict of int to int
            Ids that this memory had given to rows by itself, and others have used since: what they are now.

        Raises
        ------
        IdError
            Rows were added here under ids of the caller's that others have used since; nothing is changed then.
        StorageError
            What was done here and by others cannot both be: new classes were added on both sides; this memory was
            rebuilt, or rows added to it, and the keys for that were discarded. Or the memory is of no folder.

        Examples
        --------
        >>> import numpy as np, residua as rs, tempfile
        >>> folder, row = tempfile.mkdtemp(), rs.Encoded(np.ones((1, 3)), np.zeros((1, 2)), [0])
        >>> rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1])).save(folder)
        >>> mine, theirs = rs.Memory.load(folder), rs.Memory.load(folder)
        >>> ids = theirs.add(row), mine.add(row)
        >>> theirs.save(folder)
        >>> mine.refresh()
        {3: 4}
        >>> mine.save(folder)
        >>> mine.ids.tolist()
        [0, 1, 2, 3, 4]
        """
        if self._home is not None or self._locks.is_editing:
            raise StorageError("an edit is under way: refresh the memory before or after it")
        with self._locks.edits:
            return self._catch_up()

    def _catch_up(self) -> dict[int, int]:
        now = self._draft()
        if now._saved is not None and manifest.generation_of(now._saved.path) == now._saved.generation:
            return {}
        fresh, renumbered = refreshed(cast("Memory", now))
        fresh._known, fresh.version = self._known | fresh._known, self.version + 1
        self._become(fresh)
        return renumbered

    def _become(self, other: Savable) -> None:
        """Hold what another memory holds, at once."""
        held = self._contents(other, other._events)
        self._locks.alone(lambda: vars(self).update(held))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._live is None:
            yield
            return
        self._locks.require_no_reading()
        with locked(self._live):
            self._catch_up()
            yield

    def _durable(self, path: Path, draft: Any, events: list[Event]) -> dict[str, Any]:
        if draft.keys_kept != self.keys_kept:
            raise StorageError(
                "a live memory is saved before its recall without keys can be measured: load the folder "
                "(rs.Memory.load), discard them, and save"
            )
        return {"_saved": draft._put(path, events)}

    def purge(self, path: str | os.PathLike[str], *, note: str | None = None, progress: bool | None = None) -> Purge:
        """``rebuild``, ``save``, and prove that the folder holds nothing of a forgotten row any more.

        Pieces of the forgotten rows that no remembered row has are looked for at every byte of every file there; one
        that is found is a ``MemoryFileError`` that names the file (a copy that somebody else put there). What is a
        figure over many rows stays: the keys' centre, a tuned reader's parameters. Nobody saves there meanwhile.
        """
        return purge(cast("Memory", self), Path(path), note, progress)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        *,
        index: str | Index | None = None,
        mmap: bool = False,
        trust: bool = False,
        live: bool = False,
    ) -> Self:
        """Read a folder that ``save`` wrote; a ``MemoryFileError`` names a file that is missing, torn or corrupted.

        With `mmap` (on the CPU) keys, and logits that are stored in full, stay in their files and are read when a
        search needs them, so that a memory larger than RAM opens at once. Their files' sizes and headers are checked,
        all else is read and verified; what they hold is not. Edits are as for any memory; ``rebuild``, ``save`` and
        ``purge`` read them part by part, and need RAM for the index and for what it learns from.

        An index file is opened where it was written with this user's secret (a file of their own, or the environment
        variable ``RESIDUA_SECRET``), or where you `trust` whoever wrote the folder; else the index is built anew from
        the keys, and a ``UserWarning`` says so. ``MemoryFileError`` where they were discarded.

        Of an index on a server the folder does not say where that is: `index` is its address, as it was when the memory
        was made (``MemoryFileError`` without; ``EngineError`` where the server does not answer). Any other `index` is
        built from the keys, in place of the folder's. With `live`, the memory is as ``open`` gives it.
        """
        memory = cls._read(path, device, mmap, trust, index=index)[0]
        return memory._alive() if live else memory

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        *,
        index: str | Index | None = None,
        mmap: bool = False,
        trust: bool = False,
        **options: Unpack[HubOptions],
    ) -> Self:
        """``load`` of a folder, or of a repository of the Hugging Face Hub that ``push_to_hub`` wrote.

        Of a repository only the memory's own files are fetched, into the hub's cache; every one is checked as in
        ``load``. The memory is then of no folder: ``save`` it into one of yours.

        Parameters
        ----------
        repo_or_folder : str or path
            A folder that is here, else ``"user/name"``.
        device, index, mmap, trust
            As for ``load``.
        **options
            As of ``huggingface_hub``: ``revision`` (a branch, tag or commit), ``token``, ``cache_dir``,
            ``local_files_only``. A folder takes none of them.

        Raises
        ------
        MemoryFileError, ParameterError, MissingDependencyError

        Examples
        --------
        >>> import numpy as np, residua as rs, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1])).save_pretrained(folder)
        >>> rs.Memory.from_pretrained(folder).labels.tolist()
        [0, 1, 1]
        """
        with fetched(repo_or_folder, **options) as folder:
            memory = cls.load(folder, device, index=index, mmap=mmap, trust=trust)
        memory._leave_if_gone(folder)
        return memory

    def _leave_if_gone(self, folder: Path) -> None:
        """Be of no folder, where the one that this was loaded from was there for that alone."""
        if not folder.exists():
            self._saved, self._known = None, {}

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        *,
        index: str | Index | None = None,
        trust: bool = False,
    ) -> Self:
        """A *live* memory of a folder that ``save`` wrote: every edit is on the disk when the call returns.

        An edit (or ``editing`` block) waits until nobody else writes there, takes in what others saved, and is saved
        before it takes effect; where that fails (``MemoryFileError``), it does not. Any number of processes may so edit
        one folder, and read what they hold: what others do is seen at the next edit, or by ``refresh``.

        Copies are memories of their own, which are not live. `index` and `trust` are as for ``load``.

        Examples
        --------
        >>> import numpy as np, residua as rs, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1])).save(folder)
        >>> one, other = rs.Memory.open(folder), rs.Memory.open(folder)
        >>> one.forget([0]), other.forget([1])
        (1, 1)
        >>> other.ids.tolist(), rs.Memory.load(folder).ids.tolist()
        ([2], [2])
        """
        return cls.load(path, device, index=index, trust=trust, live=True)

    def _alive(self) -> Self:
        """This memory, live in the folder that it was loaded from."""
        assert self._saved is not None
        self._live = self._saved.path
        return self

    @classmethod
    def compact(cls, path: str | os.PathLike[str], *, index: str | Index | None = None, trust: bool = False) -> None:
        """Write a folder anew, of as few files as there can be: its rows, its log and its index in one each.

        The memory, its log and its saved reader are as before; earlier generations go. ``save`` keeps files few by
        itself, at most a few more than the logarithm of the number of saves. `index` and `trust` are as for ``load``.

        Examples
        --------
        >>> import numpy as np, residua as rs, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1])).save(folder)
        >>> rs.Memory.compact(folder)
        """
        read_manifest(Path(path))  # a folder without a memory is left alone
        with locked(Path(path)):
            memory = cls.load(path, index=index, trust=trust)
            memory._saved = None
            memory.save(path)

    @classmethod
    def verify(cls, path: str | os.PathLike[str], *, repair: bool = False) -> Verified:
        """Read every byte of a folder: what is damaged there, what survives, and which earlier generation is whole.

        With `repair`, an index that is damaged is built anew from the keys, and nothing is lost. Where anything else is
        damaged, the folder goes back to the newest earlier generation that is whole (the last two are kept): what was
        saved since is lost; ``MemoryFileError`` where none is whole.

        Examples
        --------
        >>> import numpy as np, os, residua as rs, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
        >>> memory.save(folder)
        >>> _ = memory.add(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
        >>> memory.save(folder)
        >>> rs.Memory.verify(folder).whole
        ((0, 6),)
        """
        return verify(Path(path), cls._reindex if repair else None)

    @classmethod
    def _reindex(cls, path: Path) -> None:
        """Build the index in a folder anew from the keys there."""
        cls._read(path, "cpu", mmap=True, trust=False, reindex=True)[0].save(path)

    @classmethod
    def _read(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device,
        mmap: bool,
        trust: bool,
        reindex: bool = False,
        index: str | Index | None = None,
    ) -> tuple[Self, dict[str, Any] | None]:
        """The memory in a folder, and the reader that was saved with it; all are as for ``store.load``."""
        memory = cls.__new__(cls)
        where = arguments.checked_device(device, mmap)
        contents, memory.index, table, events, saved = store.load(Path(path), where, mmap, trust, reindex, index)
        memory._begin(contents, table, saved)
        memory._events, memory._trust = events, trust
        memory._given = contents.index_wanted["index"] if isinstance(memory.index, RemoteIndex) else index
        memory._refresh()
        return memory, contents.reader
