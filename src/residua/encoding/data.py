"""Whatever holds the examples, read once, in order, in batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from residua.caution import warn
from residua.core.logits import as_tensor
from residua.errors import InputError, ParameterError, ShapeError

BATCH_SIZE = 256
_READS = 4  # of the first item; a coin flip (random mirroring) goes unnoticed once in eight


@dataclass(frozen=True)
class Inputs:
    """A batch for a model of several inputs, or of named ones."""

    args: tuple[Tensor, ...]
    named: dict[str, Tensor]

    @property
    def all(self) -> tuple[Tensor, ...]:
        """Each tensor."""
        return (*self.args, *self.named.values())

    def __len__(self) -> int:
        return len(self.all[0])

    def __getitem__(self, rows: slice) -> Inputs:
        return self._each(lambda values: values[rows])

    def to(self, device: torch.device, non_blocking: bool = False) -> Inputs:
        """The same on another device."""
        return self._each(lambda values: values.to(device, non_blocking=non_blocking))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        return Inputs(tuple(map(change, self.args)), {name: change(value) for name, value in self.named.items()})


class Batch(NamedTuple):
    """What a model is called with, and, where the items have them, labels and a number of each row."""

    x: Tensor | Inputs
    y: object = None
    ids: object = None


def main_input(x: Tensor | Inputs, model: nn.Module) -> Tensor:
    """The input that a model is made for, by the name it gives (transformers), else the first."""
    if isinstance(x, Tensor):
        return x
    found = x.named.get(getattr(model, "main_input_name", ""))
    return x.all[0] if found is None else found


@dataclass(frozen=True)
class Examples:
    """Batches of inputs in dataset order."""

    source: Any  # a DataLoader, tensor or array
    n: int | None  # how many there are, when that is known before reading
    labels: object = None  # all of them, when they were given apart from the inputs
    batch_size: int = BATCH_SIZE  # rows per batch, for tensors and arrays
    numpy: bool = False  # whether a loader's tensors were arrays before

    def batches(self, dtype: torch.dtype | None, model: nn.Module | None = None) -> Iterator[Batch]:
        """What `model` is called with, per batch. NumPy has no habit of half precision, so its floating arrays become
        `dtype`."""
        takes = _Takes.of(model)
        if isinstance(self.source, DataLoader):
            for collated in _collated(self.source):
                yield _batch(collated, takes, dtype, self.numpy)
            return
        many = self.source if isinstance(self.source, (tuple, Mapping)) else None
        n = len(self.source if many is None else next(iter(_parts(many))))
        for start in range(0, n, self.batch_size):
            cut = slice(start, start + self.batch_size)
            if many is None:
                yield Batch(_rows(self.source, cut, dtype))
            elif isinstance(many, tuple):
                yield Batch(Inputs(tuple(_rows(part, cut, dtype) for part in many), {}))
            else:
                yield _batch({name: _rows(part, cut, dtype) for name, part in many.items()}, takes, dtype)


def read_examples(data: Any, labels: Any = None, batch_size: int | None = None) -> Examples:
    """Any of: a Dataset, IterableDataset, DataLoader, tensor, array, a dict of arrays by input name, or a pair
    ``(X, y)`` of X one of the last three, or a tuple of arrays for a model of several inputs.

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
    formatted = _as_arrays(data)
    data, numpy = formatted, formatted is not data
    if isinstance(data, IterableDataset):
        return Examples(_reader(data, batch_size or BATCH_SIZE), None, labels, numpy=numpy)
    if not isinstance(data, tuple) and hasattr(data, "iloc"):
        data = data.to_numpy()
    if _is_many(data):
        rows = {len(part) for part in _parts(data)}
        if len(rows) > 1:
            raise ShapeError(f"the inputs have {sorted(rows)} rows; expected as many of each")
        return Examples(data, _check_length(rows.pop(), labels), labels, batch_size or BATCH_SIZE)
    if isinstance(data, np.ndarray) and data.dtype.kind not in "fiub":
        raise InputError(f"X has dtype {data.dtype}; a torch model needs numbers")
    is_array = isinstance(data, (Tensor, np.ndarray))
    if isinstance(data, dict) and data and all(hasattr(part, "with_format") for part in data.values()):
        one = f"data[{next(iter(data))!r}]"
        raise InputError(f"data is a {type(data).__name__} of {list(data)}; expected one of them, such as {one}")
    if isinstance(data, (str, bytes, dict)) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        expected = "expected a Dataset or DataLoader of (x, y), an array X with labels=, or a pair (X, y)"
        raise InputError(f"data is a {type(data).__name__}; {expected}")
    if is_array and data.ndim == 0:
        raise ShapeError("X is a single number; expected one row per example")
    n = _check_length(len(data), labels)
    if is_array:
        return Examples(data, n, labels, batch_size or BATCH_SIZE)
    _warn_if_random(data)
    return Examples(_reader(data, batch_size or BATCH_SIZE), n, labels, numpy=numpy)


def _as_arrays(data: Any) -> Any:
    """One of Hugging Face's datasets that gives Python's lists of numbers, giving arrays; anything else as it is.

    What it makes by a transform or a format of its own stays, as do texts, and pictures, which only a transform makes
    what a model was trained on.
    """
    features = getattr(data, "features", None)
    if not hasattr(type(data), "with_format") or not isinstance(features, Mapping):
        return data
    lists = [name for name, feature in features.items() if _is_list_of_numbers(feature)]
    if not lists:
        return data
    if hasattr(type(data), "format"):
        unmade = data.format["type"] is None
        return data.with_format("numpy", columns=lists, output_all_columns=True) if unmade else data
    pictures = any(hasattr(feature, "decode") for feature in features.values())
    return data if pictures else data.with_format("numpy")  # a stream's format is of all columns


def _is_list_of_numbers(feature: Any) -> bool:
    inner = feature
    while hasattr(inner, "feature") or isinstance(inner, list):
        inner = inner[0] if isinstance(inner, list) else inner.feature
    nested = inner is not feature or hasattr(feature, "shape")
    return nested and str(getattr(inner, "dtype", "")).startswith(("int", "uint", "float", "bool"))


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


class _Takes(NamedTuple):
    """What a model's ``forward`` takes."""

    names: tuple[str, ...] = ()
    required: tuple[str, ...] = ()  # those without a default
    anything: bool = False  # **kwargs

    @classmethod
    def of(cls, model: nn.Module | None) -> _Takes:
        if model is None:
            return cls()
        given = inspect.signature(model.forward).parameters.values()
        named = [one for one in given if one.kind in (one.POSITIONAL_OR_KEYWORD, one.POSITIONAL_ONLY, one.KEYWORD_ONLY)]
        required = tuple(one.name for one in named if one.default is one.empty and one.kind != one.KEYWORD_ONLY)
        return cls(tuple(one.name for one in named), required, any(one.kind == one.VAR_KEYWORD for one in given))


def _batch(collated: Any, takes: _Takes, dtype: torch.dtype | None, numpy: bool = False) -> Batch:
    """What a collate function made: x; (x, y); (x, y, number); with as many x as the model takes, or a tuple or dict of
    them; or a dict of everything, as Hugging Face's collators give."""
    if isinstance(collated, Mapping):
        return _of_names(collated, takes, dtype, numpy)
    parts = tuple(collated) if isinstance(collated, (tuple, list)) else (collated,)
    if parts and isinstance(parts[0], Mapping):
        inputs, rest = _of_names(parts[0], takes, dtype).x, parts[1:]
    elif parts and isinstance(parts[0], (tuple, list)):
        inputs, rest = Inputs(tuple(parts[0]), {}), parts[1:]
    elif (many := len(takes.required)) > 1:
        inputs, rest = Inputs(parts[:many], {}), parts[many:]
    else:
        inputs, rest = cast("Tensor", parts[0] if parts else None), parts[1:]
    known = inputs.all if isinstance(inputs, Inputs) else (inputs,)
    if wrong := [type(value).__name__ for value in known if not isinstance(value, Tensor)]:
        expected = "expected tensors x in items (x, y): give a transform or a collate_fn that makes them"
        raise InputError(f"the dataset's inputs are collated to {wrong[0]}; {expected}")
    if len(rest) > 2 or (len(rest) == 2 and not _numbers_rows(rest[1], len(inputs))):
        raise InputError(
            f"the dataset's items have {len(parts)} parts; expected (x, y), or (x, y, number of the row): give a "
            "collate_fn that makes pairs"
        )
    return Batch(inputs, *rest)


_LABELS = ("labels", "label", "label_ids", "targets", "target", "y")
# Where the model takes none of the names there are.
_INPUTS = ("pixel_values", "image", "images", "img", "input", "inputs", "features", "x", "X")


def _of_names(collated: Mapping[str, Any], takes: _Takes, dtype: torch.dtype | None, numpy: bool = False) -> Batch:
    values = {name: _stacked(value) for name, value in collated.items()}
    label = next((name for name in _LABELS if name in values and name not in takes.required), None)
    y = None if label is None else values.pop(label)
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        # Python's numbers have no dtype of their own.
        if dtype is not None and value.is_floating_point() and (numpy or isinstance(collated[name], list)):
            tensors[name] = value.to(dtype)
    known = {name: value for name, value in tensors.items() if name in takes.names}
    if known or (takes.anything and len(tensors) > 1):
        return Batch(Inputs((), known or tensors), y)
    inputs = [name for name in tensors if len(tensors) == 1 or name in _INPUTS]
    if len(inputs) == 1:
        return Batch(tensors[inputs[0]], y)
    raise InputError(
        f"the dataset's items have the parts {list(collated)}, and the model takes {list(takes.names)}; expected "
        "tensors by these names, and labels: rename the columns, or give a transform or a collate_fn that makes them"
    )


def _stacked(value: Any) -> Any:
    """Lists of numbers are collated position by position, one tensor for all rows each: back to (n, t)."""
    lists = isinstance(value, list) and value and all(isinstance(part, Tensor) and part.ndim == 1 for part in value)
    return torch.stack(cast("list[Tensor]", value), dim=1) if lists else value


def _numbers_rows(values: Any, n: int) -> bool:
    kept = isinstance(values, Tensor) and values.shape == (n,)
    return kept and not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def _collated(loader: DataLoader[Any]) -> Iterator[Any]:
    try:
        yield from loader
    except (TypeError, RuntimeError) as error:
        if "default_collate" not in str(error) and "stack expects each tensor" not in str(error):
            raise
        if "NoneType" in str(error):
            raise InputError(
                "a value of the dataset's items is missing (None); leave these rows out, as by dataset.filter, or the "
                "column: rows without labels can be asked, not remembered"
            ) from error
        raise InputError(
            f"the dataset's items cannot be put into one batch: {error}. Expected tensors of one size: set_transform "
            "(or set_format) with the model's processor, or a DataLoader whose collate_fn makes them, such as "
            "transformers' DataCollatorWithPadding(tokenizer)"
        ) from error


def _rows(values: Any, cut: slice, dtype: torch.dtype | None) -> Tensor:
    rows = values[cut]
    if isinstance(rows, Tensor):
        return rows
    rows = as_tensor(np.asarray(rows))
    return rows.to(dtype) if rows.is_floating_point() and dtype is not None else rows


def _is_many(data: Any) -> bool:
    """Whether it is a tuple, or a dict by name, of arrays."""
    if not isinstance(data, (tuple, Mapping)) or not len(data):
        return False
    return all(isinstance(part, (Tensor, np.ndarray)) and part.ndim for part in _parts(data))


def _parts(data: Any) -> Iterable[Any]:
    return data.values() if isinstance(data, Mapping) else data


def _warn_if_random(dataset: Any) -> None:
    first = dataset[0]
    if not all(_same(first, dataset[0]) for _ in range(_READS - 1)):
        warn(
            "two reads of the dataset's first item differ, as under random augmentation: what is remembered depends on "
            "chance; encode with the evaluation transform (views may be added on purpose, with the same ids)"
        )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, Tensor) or hasattr(one, "__array__") or hasattr(one, "__array_interface__"):
        a, b = np.asarray(one), np.asarray(other)
        return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    return not isinstance(one, (int, float, str)) or one == other
