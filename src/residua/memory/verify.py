"""Whether a memory's folder is whole; if not, what survives, and the way back to an earlier generation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from residua.errors import MemoryFileError
from residua.folder import MANIFEST, earlier_manifest, folder_of, named_files, read_manifest
from residua.memory import manifest as files
from residua.memory.lock import locked
from residua.printable import count


@dataclass(frozen=True)
class Verified:
    """What every byte of a memory's folder says.

    Attributes
    ----------
    files : int
        What was read, the manifest too.
    damaged : tuple of str
        Files that are missing, torn or not as they were written.
    rows, whole : int and tuple of (int, int)
        How many rows the manifest speaks of (0: it is damaged itself); row numbers first ... last - 1 whose file is
        whole.
    earlier : str or None
        The newest earlier generation that is whole (or is but for its index), where anything but the index is damaged.
    index_alone : bool
        Whether nothing is damaged but the index, which can be built anew from the keys.
    repaired : bool
        Whether the folder is that earlier generation now, or has its index anew.

    Examples
    --------
    >>> print(Verified(4, (), 900, ((0, 900),)))
    4 files are whole: 900 rows
    """

    files: int
    damaged: tuple[str, ...]
    rows: int
    whole: tuple[tuple[int, int], ...]
    earlier: str | None = None
    index_alone: bool = False
    repaired: bool = False

    def __str__(self) -> str:
        if not self.damaged:
            return f"{count(self.files, 'file')} {'is' if self.files == 1 else 'are'} whole: {count(self.rows, 'row')}"
        said = f"damaged: {', '.join(self.damaged)}"
        if self.rows:
            said += f"; {sum(last - first for first, last in self.whole):,} of {count(self.rows, 'row')} are whole"
        if self.index_alone and self.repaired:
            return f"{said}; the index was built anew from the keys, and nothing is lost"
        if self.index_alone:
            return f"{said}; the index can be built anew from the keys (repair)"
        if self.repaired:
            return f"{said}; the folder is now its earlier generation {self.earlier}"
        back = f"the earlier generation {self.earlier} is whole (repair)" if self.earlier else "none earlier is whole"
        return f"{said}; {back}"


def verify(path: Path, reindex: Callable[[Path], None] | None = None) -> Verified:
    """See ``Memory.verify``: with `reindex`, which builds a folder's index anew, it is repaired."""
    path = folder_of(path)
    with nullcontext() if reindex is None or not path.is_dir() else locked(path):
        for _ in range(files.ATTEMPTS):
            generation = files.generation_of(path)
            found, back = _found(path)
            if not found.damaged or files.generation_of(path) == generation:
                break  # else others saved, and may have removed what is missing
        else:
            raise files.busy(path, "verified")
        if reindex is None or not found.damaged:
            return found
        if back is not None:
            with files.writing(path):
                files.commit(path, back)
        elif not found.index_alone:
            raise MemoryFileError(
                f"{path} is damaged ({', '.join(found.damaged)}), and no earlier generation is whole: restore it from "
                "a copy, or save there a memory that holds it"
            )
        if found.index_alone or (back is not None and _damaged(path, back)):
            reindex(path)
        return replace(found, repaired=True)


def _found(path: Path) -> tuple[Verified, dict[str, Any] | None]:
    """What a folder's files say, and the manifest of the newest earlier generation, if it is needed, that is whole, or
    is but for its index."""
    earlier, damaged, whole = _earlier(path), list[str](), list[tuple[int, int]]()
    try:
        manifest = read_manifest(path)
    except MemoryFileError:
        if not earlier:
            raise
        manifest, damaged = None, [MANIFEST]
    checked, back, lost = 1, None, damaged
    if manifest is not None:
        damaged, checked = _damaged(path, manifest), 1 + len(named_files(manifest))
        whole, lost = _whole(manifest, damaged), _lost(manifest, damaged)
    if lost:
        now = manifest and manifest["generation"]
        others = [one for one in earlier if one["generation"] != now]
        back = next((one for one in others if not _lost(one, _damaged(path, one))), None)
    generation = None if back is None else back["generation"]
    rows = manifest["rows"] if manifest is not None else 0
    return Verified(checked, tuple(damaged), rows, tuple(whole), generation, bool(damaged) and not lost), back


def _lost(manifest: dict[str, Any], damaged: list[str]) -> list[str]:
    """Which of the `damaged` files cannot be made again: an index can, from the keys."""
    made = {about["file"] for about in manifest["index"]["files"]} if manifest.get("keys_kept", True) else set[str]()
    return [name for name in damaged if name not in made]


def _earlier(path: Path) -> list[dict[str, Any]]:
    """The earlier manifests that can be read, the newest first."""
    found = []
    for file in path.glob(earlier_manifest("*")):
        try:
            found.append(read_manifest(path, file.name))
        except MemoryFileError:
            continue
    return sorted(found, key=lambda one: sum(one["generation"] in other.get("earlier", ()) for other in found))


def _damaged(path: Path, manifest: dict[str, Any]) -> list[str]:
    damaged = []
    for about in named_files(manifest):
        try:
            files.verify(path, about)
        except (MemoryFileError, OSError):
            damaged.append(about["file"])
    return damaged


def _whole(manifest: dict[str, Any], damaged: list[str]) -> list[tuple[int, int]]:
    found, first = list[tuple[int, int]](), 0
    for shard in manifest["shards"]:
        last = first + shard["rows"]
        if shard["file"] not in damaged:
            joined = found.pop()[0] if found and found[-1][1] == first else first
            found.append((joined, last))
        first = last
    return found
