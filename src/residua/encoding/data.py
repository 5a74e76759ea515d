"""Whatever holds the examples, read once, in order, in batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from residua.core.logits import as_tensor
from residua.errors import InputError, ParameterError, ShapeError

BATCH_SIZE = 256
_READS = 4  # of the first item; a coin flip (random mirroring) goes unnoticed once in eight


@dataclass(frozen=True)
class Examples:
    """Batches of inputs in dataset order."""

    source: Any  # a DataLoader, tensor or array
    n: int | None  # how many there are, when that is known before reading
    labels: object = None  # all of them, when they were given apart from the inputs
    batch_size: int = BATCH_SIZE  # rows per batch, for tensors and arrays

    def batches(self, dtype: torch.dtype | None) -> Iterator[tuple[Tensor, object]]:
        """(x, y or None) per batch. NumPy has no habit of half precision, so its floating arrays become `dtype`."""
        if isinstance(self.source, DataLoader):
            yield from map(_pair, self.source)
            return
        for start in range(0, len(self.source), self.batch_size):
            rows = self.source[start : start + self.batch_size]
            if not isinstance(rows, Tensor):
                rows = as_tensor(rows)
                rows = rows.to(dtype) if rows.is_floating_point() and dtype is not None else rows
            yield rows, None


def read_examples(data: Any, labels: Any = None, batch_size: int | None = None) -> Examples:
    """Any of: a Dataset, IterableDataset, DataLoader, tensor, array, or a pair ``(X, y)`` of the last two.

    A loader is read again in dataset order, whatever it shuffles, and to its end, whatever it drops: same batch size,
    collate function and workers. A map-style dataset whose first item changes between reads gets a ``UserWarning``.
    """
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ParameterError(f"batch_size={batch_size!r}; expected a positive integer")
    if isinstance(data, tuple) and len(data) == 2:
        if labels is not None:
            raise ParameterError("labels= was given, and the data are a pair (X, y); pass one of the two")
        data, labels = data
    if isinstance(data, DataLoader):
        return _loader(data, labels, batch_size)
    if isinstance(data, IterableDataset):
        return Examples(_reader(data, batch_size or BATCH_SIZE), None, labels)
    if not isinstance(data, tuple) and hasattr(data, "iloc"):
        data = data.to_numpy()
    if isinstance(data, np.ndarray) and data.dtype.kind not in "fiub":
        raise InputError(f"X has dtype {data.dtype}; a torch model needs numbers")
    is_array = isinstance(data, (Tensor, np.ndarray))
    if isinstance(data, (str, bytes, dict)) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        expected = "expected a Dataset or DataLoader of (x, y), an array X with labels=, or a pair (X, y)"
        raise InputError(f"data is a {type(data).__name__}; {expected}")
    if is_array and data.ndim == 0:
        raise ShapeError("X is a single number; expected one row per example")
    n = _check_length(len(data), labels)
    if is_array:
        return Examples(data, n, labels, batch_size or BATCH_SIZE)
    _warn_if_random(data)
    return Examples(_reader(data, batch_size or BATCH_SIZE), n, labels)


def _reader(dataset: Any, batch_size: int | None, **options: Any) -> DataLoader[Any]:
    # A generator of its own, so that encoding leaves the caller's random state alone.
    return DataLoader(dataset, batch_size=batch_size, generator=torch.Generator(), **options)


def _loader(loader: DataLoader[Any], labels: Any, batch_size: int | None) -> Examples:
    same = ("collate_fn", "num_workers", "timeout", "worker_init_fn", "multiprocessing_context", "prefetch_factor")
    options: dict[str, Any] = {name: getattr(loader, name) for name in same}
    options["pin_memory"] = loader.pin_memory and torch.cuda.is_available()
    whole_batches = loader.batch_size is None and loader.batch_sampler is None  # the dataset makes them itself
    size = batch_size or loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or BATCH_SIZE
    dataset: Any = loader.dataset
    reader = _reader(dataset, None if whole_batches else size, **options)
    if isinstance(dataset, IterableDataset):
        return Examples(reader, None, labels)
    sampler: Any = loader.sampler
    if loader.batch_size is None and loader.batch_sampler is not None:
        sampler = loader.batch_sampler
        sampler = sampler.sampler if type(sampler) is BatchSampler else sampler
    everything = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    )
    if not everything:
        raise ParameterError(
            f"the loader's {type(sampler).__name__} visits a selection of its own, and encode reads a dataset whole "
            "and in order; pass the examples you mean: the dataset, or torch.utils.data.Subset(dataset, indices)"
        )
    n = _check_length(len(dataset), None if whole_batches else labels)
    _warn_if_random(dataset)
    return Examples(reader, None if whole_batches else n, labels)


def _check_length(n: int, labels: Any) -> int:
    if n == 0:
        raise InputError("the data hold no examples; expected at least one")
    if labels is not None and len(labels) != n:
        raise ShapeError(f"{len(labels)} labels for {n} examples; expected one per example")
    return n


def _pair(batch: Any) -> tuple[Tensor, object]:
    x, y = batch, None
    if isinstance(batch, (tuple, list)):
        if len(batch) not in (1, 2):
            what = f"the dataset's items have {len(batch)} parts"
            raise InputError(f"{what}; expected (x, y): give a collate_fn that makes pairs")
        x, y = (*batch, None)[:2]
    if not isinstance(x, Tensor):
        expected = "expected tensors x in items (x, y): give a transform or a collate_fn that makes them"
        raise InputError(f"the dataset's inputs are collated to {type(x).__name__}; {expected}")
    return x, y


def _warn_if_random(dataset: Any) -> None:
    first = dataset[0]
    if not all(_same(first, dataset[0]) for _ in range(_READS - 1)):
        warnings.warn(
            "two reads of the dataset's first item differ, as under random augmentation: what is remembered depends on "
            "chance; encode with the evaluation transform (views may be added on purpose, with the same ids)",
            stacklevel=4,
        )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, Tensor) or hasattr(one, "__array__") or hasattr(one, "__array_interface__"):
        a, b = np.asarray(one), np.asarray(other)
        return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    return not isinstance(one, (int, float, str)) or one == other
