"""Which index: by name, by what it is for, an instance, or back from a folder."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from residua.caution import warn
from residua.core import Rows
from residua.errors import InputError, MemoryFileError, ParameterError
from residua.index.faiss_index import FaissIndex
from residua.index.index import ENGINES, Index
from residua.index.recall import Recall, check_recall
from residua.index.recipes import RECIPES
from residua.index.remote import RemoteIndex
from residua.index.trust import CURE, check_params, is_ours

SECRET = ("address", "token")  # of an engine on a server: in no file, and in no error


def make_index(
    index: str | Index,
    *,
    n: int,
    dim: int,
    device: torch.device | str,
    params: dict[str, Any] | None = None,
    overfetch: float = 4,
) -> Index:
    """An empty index, to be built over `n` keys of `dim` dimensions that live on `device`.

    `index` is an engine's registered name; the address of one on a server, ``name://…``; ``"auto"``, ``"knnlm"`` or
    ``"knnlm-fast"`` (decided here and kept as the memory grows); any FAISS factory string; or an index without rows, of
    which a fresh one is made, with its own parameters and `overfetch`. `params` are the engine's, such as
    ``{"nprobe": 64}``, and ``rerank``.
    """
    if isinstance(index, Index):
        if index.n or index.dim != dim or params:
            expected = f"an index without rows for keys of {dim} dimensions, and no params beside its own"
            raise ParameterError(f"index={index!r} with params {params or {}}; expected {expected}")
        return index.fresh(device)
    if not isinstance(index, str):
        names = ", ".join(f'"{name}"' for name in (*ENGINES, *RECIPES))
        raise ParameterError(f"index={index!r}; expected {names}, a FAISS factory string or an Index")
    params = dict(params or {})
    if index in RECIPES:
        index, suggested = RECIPES[index](n, dim)
        params = {} if index == "exact" else suggested | params
    if index in ENGINES:
        cls = ENGINES.get(index)
    elif "://" in index:
        cls, params = ENGINES.get(index.partition("://")[0]), params | {"address": index}
    else:
        cls, params = FaissIndex, {"factory": index} | params
    rerank = True if cls.exact else params.pop("rerank", True)
    try:
        inspect.signature(cls).bind(dim, device, **params)
    except TypeError as error:
        takes = ", ".join(list(inspect.signature(cls).parameters)[2:])
        index, shown = index.partition("://")[0], {name: params[name] for name in params if name not in SECRET}
        raise ParameterError(f"index={index!r} with params {shown}: {error}; it takes {takes or 'none'}") from error
    return cls(dim, device, **params).tuned(overfetch, rerank)


def load_index(
    data: dict[str, Any],
    folder: Path,
    keys: Rows | None,
    forgotten: Tensor,
    *,
    device: torch.device | str,
    n: int = 0,
    trust: bool = False,
) -> Index:
    """The index that ``to_json`` described as `data` and ``save`` wrote into `folder`, ready to search.

    `keys` are all rows, those `forgotten` (int64 row numbers) included; without, `n` says how many there are. A file
    that this user's residua did not write is opened only where the caller says `trust`; else the index is built anew
    from the keys, and a ``UserWarning`` says so. A saved index that is not exact is asked for a few of the keys, and a
    ``UserWarning`` says when it finds clearly fewer of their neighbours than when it was built.

    ``MemoryFileError``: a missing or torn file, one of another memory, one
    that is not trusted and cannot be built anew, or an engine that nobody registered.
    """
    try:
        data = data if "engine" in data else _of_version_1(data, keys)
        engine, recall = data["engine"], data["recall"]
        if engine not in ENGINES:
            why = f"{folder} was saved with index engine {engine!r}, which is not registered here"
            was = f"it was {data.get('module')!r} when it was saved"
            raise MemoryFileError(f"{why}; import the module that registers it first ({was})")
        cls, rows = ENGINES.get(engine), n if keys is None else len(keys)
        file = None if data["file"] is None else Path(folder) / Path(data["file"]).name  # nothing outside the folder
        ours = file is not None and is_ours(file, data)
        if file is not None and not (ours or trust):
            file = _untrusted(file, keys)
        if file is None and not trust and issubclass(cls, FaissIndex):
            check_params(data["params"], data["dim"], rows)
        index = cls(data["dim"], device, **data["params"]).tuned(data["overfetch"], data["rerank"])
        if file is not None:
            index.read(folder, file.name, rows, data["mac"] if ours else None)
            index.recall = Recall(**{"date": "", **recall}) if recall else None
        elif keys is None:
            raise MemoryFileError(f"{folder} holds no keys, and its {index.name} index is built from them")
        else:
            index.build(keys)
    except InputError as error:
        raise MemoryFileError(f"{folder} describes an index that cannot be made here: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MemoryFileError(f"{folder} describes its index in a way this version does not know: {error!r}") from error
    index.forget(forgotten)
    if keys is not None and file is not None and not index.exact:
        check_recall(index, keys, forgotten)
    return index


def given_index(
    given: str | Index,
    data: dict[str, Any],
    generation: str,
    keys: Rows | None,
    forgotten: Tensor,
    *,
    n: int,
    dim: int,
    device: torch.device | str,
) -> tuple[Index, dict[str, Any], bool]:
    """The index that whoever loads a folder gives, over its `n` rows; how to make another of it, as ``make_index``
    takes it; and whether that is the one that the folder describes as `data`, where that lies on a server.

    That one is attached to what the server has as the folder's `generation`, and has no rows where it has nothing. Any
    other is built from `keys`.
    """
    same = isinstance(given, str) and "://" in given and given.partition("://")[0] == data.get("engine")
    wanted: dict[str, Any] = {"index": given, "params": None, "overfetch": 4}
    if same:
        params = {name: value for name, value in data["params"].items() if name not in SECRET}
        wanted |= {"params": params | {"rerank": data["rerank"]}, "overfetch": data["overfetch"]}
    index = make_index(**wanted, n=n, dim=dim, device=device)
    if isinstance(index, RemoteIndex):  # which does not say its token to whoever copies it
        wanted = {"index": index.fresh(), "params": None, "overfetch": index.overfetch}
    if isinstance(index, RemoteIndex) and index.engine == data.get("engine"):
        if index.attach(generation, n, forgotten, keys, data.get("former", ())):
            index.recall = Recall(**{"date": "", **data["recall"]}) if data["recall"] else None
            if keys is not None:
                check_recall(index, keys, forgotten)
        return index, wanted, True
    if keys is None:
        raise MemoryFileError(f"index {index.name!r} is given, and the folder keeps no keys to build it from")
    index.build(keys)
    index.forget(forgotten)
    return index, wanted, False


def is_remote(data: dict[str, Any]) -> bool:
    """Whether the index that ``to_json`` described as `data` lies on a server."""
    engine: str = data.get("engine", "")
    return engine in ENGINES and issubclass(ENGINES.get(engine), RemoteIndex)


def _untrusted(file: Path, keys: Rows | None) -> None:
    """Say that an index file is not opened, and what is done instead."""
    why = f"{file} was not written by this user's residua, or was changed since, so it is not opened"
    if keys is None:
        raise MemoryFileError(f"{why}, and there are no keys to build the index anew from; {CURE}")
    warn(f"{why}: the index is built anew from the keys; {CURE}")


def _of_version_1(data: dict[str, Any], keys: Rows | None) -> dict[str, Any]:
    """A description by version 0.1, which knew an exact index and FAISS's, in today's words."""
    if data["name"] == "exact":
        dim = 0 if keys is None else keys.shape[1]
        return dict(engine="exact", dim=dim, params={}, overfetch=1, rerank=True, file=None, recall=None)
    params = {"factory": data["name"], "origin": data["mean"], **data["params"]}
    return {"rerank": True} | data | {"engine": "faiss", "params": params}
