"""Rows encoded, and texts remembered, by the machines of a Ray cluster: as one process would, and whoever dies.

Ray starts the workers, moves the data and does again what was lost. That the outcome is a single process's is seen to
here: batches are cut where that one would cut them, and kept in order.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, Unpack, cast

import numpy as np
from torch import nn

from residua import lm
from residua.caution import warn
from residua.core import DenseLogits, Encoded, Source, Task
from residua.core.logits import as_tensor
from residua.encoding import encode as encode_here
from residua.encoding.data import BATCH_SIZE
from residua.encoding.item import OutputChoice
from residua.encoding.options import Known, Texts, Tokenizer, known_by
from residua.errors import EncodeError, InputError, MissingDependencyError, ParameterError, ResiduaError
from residua.folder import BUILD
from residua.memory import Memory
from residua.memory import manifest as files
from residua.memory.build import refuse_finished
from residua.memory.schema import KeyDtype
from residua.memory.storage import StorageName

try:
    # Loaded by name, as what it says of its types is not what it takes.
    ray: Any = import_module("ray")
    ray_data: Any = import_module("ray.data")
    RayError: Any = ray.exceptions.RayError
except ImportError as error:
    raise MissingDependencyError(
        'residua.integrations.ray needs Ray Data; install it with: pip install "residua[ray]"'
    ) from error

log: logging.Logger = logging.getLogger(__name__)

RETRIES = 10  # of a task whose process or node died: a model that always kills its process is an error in the end
EACH = 16  # batches that a worker takes at a time, as it looks at its model anew each time, ...
BYTES = 64 << 20  # ... or as many as have so many bytes

Columns: TypeAlias = dict[str, np.ndarray]


class EncodedDataset:
    """What ``residua.integrations.ray.encode`` gives: an iterable of ``Encoded`` batches, in the dataset's order.

    They are encoded by the workers each time that it is iterated, and only some exist at a time.

    Attributes
    ----------
    source, task, n_outputs : Source, str or None, int
        Whose keys they are, for which task, and how many classes (or targets) there are.
    """

    source: Source
    task: Task | None
    n_outputs: int

    def __init__(self, encoded: Any, like: Encoded):
        self._encoded, self._like = encoded, like
        self.source, self.task, self.n_outputs = cast("Source", like.source), like.task, like.n_outputs

    def __iter__(self) -> Iterator[Encoded]:
        try:
            for found in self._encoded.iter_batches(batch_size=None, batch_format="numpy"):
                # Copies: what they were copied from can leave the cluster's store.
                rows = {name: np.array(column) for name, column in found.items()}
                if not len(rows["keys"]):
                    continue
                out = self._like[:0]
                out.keys, out.logits = rows["keys"], DenseLogits(as_tensor(rows["logits"]))
                out.labels, out.ids = rows.get("labels"), rows.get("ids")
                yield out
        except RayError as error:
            raise _said(error) from error

    def __repr__(self) -> str:
        return f"EncodedDataset({self.source.name}, key {self.source.key!r}, {self.n_outputs} outputs)"


def encode(
    make_model: Callable[[], nn.Module],
    dataset: Any,
    *,
    inputs: str | Sequence[str] | None = None,
    labels: str | None = None,
    ids: str | None = None,
    key: str | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int,
    num_gpus: float = 0,
    task: Task | None = None,
    like: Known | None = None,
    output: OutputChoice = "auto",
    position: str | None = None,
) -> EncodedDataset:
    """``rs.encode`` of a ``ray.data.Dataset``, by the workers of a Ray cluster.

    Keys, logits, labels and ids are those that one process makes of all rows, bit by bit where machines compute alike.
    Batches of a worker or node that dies are encoded again, by another one.

    Parameters
    ----------
    make_model : callable
        Makes the model, on the device that it shall run on (the worker sees the GPUs that are its own): once for each
        worker and pass over the data, and once for the first batch.
    dataset : ray.data.Dataset
        Its rows; to be iterated twice, they must be the same each time. Its context is set to
        ``preserve_order`` and ``raise_original_map_exception``.
    inputs : str or sequence of str, optional
        The column that the model is called with, or several, by place. None: all columns of numbers, by the names that
        ``model.forward`` has, as in ``rs.encode`` of a dict.
    labels, ids : str, optional
        The columns of class indices (or targets), and of the examples' names. Without `ids` a memory numbers the rows.
        Without `labels` and `inputs`, a column of a usual name (``"labels"``, ``"label"``, ...) holds the labels.
    batch_size : int, default 256
        Rows per forward pass.
    workers : int
        How many models run at once; of a GPU each, with ``num_gpus=1``. They are spread over the nodes and ask for no
        CPU of Ray's, which those that read the dataset need; each computes with one CPU thread, unless the model says
        otherwise.
    num_gpus : float, default 0
        GPUs (or parts of one) for each worker.
    key, task, like, output, position
        As in ``rs.encode``. What "auto" and None leave open is decided by the first batch, for all.

    Returns
    -------
    EncodedDataset
        For ``rs.Memory``, ``rs.evaluate`` and ``rs.tune``.

    Raises
    ------
    InputError
        For a dataset without rows, or without a column that is named.
    ParameterError, and what ``rs.encode`` raises
        Also when a worker meets it, later on; ``SourceMismatchError`` where `make_model` makes other models elsewhere.
    ray.exceptions.RayError
        What Ray itself could not mend.

    Examples
    --------
    On a running cluster (or, without one, on this machine, where Ray starts itself)::

        import ray, residua as rs
        from residua.integrations.ray import encode

        rows = ray.data.read_parquet("train/")  # with columns "pixels" and "label"
        memory = rs.Memory(encode(make_model, rows, inputs="pixels", labels="label", workers=8, num_gpus=1))
    """
    if not isinstance(dataset, ray_data.Dataset):
        raise InputError(
            f"the dataset is a {type(dataset).__name__}; expected a ray.data.Dataset: rs.encode takes others"
        )
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        _check_count(name, value)
    dataset.context.execution_options.preserve_order = True
    dataset.context.raise_original_map_exception = True
    known = known_by(like)
    # As an Encoded, it brings the number of outputs along, and is small to send.
    asked: Any = like if known is None or known.n_outputs is None else _empty(known.source, known.task, known.n_outputs)
    how: dict[str, Any] = {"inputs": inputs, "labels": labels, "ids": ids, "batch_size": batch_size}
    how |= {"key": key, "task": task, "output": output, "position": position}
    try:
        rows = next(iter(dataset.limit(batch_size).iter_batches(batch_size=batch_size, batch_format="numpy")), None)
        if rows is None:
            raise InputError("the dataset holds no rows; expected at least one")
        once = ray.remote(num_cpus=0, num_gpus=num_gpus, max_retries=RETRIES)(_first)
        first, doubts = ray.get(once.remote(make_model, rows, how | {"like": asked}))
        for doubt in doubts:
            warn(doubt)
        if output is None and known is None and first.task == "classification":
            if labels is None:
                raise ParameterError(
                    "output=None: the labels say how many classes there are; name their column, labels="
                )
            classes = int(dataset.select_columns([labels]).max(labels)) + 1
            first = _empty(first.source, first.task, max(classes, first.n_outputs))
    except RayError as error:
        raise _said(error) from error
    each = max(1, min(EACH, BYTES // max(1, sum(column.nbytes for column in rows.values()))))
    encoded = dataset.repartition(target_num_rows_per_block=each * batch_size, strict=True).map_batches(
        _Worker,
        fn_constructor_args=(make_model, how | {"like": first[:0]}),
        batch_size=None,
        batch_format="numpy",
        concurrency=workers,
        num_cpus=0,  # where a node dies, its workers would take the CPUs that reading needs, and all would wait
        num_gpus=num_gpus,
        memory=1,  # a byte: who asks for nothing at all is put anywhere by chance
    )  # spread over the nodes, and begun anew without end, as Ray Data does with all its actors
    return EncodedDataset(encoded, first[:0])


def remember(
    make: Callable[[], tuple[nn.Module, Tokenizer]],
    texts: Texts,
    out: str | os.PathLike[str],
    *,
    workers: int,
    num_gpus: float = 0,
    storage: StorageName = "none",
    index: str = "auto",
    key_dtype: KeyDtype = "float16",
    keep_keys: bool = True,
    about: dict[str, Any] | None = None,
    overwrite: bool = False,
    **options: Unpack[lm.RememberOptions],
) -> Memory:
    """``rs.lm.remember(model, tokenizer, texts, out)``, by the workers of a Ray cluster that all see the disk of `out`.

    They share the work as with ``together=True``: each takes blocks of text that nobody has. What a worker or node that
    dies had in hand is done by another one, and when all died, the same call goes on where they were. The memory is the
    one that a single process builds.

    Parameters
    ----------
    make : callable
        Makes the model and its tokenizer, in each worker, on the device that it shall run on.
    texts
        As in ``rs.lm.remember``, the same in each worker: files and folders on a disk that all see, or texts, which are
        sent. They must be readable again.
    out : path
        The folder in which the memory is built.
    workers : int
        How many models run at once; of a GPU each, with ``num_gpus=1``. A worker begins as soon as Ray has room for it,
        and the memory is there when some have begun.
    num_gpus : float, default 0
        GPUs (or parts of one) for each worker; one that has none asks for a CPU.
    storage, index, key_dtype, keep_keys, about, overwrite, **options
        As in ``rs.lm.remember``; `device` and `mmap` are those of the memory that is returned here.

    Returns
    -------
    Memory

    Raises
    ------
    ParameterError, MemoryFileError, and what ``rs.lm.remember`` raises
        Where no worker could go on.
    ray.exceptions.RayError
        What Ray itself could not mend.

    Examples
    --------
    ::

        from residua.integrations.ray import remember

        memory = remember(make, "/data/src", "/data/mem", workers=8, num_gpus=1)
    """
    _check_count("workers", workers)
    if isinstance(texts, Iterator):
        raise InputError(f"the texts are a {type(texts).__name__}, which can be read once; pass a list or a path")
    path = Path(out).absolute()  # a worker's current folder is another
    if not (path / BUILD).exists():
        refuse_finished(path, overwrite)
    given: dict[str, Any] = {"storage": storage, "index": index, "key_dtype": key_dtype, "keep_keys": keep_keys}
    given |= {"about": about, "overwrite": overwrite, **options, "device": "cpu", "mmap": True, "progress": False}
    share = ray.remote(
        num_cpus=0 if num_gpus else 1, num_gpus=num_gpus, scheduling_strategy="SPREAD", max_retries=RETRIES
    )(_share)
    sent = ray.put(_absolute(texts))
    tasks = [share.remote(make, sent, path, files.generation_of(path), given) for _ in range(workers)]
    built, failed = False, []
    try:
        while tasks:
            (done,), tasks = ray.wait(tasks)
            try:
                ray.get(done)
                built = True
            except RayError as error:
                failed.append(error)
                if tasks and not built:
                    log.warning("a worker failed, and %d others go on: %s", len(tasks), _said(error))
    finally:
        for task in tasks:
            ray.cancel(task)
    if not built:
        raise _said(failed[0]) from failed[0]
    place = index if "://" in index else None  # of an index on a server
    return Memory.load(path, options.get("device", "cpu"), index=place, mmap=options.get("mmap", False))


class _Worker:
    """Makes a model, and rows of keys and logits of rows of inputs."""

    def __init__(self, make_model: Callable[[], nn.Module], how: dict[str, Any]):
        self.model, self.how = _made(make_model), how

    def __call__(self, rows: Columns) -> Columns:
        enc = _encoded(self.model, rows, **self.how)
        found = {"keys": enc.keys, "logits": enc.logits.dense(), "labels": enc.labels, "ids": enc.ids}
        return {name: np.asarray(column) for name, column in found.items() if column is not None}


def _first(make_model: Callable[[], nn.Module], rows: Columns, how: dict[str, Any]) -> tuple[Encoded, list[str]]:
    """The first batch, encoded, and what is doubtful about it."""
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        enc = _encoded(_made(make_model), rows, **how)
    return enc[:1], [str(doubt.message) for doubt in doubts if doubt.category is UserWarning]


def _made(make_model: Callable[[], nn.Module]) -> nn.Module:
    model = make_model()
    if not isinstance(model, nn.Module):
        texts = "; texts are remembered by residua.integrations.ray.remember" if isinstance(model, tuple) else ""
        raise EncodeError(f"make_model() made a {type(model).__name__}; expected a torch.nn.Module{texts}")
    return model


def _encoded(
    model: nn.Module,
    rows: Columns,
    inputs: str | Sequence[str] | None,
    labels: str | None,
    ids: str | None,
    **how: Any,
) -> Encoded:
    named = None if ids is None else _column(rows, ids)
    y = None if labels is None else _column(rows, labels)
    x: Any
    if inputs is None:
        x = {name: column for name, column in rows.items() if name not in (labels, ids) and column.dtype.kind in "fiub"}
        if not x:
            raise InputError(f"{_columns(rows)}: none of numbers to call the model with")
    elif isinstance(inputs, str):
        x = _column(rows, inputs)
    else:
        x = tuple(_column(rows, name) for name in inputs)
    return encode_here(model, (x, y), ids=named, progress=False, **how)


def _column(rows: Columns, name: str) -> np.ndarray:
    if name not in rows:
        raise InputError(f"{_columns(rows)}; there is no {name!r}")
    if rows[name].dtype.kind not in "fiub":
        raise InputError(f"{_columns(rows)}; {name!r} must be of numbers, as many in each row")
    return rows[name]


def _columns(rows: Columns) -> str:
    return f"the dataset has the columns {', '.join(f'{name!r} ({column.dtype})' for name, column in rows.items())}"


def _empty(source: Source | None, task: Task | None, n_outputs: int) -> Encoded:
    """No rows, of a task with so many outputs."""
    return Encoded(np.zeros((0, 1)), np.zeros((0, n_outputs)), source=source, task=task)


def _share(
    make: Callable[[], tuple[nn.Module, Tokenizer]],
    texts: Texts,
    path: Path,
    before: str | None,
    options: dict[str, Any],
) -> None:
    """One worker's part of a memory; nothing, where others have built it since the folder held generation `before`."""
    if (path / BUILD).exists() or files.generation_of(path) == before:
        lm.remember(*make(), texts, path, together=True, **options)


def _absolute(texts: Texts) -> Texts:
    """The same for whoever is in another current folder."""
    if isinstance(texts, (str, os.PathLike)):
        return Path(texts).absolute()
    if isinstance(texts, (list, tuple)):
        return [Path(one).absolute() if isinstance(one, os.PathLike) else one for one in texts]
    return texts


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ParameterError(f"{name}={value!r}; expected a positive integer")


def _said(error: BaseException) -> BaseException:
    """What residua raised in a worker, where that is behind an error of Ray's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ResiduaError) and not isinstance(cause, RayError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return error
