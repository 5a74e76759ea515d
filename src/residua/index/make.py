"""Which index: by name, by size, or back from a folder."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from residua.errors import MemoryFileError, ParameterError
from residua.index.exact import Exact
from residua.index.factory import Factory
from residua.index.index import Index
from residua.index.installed import faiss_installed
from residua.index.recall import check_recall
from residua.index.recipes import RECIPES, recipe

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
    overfetch: float = 4,
) -> Index:
    """An empty index, to be built over `n` keys of `dim` dimensions.

    Parameters
    ----------
    index : str
        ``"exact"``; ``"auto"``, ``"knnlm"`` or ``"knnlm-fast"`` (decided here, by `n` and `dim`, and kept as the
        memory grows); or any FAISS factory string.
    n, dim : int
    device : torch.device
        Where keys, queries and answers live.
    params : dict, optional
        Search parameters by FAISS's names, such as ``{"nprobe": 64}``, and ``"rerank"``: how many of a query's
        candidates get exact distances (True for all, which is the default of factory strings).
    overfetch : float, default 4
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
        names = ", ".join(f'"{name}"' for name in ("exact", "auto", *RECIPES))
        raise ParameterError(f"index={index!r}; expected {names} or a FAISS factory string")
    params, train_on, named = dict(params or {}), None, index
    if index == "auto":
        index, suggested = choose(n, dim)
        params = suggested | params
    elif index in RECIPES:
        chosen = recipe(index, n, dim)
        index, train_on = chosen.factory, chosen.train_on
        params = {**chosen.params, "rerank": chosen.rerank} | params
    if index == "exact":
        if params and named == "exact":
            raise ParameterError(f'index="exact" has no search parameters; {params} were given')
        return Exact(dim, device)
    return Factory(index, dim, device, params, overfetch, params.pop("rerank", True), train_on)


def load_index(
    data: dict,
    folder: Path,
    keys: Tensor | None,
    forgotten: Tensor,
    *,
    device: torch.device | str,
    n: int | None = None,
) -> Index:
    """The index that ``to_json`` described and ``save`` wrote into `folder`, ready to search.

    A trained one is asked for a few of the keys, and a ``UserWarning`` says when it finds clearly fewer of their
    neighbours than when it was built.

    Parameters
    ----------
    data : dict
        What ``to_json`` returned.
    folder : Path
    keys : Tensor of shape (n, d), or None
        All rows, forgotten ones included; None where an approximate index answers without them.
    forgotten : int64 Tensor
        Row numbers that must not be returned.
    device : torch.device
    n : int, optional
        How many rows there are, when `keys` is None.

    Raises
    ------
    MemoryFileError
        A missing or torn file, or one of another memory.
    """
    try:
        if data["name"] == "exact":
            if keys is None:
                raise MemoryFileError(f"{folder} holds no keys, and its exact index is built from them")
            index: Index = Exact(keys.shape[1], device)
            index.build(keys)
        else:
            index = Factory.load(data, folder, n if keys is None else len(keys), device)
    except (KeyError, TypeError) as error:
        raise MemoryFileError(f"{folder} describes its index in a way this version does not know: {error!r}") from error
    index.forget(forgotten)
    if keys is not None and not index.exact:
        check_recall(index, keys, forgotten)
    return index
