"""Which index: by name, by size, or back from a folder."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from residua.errors import MemoryFileError, ParameterError
from residua.index.engines import faiss_installed
from residua.index.exact import Exact
from residua.index.factory import Factory
from residua.index.index import Index

EXACT_UP_TO = 60_000_000  # elements of keys: one exact query then reads 240 MB
SCAN_UP_TO = 1_000_000  # rows whose codes are scanned whole


def choose(n: int, dim: int) -> tuple[str, dict]:
    """What ``index="auto"`` means for `n` keys of `dim` dimensions: a name and its search parameters.

    Exact while that is quick; then a scan of 4-bit codes of pairs of dimensions; then the same codes in inverted
    lists, of which a sixteenth are read. Exact whenever FAISS is not installed.

    Examples
    --------
    >>> choose(50_000, 64)
    ('exact', {})
    """
    if n * dim <= EXACT_UP_TO or dim < 2 or not faiss_installed():
        return "exact", {}
    codes = f"PQ{math.ceil(dim / 2)}x4fs"
    pad = f"Pad{dim + 1}," if dim % 2 else ""
    if n <= SCAN_UP_TO:
        return pad + codes, {}
    lists = 4 * math.isqrt(n)
    return f"{pad}IVF{lists},{codes}", {"nprobe": lists // 16}


def make_index(
    index: str,
    *,
    n: int,
    dim: int,
    device: torch.device | str,
    params: dict | None = None,
    overfetch: int = 4,
) -> Index:
    """An empty index, to be built over `n` keys of `dim` dimensions.

    Parameters
    ----------
    index : str
        ``"exact"``, ``"auto"`` (decided here, by `n` and `dim`, and kept as the memory grows), or any FAISS
        factory string.
    n, dim : int
    device : torch.device
        Where keys, queries and answers live.
    params : dict, optional
        Search parameters by FAISS's names, such as ``{"nprobe": 64}``.
    overfetch : int, default 4
        Candidates fetched per neighbour by an approximate index before exact distances order them.

    Raises
    ------
    ParameterError
        An unknown index or search parameter.
    MissingDependencyError
        A factory string where FAISS is not installed.

    Examples
    --------
    >>> make_index("auto", n=1000, dim=64, device="cpu").name
    'exact'
    """
    if not isinstance(index, str):
        raise ParameterError(f'index={index!r}; expected "exact", "auto" or a FAISS factory string')
    if index == "auto":
        index, suggested = choose(n, dim)
        params = suggested | (params or {}) if index != "exact" else None
    if index == "exact":
        if params:
            raise ParameterError(f'index="exact" has no search parameters; {params} were given')
        return Exact(dim, device)
    return Factory(index, dim, device, params, overfetch)


def load_index(data: dict, folder: Path, keys: Tensor, forgotten: Tensor, *, device: torch.device | str) -> Index:
    """The index that ``to_json`` described and ``save`` wrote into `folder`, ready to search.

    Parameters
    ----------
    data : dict
        What ``to_json`` returned.
    folder : Path
    keys : float32 Tensor of shape (n, d)
        All rows, forgotten ones included.
    forgotten : int64 Tensor
        Row numbers that must not be returned.
    device : torch.device

    Raises
    ------
    MemoryFileError
        A missing or torn file, or one of another memory.
    """
    try:
        if data["name"] == "exact":
            index: Index = Exact(keys.shape[1], device)
            index.build(keys)
        else:
            index = Factory.load(data, folder, len(keys), device)
    except (KeyError, TypeError) as error:
        raise MemoryFileError(f"{folder} describes its index in a way this version does not know: {error!r}") from error
    index.forget(forgotten)
    return index
