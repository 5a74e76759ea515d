"""Files of text: which ones a path stands for, what they are called, and what is in them."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from residua.caution import warn
from residua.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # begins as UTF-16's does
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_HEAD = 8000  # bytes, in which git too looks for a NUL
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # no text in any 8-bit encoding has these
_SHOWN = 3  # names of files that were left out


class File(NamedTuple):
    """One file and what it is called: its path inside the root, with ``/`` between the parts."""

    name: str
    path: Path
    walked: bool  # found in a folder, not given itself

    @property
    def size(self) -> int:
        """Bytes of it; 0 for one that `read` leaves out as binary (as far as its beginning tells)."""
        if self.walked:
            with open(self.path, "rb") as stream:
                head = stream.read(_HEAD)
            if b"\0" in head and not _bom(head):
                return 0
        return self.path.stat().st_size


class _UndecodableError(InputError):
    def __init__(self, message: str, binary: bool):
        super().__init__(message)
        self.binary = binary


def find(
    paths: Iterable[str | os.PathLike[str]],
    *,
    glob: str = "**/*",
    hidden: bool = False,
    root: str | os.PathLike[str] | None = None,
) -> list[File]:
    """The files that `paths` stand for, in their order; of a folder those that match `glob`, sorted by path.

    Of a folder, what is hidden (``.git``) and what git ignores by the ``.gitignore`` files in it, and above it up to
    the repository's own folder, is left out unless `hidden`. A file's name is its path inside `root`; by default that
    is the folder given, or a file's own; of several paths, the folder that holds them all.
    """
    given = [Path(os.path.abspath(path)) for path in paths]
    for path in given:
        if not path.exists():
            raise InputError(f"cannot read {path}: there is no such file or folder")
    base = Path(os.path.abspath(root or os.path.commonpath([p if p.is_dir() else p.parent for p in given])))
    found = []
    for path in given:
        files = _in_folder(path, glob, hidden) if path.is_dir() else [path]
        if not path.is_relative_to(base):
            raise InputError(f"{path} is not inside root={str(root)!r}; expected the folder that holds all the files")
        found += [File(file.relative_to(base).as_posix(), file, file != path) for file in files]
    return found


def read(files: Iterable[File], errors: str, left_out: list[str]) -> Iterator[tuple[str, str]]:
    """(name, text) of each file: UTF-8, or as its byte-order mark says, which is no part of the text.

    Binary files of a folder are left out, and their names noted in `left_out`. Others that cannot be read are an
    ``InputError``, unless `errors` is ``"skip"``, or ``"replace"`` (undecodable bytes become U+FFFD).
    """
    for file in files:
        try:
            text = _read(file.path, "strict" if file.walked else errors)
        except InputError as error:
            undecodable = isinstance(error, _UndecodableError)
            if errors == "skip" or (undecodable and error.binary and file.walked):
                left_out.append(file.name)
                continue
            if errors == "strict" or not undecodable:
                raise
            text = _read(file.path, "replace")
        yield file.name, text


def report_left_out(names: list[str], number: int) -> None:
    """Warn of files, out of `number`, that were left out."""
    if names:
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        why = f"they are binary, or cannot be read as UTF-8 ({shown})"
        warn(f"{len(names)} of {number} files were left out: {why}; glob= chooses files")


def _read(path: Path, errors: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    bom = _bom(data)
    encoding = _BOMS.get(bom, "utf-8")
    cure = "leave it out: errors='skip', or glob= where it is in a folder"
    if errors != "replace" and not bom and b"\0" in data:
        what = f"{path} holds NUL bytes: it is binary, or UTF-16 without a byte-order mark"
        raise _UndecodableError(f"{what}; {cure}", binary=True)
    try:
        return data[len(bom) :].decode(encoding, "replace" if errors == "replace" else "strict")
    except UnicodeDecodeError as error:
        where = f"byte {error.object[error.start]:#04x} at position {error.start + len(bom)}"
        what = f"{path} is not {encoding.upper()}: {where}; pass errors='replace', or {cure}"
        raise _UndecodableError(what, binary=encoding != "utf-8" or bool(_CONTROL.search(data))) from error


def _bom(data: bytes) -> bytes:
    return next((bom for bom in _BOMS if data.startswith(bom)), b"")


def _in_folder(folder: Path, glob: str, hidden: bool) -> list[Path]:
    files = sorted(file for file in folder.glob(glob) if file.is_file())
    if not files:
        raise InputError(f"no file in {folder} matches glob={glob!r}")
    if hidden:
        return files
    tree = _Tree(folder)
    kept = [file for file in files if not tree.leaves_out(file)]
    if not kept:
        which = f"{len(files)} files in {folder} match glob={glob!r}, all of them hidden or ignored by git"
        raise InputError(f"{which}; pass hidden=True to read them")
    return kept


class _Tree:
    """What of a folder is hidden, or ignored by git."""

    def __init__(self, folder: Path):
        self.known = {folder: False}
        self.specs: dict[Path, GitIgnoreSpec | None] = {}
        # A folder that is itself ignored was asked for all the same, and then only its own rules count.
        above = next((one for one in (folder, *folder.parents) if (one / ".git").exists()), folder)
        self.top = above
        chain = [one for one in (folder, *folder.parents) if one.is_relative_to(above) and one != above]
        if any(self._ignored(one, "/") for one in chain):
            self.top = folder

    def leaves_out(self, path: Path, slash: str = "") -> bool:
        """Whether this path, or a folder of it, is left out; `slash` is ``"/"`` for a folder."""
        if path not in self.known:
            above = self.leaves_out(path.parent, "/")
            self.known[path] = above or path.name.startswith(".") or self._ignored(path, slash)
        return self.known[path]

    def _ignored(self, path: Path, slash: str) -> bool:
        for folder in path.parents:  # the nearest file with a rule for it decides
            if (spec := self._spec(folder)) is not None:
                decided = spec.check_file(path.relative_to(folder).as_posix() + slash).include
                if decided is not None:
                    return decided
            if folder == self.top:
                break
        return False

    def _spec(self, folder: Path) -> GitIgnoreSpec | None:
        if folder not in self.specs:
            file = folder / ".gitignore"
            self.specs[folder] = _rules(_read(file, "replace")) if file.is_file() else None
        return self.specs[folder]


def _rules(text: str) -> GitIgnoreSpec:
    try:
        from pathspec import GitIgnoreSpec
    except ImportError as error:
        how = 'pip install "residua[lm]", or pass hidden=True'
        raise MissingDependencyError(f"reading .gitignore needs pathspec: {how}") from error
    patterns = []
    for line in text.splitlines():
        with suppress(ValueError, re.error):  # git passes over what is no pattern
            patterns += GitIgnoreSpec.from_lines([line]).patterns
    return GitIgnoreSpec(patterns)
