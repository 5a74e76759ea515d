"""The kernels of ``residua-native``, where that package is installed; all that they do is done without them, too.

The environment variable ``RESIDUA_NATIVE=0`` leaves them out.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
from ctypes import c_double, c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

ABI = 2
LEVELS = ("plain C++", "AVX2", "AVX-512 with VNNI")
DIMENSIONS = 2**15  # of keys; a dot product of their codes still fits int32
_KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
log = logging.getLogger(__name__)


@cache
def kernels() -> Kernels | None:
    """The native kernels, or None; found once."""
    if os.environ.get("RESIDUA_NATIVE") == "0":
        log.debug("native kernels are left out: RESIDUA_NATIVE=0")
        return None
    try:
        file = importlib.import_module("residua_native").LIBRARY
    except ImportError:
        log.debug("no native kernels: residua-native is not installed")
        return None
    try:
        library = ctypes.CDLL(str(file))
        abi = library.residua_abi()
    except (OSError, AttributeError) as error:
        log.debug("no native kernels: %s cannot be used (%s)", file, error)
        return None
    if abi != ABI:
        log.debug("no native kernels: %s has ABI %d, this residua wants %d", file, abi, ABI)
        return None
    made = Kernels(library)
    log.debug("native kernels of %s: %s", file, LEVELS[made.level])
    return made


class _Reader(ctypes.Structure):
    """As in kernels.cpp."""

    _fields_ = (
        ("labels", c_void_p),
        ("said", c_void_p),
        ("L", c_int64),
        ("k", c_int64),
        ("temperature", c_float),
        ("sigma", c_float),
        ("gaussian", c_int32),
        ("in_logits", c_int32),
        ("left", c_float),
        ("given", c_float),
        ("floor", c_float),
        ("label_bytes", c_int32),
    )


class Kernels:
    """The shared library's functions over tensors and arrays on the CPU, contiguous and of the dtypes named."""

    library: Any  # as ctypes loads it

    def __init__(self, library: Any):
        signatures = {
            "level": (c_int, ()),
            "limit": (c_int, (c_int,)),
            "codes": (c_void_p, (c_void_p, c_int64, c_int64)),
            "codes_free": (None, (c_void_p,)),
            "codes_bytes": (c_int64, (c_void_p,)),
            "nearest": (c_double, (*[c_void_p] * 3, *[c_int64] * 4, *[c_void_p] * 2)),
            "rerank": (c_int, (c_void_p, c_int, c_int64, c_void_p, c_int64, c_void_p, c_int64, c_int64, c_void_p)),
            "read": (c_int, (*[c_void_p] * 4, c_int64, c_void_p)),
            "answer": (c_int, (*[c_void_p] * 6, c_int64, *[c_void_p] * 2)),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(library, f"residua_{name}")
            function.restype, function.argtypes = result, arguments
        self.library = library

    @property
    def level(self) -> int:
        """Which of ``LEVELS`` is used."""
        return self.library.residua_level()

    def limit(self, level: int) -> int:
        """Use this of ``LEVELS``, or the best there is below it; which that is. Not while another thread searches."""
        return self.library.residua_limit(level)

    def codes(self, keys: Tensor) -> Codes | None:
        """Codes of `keys`, float32 (n, d), finite; None where memory is short."""
        made = self.library.residua_codes(keys.data_ptr(), *keys.shape)
        return Codes(self.library, made) if made else None

    def rerank(self, keys: Tensor, queries: np.ndarray, rows: np.ndarray, squared: np.ndarray, depth: int) -> bool:
        """The first `depth` of the squared distances float32 (q, c), of `rows` int64 (q, c) that are all found, become
        those to `keys` (n, d), float32, float16 or bfloat16; the others are moved by the mean error. Whether they did.
        """
        kind, (q, count) = _KINDS[keys.dtype], rows.shape
        where = keys.data_ptr(), kind, keys.shape[1], queries.ctypes.data, q, rows.ctypes.data
        return not self.library.residua_rerank(*where, count, depth, squared.ctypes.data)


class Codes:
    """8-bit codes of keys, which tell of most keys that they are not among the nearest. Any thread may search."""

    pointer: int  # to what the library made

    def __init__(self, library: Any, pointer: int):
        self._library: Any = library
        self.pointer = pointer

    def __del__(self) -> None:
        self._library.residua_codes_free(self.pointer)

    @property
    def nbytes(self) -> int:
        return self._library.residua_codes_bytes(self.pointer)

    def nearest(self, queries: Tensor, keys: Tensor, k: int) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Where among the `keys` that were coded, float32 (n, d), the `k` nearest of each of `queries`, float32 (q, d),
        may be: all that can be among them by distances that are sums in float32, in any order.

        Places int64 (q, room), -1 behind; how many there are of each query, int64 (q,), perhaps more than there is room
        for; and the share of all keys that were measured. None where memory is short.
        """
        room = min(len(keys), k + 8 + k // 16)
        places, counts = np.empty((len(queries), room), np.int64), np.empty(len(queries), np.int64)
        measured = self._library.residua_nearest(
            self.pointer,
            keys.data_ptr(),
            queries.data_ptr(),
            len(queries),
            k,
            torch.get_num_threads(),
            room,
            places.ctypes.data,
            counts.ctypes.data,
        )
        return None if measured < 0 else (places, counts, measured)


class Reading:
    """What residuals or labels of one memory's neighbours make of a model's logits, in its gauge.

    `labels` int8, int16 or int32 (n,), and for residuals what the model `said`, float32 (n, L). Scores are ``left *
    start + given * heard``, with start softmax(f / T) or, `in_logits`, f / T; no probability is below `floor` times the
    base's, which of labels has to be at most `left`.
    """

    k: int  # how many neighbours it reads

    def __init__(
        self,
        kernels: Kernels,
        labels: Tensor,
        said: Tensor | None,
        outputs: int,
        k: int,
        temperature: float,
        sigma: float,
        gaussian: bool,
        in_logits: bool,
        left: float,
        given: float,
        floor: float,
    ):
        self._held: tuple[Tensor, Tensor | None] = (labels, said)  # what the structure points to
        table = None if said is None else said.data_ptr()
        how = temperature, sigma, gaussian, in_logits, left, given, floor, labels.element_size()
        self._reader: _Reader = _Reader(labels.data_ptr(), table, outputs, k, *how)
        self._at: int = ctypes.addressof(self._reader)
        self._library: Any = kernels.library
        self.k = k

    def __call__(self, rows: np.ndarray, squared: np.ndarray, logits: Tensor) -> Tensor | None:
        """Logits float32 (q, L) from neighbours, rows int64 and squared distances float32 (q, k) in any order, and the
        model's logits (q, L); None where these are not all finite."""
        out = torch.empty_like(logits)
        near = rows.ctypes.data, squared.ctypes.data
        failed = self._library.residua_read(self._at, *near, logits.data_ptr(), len(logits), out.data_ptr())
        return None if failed else out

    def by_codes(
        self, codes: Codes, keys: Tensor, names: Tensor | None, queries: Tensor, centre: Tensor | None, logits: Tensor
    ) -> Tensor | None:
        """The same from queries float32 (q, d) less `centre`, float64 (d,), searched among the `keys` that were coded,
        whose rows are `names`, or their places. None also where queries are not finite, or it takes more than codes and
        float64 to know by float32 distances which keys are nearest."""
        out = torch.empty_like(logits)
        failed = self._library.residua_answer(
            self._at,
            codes.pointer,
            keys.data_ptr(),
            None if names is None else names.data_ptr(),
            queries.data_ptr(),
            None if centre is None else centre.data_ptr(),
            len(queries),
            logits.data_ptr(),
            out.data_ptr(),
        )
        return None if failed else out
