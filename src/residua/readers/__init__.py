"""Readers: neighbours become weights, and weights a change of the base's prediction."""

from residua.readers.adaptive import AdaptiveLambda
from residua.readers.cache import ContinuousCache
from residua.readers.distilled import Distilled
from residua.readers.edited import Edited
from residua.readers.editing import edit
from residua.readers.gate import Shares
from residua.readers.gated import Gated
from residua.readers.knnlm import KNNLM
from residua.readers.neighbour import KERNELS, Kernel, NeighbourReader, register_kernel
from residua.readers.pooled import Pooled
from residua.readers.ranpac import RanPAC
from residua.readers.reader import READERS, Reader, from_pretrained, load, register_reader
from residua.readers.resmem import ResMem
from residua.readers.student import Student

__all__ = [
    "KERNELS",
    "KNNLM",
    "READERS",
    "AdaptiveLambda",
    "ContinuousCache",
    "Distilled",
    "Edited",
    "Gated",
    "Kernel",
    "NeighbourReader",
    "Pooled",
    "RanPAC",
    "Reader",
    "ResMem",
    "Shares",
    "Student",
    "edit",
    "from_pretrained",
    "load",
    "register_kernel",
    "register_reader",
]
