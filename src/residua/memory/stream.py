"""A memory of more than fits in RAM at once, built as its text streams by, and resumed when it was killed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from tqdm import tqdm

from residua.core import Encoded
from residua.errors import ParameterError, StorageError
from residua.index.installed import require_faiss
from residua.memory.memory import Memory
from residua.memory.storage import make_storage
from residua.memory.unfinished import opened
from residua.memory.writer import Writer

log = logging.getLogger(__name__)


def build(
    batches: Iterable,
    encode: Callable[..., Encoded],
    path: str | os.PathLike,
    *,
    index: str = "auto",
    index_params: dict | None = None,
    overfetch: float = 4,
    storage: str = "none",
    m: int = 128,
    temperature: float = 1.0,
    key_dtype: str = "float32",
    keep_keys: bool = True,
    about: dict | None = None,
    names: dict[int, str] | None = None,
    shard_rows: int = 131_072,
    train_rows: int = 1_000_000,
    overwrite: bool = False,
    progress: bool = True,
    total: int | None = None,
    device: str | torch.device = "cpu",
) -> Memory:
    """Encode batches into a memory folder, a shard at a time.

    Killed at any moment and called again with the same batches and settings, it goes on after the last shard on disk
    and makes the same memory. What is on disk is only compared with the batches, not encoded again.

    Parameters
    ----------
    batches : iterable
        Each has a length and int64 arrays ``labels``, ``ids`` and ``offsets`` of that length, known without a model.
        In the same order on every call.
    encode : callable
        Makes an ``Encoded`` of a batch, with these labels and ids.
    path : path
        A new or empty folder, or one that an unfinished build left.
    index, index_params, overfetch, storage, m, temperature, key_dtype, about, names, device
        As in ``Memory``. `names` may still grow while `batches` are read.
    keep_keys : bool, default True
        False drops the keys once the index holds their codes: it is trained when `train_rows` rows wait, and takes in
        as many at a time, so the folder is never larger than the memory, one copy of its index and these keys.
    shard_rows : int, default 131 072
        Rows written at a time, rounded up to whole batches: what a kill can lose.
    train_rows : int, default 1 000 000
        Rows kept waiting for the index where keys are not kept. (Where they are, it is built over all, at the end.)
    overwrite : bool, default False
        Replace a finished memory, once this one is complete, or start over an unfinished build with other settings.
    progress : bool, default True
        Show rows per second, and the time left where `total` rows are foretold.
    total : int, optional

    Returns
    -------
    Memory
        As ``Memory.load(path)`` gives it.

    Raises
    ------
    EmptyMemoryError
        No rows.
    InputError, ParameterError
        Other text, or other settings, than the unfinished build's.
    StorageError
        `keep_keys` is False and the index is exact, or ``storage="head"``.
    MemoryFileError
        A finished memory is there, or the folder cannot be written. Nothing written before is lost.
    SourceMismatchError, ShapeError, LabelError, NonFiniteError
        Rows that do not fit the first ones.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> class Batch(SimpleNamespace):
    ...     __len__ = lambda self: len(self.labels)
    >>> tokens = np.arange(6)
    >>> batch = Batch(labels=tokens % 3, ids=np.zeros(6, np.int64), offsets=tokens)
    >>> def encode(batch):
    ...     keys, columns = np.eye(8)[batch.offsets], {"offset": batch.offsets}
    ...     return Encoded(keys, np.zeros((len(batch), 3)), batch.labels, batch.ids, columns=columns)
    >>> memory = build([batch], encode, "mem", index="exact", progress=False)
    >>> len(memory), memory.of_tokens
    (6, True)
    """
    path = Path(path).absolute()
    settings = {"index": index, "index_params": index_params, "overfetch": overfetch, "storage": storage, "m": m}
    settings |= {"temperature": temperature, "key_dtype": key_dtype, "keep_keys": keep_keys, "about": about}
    settings |= {"shard_rows": shard_rows, "train_rows": train_rows}
    wanted = {"index": index, "params": index_params, "overfetch": overfetch}
    memory = Memory.without_rows(
        make_storage(storage, m=m, temperature=temperature), wanted, key_dtype=key_dtype, about=about
    )
    _check(settings)
    state, finished = opened(path, settings, overwrite)
    if not finished:
        batches = iter(batches)
        state.compared(batches)
        if state.rows:
            log.info("%s: %d rows are on disk already; going on", path, state.rows)
        writer = Writer(memory, path, state)
        with tqdm(desc="remember", unit=" tokens", initial=state.rows, total=total, disable=not progress) as bar:
            for batch in batches:
                if len(batch):
                    writer.append(batch, encode(batch))
                    bar.update(len(batch))
        memory.names = {int(number): name for number, name in (names or {}).items()}
        writer.finish()
    state.remove(path)
    return Memory.load(path, device)


def _check(settings: dict) -> None:
    for name in ("shard_rows", "train_rows"):
        if settings[name] < 1:
            raise ParameterError(f"{name}={settings[name]}; expected at least 1")
    if settings["keep_keys"]:
        return
    if settings["storage"] == "head":
        raise StorageError("storage='head' recomputes the logits from the keys; build with keep_keys=True")
    if settings["index"] == "exact":
        raise StorageError(
            "an exact index searches the keys themselves; build with keep_keys=True, or with a trained index, such "
            'as index="knnlm"'
        )
    require_faiss()
