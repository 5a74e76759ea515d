"""Indexes by what they are for: ``"auto"``, kNN-LM's own, and a faster one of the same size."""

import logging
import math
from typing import NamedTuple

from residua.index.nearest import faiss_installed

log: logging.Logger = logging.getLogger(__name__)

EXACT_UP_TO = 60_000_000  # elements of keys: one exact query then reads 240 MB
SCAN_UP_TO = 1_000_000  # rows whose codes are scanned whole
FEW = 10_000  # rows that text is searched for exactly; 39 for each of the 256 codewords of a byte
_LISTS, _BYTES, _TRAIN = 4096, 64, 1_000_000  # kNN-LM's index over 103 M keys


class Recipe(NamedTuple):
    """An index by name and its parameters, both as ``make_index`` takes them."""

    name: str
    params: dict[str, int]


def auto(n: int, dim: int) -> Recipe:
    """Exact while that is quick; then a scan of 4-bit codes of pairs of dimensions; then the same codes in inverted
    lists, of which a sixteenth are read. Exact whenever FAISS is not installed.
    """
    if n * dim <= EXACT_UP_TO or dim < 2 or not faiss_installed():
        return Recipe("exact", {})
    codes = f"PQ{math.ceil(dim / 2)}x4fs"
    pad = f"Pad{dim + 1}," if dim % 2 else ""
    if n <= SCAN_UP_TO:
        return Recipe(pad + codes, {})
    lists = 4 * math.isqrt(n)
    return Recipe(f"{pad}IVF{lists},{codes}", {"nprobe": lists // 16})


def knnlm(n: int, dim: int) -> Recipe:
    """The paper's index (Khandelwal et al. 2020): 4096 lists, 32 of them probed, 64 bytes a key, learned from a
    million keys, and 1024 neighbours re-scored. Smaller memories get a list for each 64 keys at most, and learn from a
    quarter of themselves; the log says so.
    """
    if n < FEW:
        return _few("knnlm", n)
    lists = min(_LISTS, 2 ** int(math.log2(n / 64)))
    codes, train = _divisor(dim, _BYTES), min(_TRAIN, max(n // 4, 64 * lists))
    made, paper = (lists, codes, train), (_LISTS, _BYTES, _TRAIN)
    if made != paper:
        said = "%d lists, %d bytes a key and %d keys to learn from, where the paper has %d, %d and %d"
        log.info("index 'knnlm' over %d keys of %d dimensions: " + said, n, dim, *made, *paper)
    return Recipe(f"IVF{lists},PQ{codes}", {"nprobe": 32, "rerank": 1024, "train_on": train})


def knnlm_fast(n: int, dim: int) -> Recipe:
    """4-bit codes in about √n lists, 8 of them probed, and 128 neighbours re-scored. On a million keys of a small GPT-2
    it answers six times faster than ``"knnlm"`` for k = 1024, ten times for k = 256; perplexity rises by 0.2 and 0.4 %.
    """
    if n < FEW:
        return _few("knnlm-fast", n)
    lists = 2 ** round(math.log2(n) / 2)
    codes = _divisor(dim, min(dim // 2, max(2 * _BYTES, dim // 4)))
    return Recipe(f"IVF{lists},PQ{codes}x4fs", {"nprobe": 8, "rerank": 128})


def _few(name: str, n: int) -> Recipe:
    log.info("index %r over %d keys is exact: there are fewer than %d", name, n, FEW)
    return Recipe("exact", {})


def _divisor(dim: int, most: int) -> int:
    """The largest number of equal parts, at most `most`, that `dim` dimensions fall into."""
    return max(parts for parts in range(1, max(most, 1) + 1) if dim % parts == 0)


RECIPES = {"auto": auto, "knnlm": knnlm, "knnlm-fast": knnlm_fast}
# What to take where too few of the true neighbours are found, until all are.
MORE_EXACT = {"knnlm-fast": "knnlm", "knnlm": "exact", "auto": "exact"}
