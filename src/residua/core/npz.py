"""The arrays of an ``.npz`` file, of which nothing is unpacked before its header was found to fit its size."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from tokenize import TokenError  # by NumPy, of a header that is no Python

import numpy as np

from residua.errors import MemoryFileError

SMALL = 2**28  # bytes that any file may unpack to
TIMES = 200  # a larger one, so many times its own size: arrays of nothing but zeros pack into less


def read_npz(path: str | os.PathLike[str], expected: str) -> dict[str, np.ndarray]:
    """The arrays by name; a ``MemoryFileError`` says what was `expected` where there is no such file, or no whole one,
    or one that would unpack to far more than itself."""
    try:
        with open(path, "rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise MemoryFileError(f"{path} holds one array; expected {expected}")
            with zipfile.ZipFile(file) as members:
                infos = members.infolist()
                _check_sizes(infos, os.fstat(file.fileno()).st_size)
                found = {info.filename.removesuffix(".npy"): _array(members, info) for info in infos}
    except FileNotFoundError as error:
        raise MemoryFileError(f"there is no file {path}; expected {expected}") from error
    except MemoryFileError:
        raise
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise MemoryFileError(f"{path} is not a whole .npz file ({error}); encode again") from error
    except (zlib.error, TokenError, SyntaxError, TypeError, RecursionError, OverflowError, MemoryError) as error:
        raise MemoryFileError(f"{path} is not a whole .npz file ({error!r}); encode again") from error
    if len(found) < len(infos):
        raise MemoryFileError(f"{path} holds several arrays of one name; encode again")
    return found


def _check_sizes(infos: list[zipfile.ZipInfo], size: int) -> None:
    total = sum(info.file_size for info in infos)
    if total > max(SMALL, TIMES * size) or sum(info.compress_size for info in infos) > size:
        raise ValueError(f"{size:,} bytes would become {total:,}")


def _array(members: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array, if its header says what its bytes can hold."""
    with members.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in header:
            raise ValueError(f"{info.filename} has format {version}")
        shape, order, dtype = header[version](stream)
        if dtype.hasobject or dtype.kind not in "biufU" or any(length < 0 for length in shape):
            raise ValueError(f"{info.filename} holds {dtype} of shape {shape}; expected numbers or text")
        count = math.prod(shape)
        if stream.tell() + count * dtype.itemsize != info.file_size or len(shape) > 32:
            raise ValueError(f"{info.filename} has {info.file_size:,} bytes, which is no {dtype} of shape {shape}")
        content = bytearray(stream.read())
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"{info.filename} is torn")
    flat = np.frombuffer(content, dtype, count) if count and dtype.itemsize else np.empty(count, dtype)
    if dtype.kind == "U" and len(content) and int(np.frombuffer(content, dtype.str[0] + "u4").max()) > 0x10FFFF:
        raise ValueError(f"{info.filename} holds what is no text")
    if dtype.kind == "b" and len(content) and max(content) > 1:
        raise ValueError(f"{info.filename} holds other bytes than 0 and 1")
    return flat.reshape(shape, order="F" if order else "C")
