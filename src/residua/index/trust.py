"""Whose index files are opened: those that this user's residua wrote.

A search library reads a file of its own without doubting it: one made by hand takes the process down, or worse. A
checksum does not help, since whoever makes the file makes its checksum, too. So an index file is signed when it is
written (HMAC-SHA256 with a secret of this user's, over the file and what the engine is made of), and only one that is
signed so is opened; any other index is built anew from the keys.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from residua.caution import warn
from residua.errors import MemoryFileError, ParameterError

SECRET = "RESIDUA_SECRET"
LEAST = 16  # characters
CURE = "if you trust whoever wrote this folder, load it with trust=True (--trust)"
_OF_THIS_PROCESS: bytes = secrets.token_bytes(32)

# The largest numbers in a factory string, by the letters before them, that a folder may ask for: what is built from it
# is then no larger than a small multiple of its rows. Bits are of one code: 2^bits vectors are learned.
_MOST = {"IVF": 2**20, "Residual": 2**20, "HNSW": 512, "NSG": 512, "RQ": 256, "LSQ": 256, "IMI2x": 10, "x": 12}
_FEW_LISTS = 4096  # that any number of rows may be asked to be put into; of many rows, 16 times their root
_MOST_OF = {"train_on": 2**40, "k_factor": 128}
_MOST_OF_OTHERS = 2**16  # nprobe, efSearch, …


def secret() -> bytes:
    """This user's secret: the environment variable ``RESIDUA_SECRET``, which a fleet of machines can share (at least 16
    characters; ``ParameterError``), or a file of mode 0600 in the user's data folder, made when it is first asked for.

    Where there can be no such file (a home that is read-only, or none), the secret lasts as long as this process, and
    what it signs is known to no other.
    """
    if given := os.environ.get(SECRET):
        if len(given) < LEAST:
            raise ParameterError(f"{SECRET} has {len(given)} characters; expected at least {LEAST}, and random ones")
        return given.encode(errors="surrogateescape")
    with contextlib.suppress(OSError, RuntimeError):  # there is no home, or it cannot be written
        return _kept(_file())
    return _OF_THIS_PROCESS


def _file() -> Path:
    own = ("LOCALAPPDATA", "AppData/Local") if os.name == "nt" else ("XDG_DATA_HOME", ".local/share")
    return Path(os.environ.get(own[0]) or Path.home() / own[1]) / "residua" / "secret"


def _kept(file: Path) -> bytes:
    """The secret in `file`, which is made where there is none."""
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(secrets.token_hex(32).encode())
                stream.flush()
                os.fsync(stream.fileno())
            with contextlib.suppress(FileExistsError):  # of two processes that begin, one makes it
                os.link(part, file)
        finally:
            part.unlink(missing_ok=True)
    with open(file, "rb") as stream:
        about, found = os.fstat(stream.fileno()), stream.read(4096)
    if os.name != "nt" and (about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o077):
        warn(
            f"{file} is not this user's alone, so the secret in it signs nothing: chmod 600 it, or remove it, and "
            f"another is made; or set {SECRET}"
        )
        raise OSError(f"{file} is not this user's alone")
    if len(found) < LEAST:
        raise OSError(f"{file} holds no secret")
    return found


def sign(file: Path, about: Mapping[str, Any]) -> str:
    """The signature of an index file that was just written, hexadecimal; `about` is its description in JSON types."""
    made_of = json.dumps({name: about[name] for name in ("engine", "dim", "params")}, sort_keys=True).encode()
    with open(file, "rb") as stream:
        content = hashlib.file_digest(stream, "sha256").digest()
    return hmac.new(secret(), b"residua index 1\0" + content + made_of, "sha256").hexdigest()


def is_ours(file: Path, about: Mapping[str, Any]) -> bool:
    """Whether this user's residua wrote the index `file`, and this description of it."""
    if not file.is_file():
        raise MemoryFileError(f"{file} is missing, torn or no file; restore it from a copy")
    given = about.get("mac")
    return isinstance(given, str) and given.isascii() and hmac.compare_digest(given, sign(file, about))


def check_factory(factory: str, dim: int, rows: int | None = None) -> None:
    """``MemoryFileError`` for a factory string of a folder's that asks for more than keys of `dim` dimensions can use,
    or, to be built now, for more lists than `rows` rows can fill in time."""
    for letters, number in re.findall(r"(IMI2x|[A-Za-z]*)(\d+)", factory):
        most = _MOST.get(letters, max(1024, 4 * dim))
        if rows is not None and letters in ("IVF", "Residual"):
            most = min(most, max(_FEW_LISTS, int(16 * rows**0.5)))
        if len(number) > 9 or int(number) > most:
            raise MemoryFileError(
                f"this folder describes an index {factory[:200]!r}, and {letters}{number[:20]} is more than its rows "
                f"can use (at most {most} here); {CURE}"
            )


def check_wanted(index: str, params: Mapping[str, Any], dim: int) -> None:
    """``check_params`` of an index by its name or factory string, as it is to be made when the memory is rebuilt."""
    check_params({"factory": index} | dict(params), dim)


def check_params(params: Mapping[str, Any], dim: int, rows: int | None = None) -> None:
    """``MemoryFileError`` for parameters of an index, as a folder gives them, that name no search parameter, or are
    larger than any that helps."""
    for name, value in params.items():
        if name == "factory" and isinstance(value, str):
            check_factory(value, dim, rows)
        elif name == "origin" and isinstance(value, list):
            if len(value) != dim or not all(type(one) in (int, float) and abs(one) < 1e38 for one in value):
                raise MemoryFileError(f"this folder describes an index whose origin is not {dim} finite numbers")
        elif isinstance(value, (int, float)) and not abs(value) <= _MOST_OF.get(name, _MOST_OF_OTHERS):
            most = _MOST_OF.get(name, _MOST_OF_OTHERS)
            raise MemoryFileError(f"this folder describes an index with {name}={value!r}; at most {most}; {CURE}")
