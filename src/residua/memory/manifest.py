"""Writing a memory folder: every file that counts is on the disk before the manifest names it."""

import contextlib
import os
import shutil
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from residua.core import ChunkedTensor, Rows
from residua.core.atomic import flush, write_json
from residua.errors import MemoryFileError
from residua.folder import (
    BESIDE,
    LOCK,
    MANIFEST,
    OWN,
    checksum,
    earlier_manifest,
    named_files,
    present,
    read_manifest,
)

EARLIER = 2  # generations before the one that counts
ATTEMPTS = 100  # to read what others save at the same time
MAPPED = frozenset({"key", "logits"})  # columns that may stay in their file
_HEADER = 10**8  # safetensors itself reads no longer one

Held: TypeAlias = dict[str, Path]  # open files by their names, as paths that stay when the names go


def put_tensors(path: Path, name: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Write tensors to a safetensors file of folder `path`; what a manifest says of it."""
    file = path / name
    file.touch()
    mode = file.stat().st_mode  # by the umask; safetensors' own is private
    save_file({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, file)
    file.chmod(mode)
    return described(file)


@contextlib.contextmanager
def held(path: Path, manifest: dict[str, Any]) -> Iterator[Held]:
    """All files that `manifest` names, opened at once: whoever saves meanwhile cannot take them away."""
    with contextlib.ExitStack() as stack:
        found: Held = {}
        for about in named_files(manifest):
            try:
                stream = stack.enter_context(open(present(path, about), "rb"))
            except FileNotFoundError as error:
                raise MemoryFileError(f"{path / about['file']} is missing") from error
            open_file = Path(f"/dev/fd/{stream.fileno()}")
            found |= {about["file"]: open_file} if open_file.exists() else {}
        yield found


def get_tensors(path: Path, about: dict[str, Any], held: Held | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a file that a manifest describes, verified."""
    file = verify(path, about, held)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise MemoryFileError(f"{path / about['file']} is not a safetensors file: {error}") from error


def map_tensors(path: Path, about: dict[str, Any], held: Held | None = None) -> dict[str, Rows]:
    """The same, but the large ones (``MAPPED``) stay in the file, as ``ChunkedTensor``, and what they hold is not
    verified: only the file's size, its header and all else."""
    file, found = (held or {}).get(about["file"]) or present(path, about), dict[str, Rows]()
    if "small_crc32" not in about:  # of an older version
        verify(path, about, held)
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no dict)
                tensor = opened.get_tensor(name)
                found[name] = ChunkedTensor([tensor]) if name in MAPPED else tensor.clone()
    except SafetensorError as error:
        raise MemoryFileError(f"{file} is not a safetensors file: {error}") from error
    except RuntimeError as error:  # of torch, which maps it
        raise MemoryFileError(f"{file} cannot be mapped: {error}") from error
    if small_crc32(file, found) != about.get("small_crc32", small_crc32(file, found)):
        raise MemoryFileError(f"{file} is corrupted: the checksum of its small columns is not the manifest's")
    return found


def small_crc32(file: Path, tensors: Mapping[str, Rows]) -> int:
    """Checksum of a safetensors file's header and of all its tensors but the large ones."""
    with open(file, "rb") as stream:
        length = stream.read(8)
        value = zlib.crc32(stream.read(min(int.from_bytes(length, "little"), _HEADER)), zlib.crc32(length))
    for name in sorted(tensors.keys() - MAPPED):
        value = zlib.crc32(tensors[name][:].cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(), value)
    return value


def described(file: Path) -> dict[str, Any]:
    """What a manifest says of a written file: name, size and checksum. The file is on the disk when this returns."""
    flush(file)
    return {"file": file.name, "bytes": file.stat().st_size, "crc32": crc32(file)}


def verify(path: Path, about: dict[str, Any], held: Held | None = None) -> Path:
    """Where to read a file that a manifest describes, if it has the size and checksum it should have."""
    file = (held or {}).get(about["file"]) or present(path, about)
    if crc32(file) != about["crc32"]:
        raise MemoryFileError(f"{path / about['file']} is corrupted: its checksum is not the manifest's")
    return file


def crc32(file: Path) -> int:
    """Checksum of a file's content."""
    value = 0
    with open(file, "rb") as stream:
        while block := stream.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


@contextlib.contextmanager
def writing(path: Path, safe: str = "") -> Iterator[None]:
    """What fails in here, for want of space or permission, is a ``MemoryFileError`` that says what is `safe`."""
    try:
        yield
    except MemoryFileError as error:
        raise type(error)(f"{error}{safe}") from error.__cause__
    except (OSError, SafetensorError) as error:
        raise MemoryFileError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}{safe}") from error


def commit(path: Path, manifest: dict[str, Any], earlier: Sequence[str] = ()) -> dict[str, Any]:
    """Make `manifest` what folder `path` holds, by rename, then remove the files that count no more, to these `earlier`
    generations neither; it is returned."""
    manifest = manifest | {"earlier": list(earlier)}
    write_json(path / MANIFEST, manifest | {"crc32": checksum(manifest)})
    sweep(path, manifest)
    return manifest


def kept(path: Path, now: dict[str, Any]) -> list[str]:
    """The generations that stay when the one that folder `path` holds `now` is the last: ``verify`` may go back to
    them."""
    link(path / MANIFEST, path / earlier_manifest(now["generation"]))
    return [now["generation"], *now.get("earlier", ())][:EARLIER]


def link(file: Path, name: Path) -> None:
    """Another name of a file that never changes; a copy where the disk knows no links."""
    with contextlib.suppress(FileExistsError):
        try:
            os.link(file, name)
        except FileExistsError:
            raise
        except OSError:
            shutil.copyfile(file, name)
            flush(name)


def check_folder(path: Path, verb: str, *others: str) -> dict[str, Any] | None:
    """The manifest of folder `path`, if it holds a memory; one that holds anything else (but files named like `others`)
    is refused."""
    if (path / MANIFEST).exists():
        return read_manifest(path)  # another program's, or another version's, is not overwritten
    # Our own: a first save was killed.
    ours = (LOCK, *BESIDE)
    if not all(file.name in ours or file.name.startswith((*OWN, *others)) for file in path.iterdir()):
        raise MemoryFileError(f"{path} holds files that are not a memory's; {verb} into an empty or new folder")
    return None


def generation_of(path: Path) -> str | None:
    """The generation that folder `path` holds; None when it holds no whole manifest."""
    try:
        return read_manifest(path)["generation"]
    except (MemoryFileError, KeyError):
        return None


def busy(path: Path, what: str) -> MemoryFileError:
    """The error where every attempt to read a folder was too late."""
    return MemoryFileError(f"{path} was saved {ATTEMPTS} times while it was {what}; do it while fewer save there")


@contextlib.contextmanager
def new_generation(path: Path) -> Iterator[str]:
    """What one save's files have in their names. If it fails they are removed, unless its manifest is in place already:
    an interrupt may come just after."""
    generation = uuid.uuid4().hex[:12]
    try:
        yield generation
    except BaseException:
        if generation_of(path) != generation:
            now = generation_of(path)
            remove([*path.glob(f"*-{generation}*"), *([path / earlier_manifest(now)] if now else [])])
        raise


def sweep(path: Path, manifest: dict[str, Any]) -> None:
    """Remove the files that neither `manifest` names nor one of the earlier ones that are kept."""
    named = {about["file"] for about in named_files(manifest)}
    for generation in manifest.get("earlier", ()):
        name = earlier_manifest(generation)
        with contextlib.suppress(MemoryFileError):
            named |= {name, *(about["file"] for about in named_files(read_manifest(path, name)))}
    remove(file for file in path.iterdir() if file.name.startswith(OWN) and file.name not in named)


def remove(files: Iterable[Path]) -> None:
    """Remove files; one that cannot be removed is only untidy."""
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
