"""Examples as a memory sees them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from residua import described
from residua.caution import warn
from residua.core.arrays import ArrayLike
from residua.core.atomic import atomic_write
from residua.core.chance import warn_if_chance
from residua.core.logits import DenseLogits, Head, HeadLogits, Logits, as_tensor, grown
from residua.core.naming import checked_classes
from residua.core.npz import read_npz
from residua.core.outputs import OutputKind, as_logits, checked_kind, kind_of, shown_kind, two_columns
from residua.core.source import Source
from residua.core.targets import one_per_row
from residua.errors import (
    IdError,
    InputError,
    LabelError,
    MemoryFileError,
    NonFiniteError,
    ParameterError,
    ShapeError,
    TaskError,
)
from residua.strict import loads

Task: TypeAlias = Literal["classification", "regression", "multi-label"]
TASKS: tuple[Task, ...] = get_args(Task)


class Encoded:
    """n examples after the model: keys, logits, and labels when known.

    Parameters
    ----------
    keys : array of shape (n, d)
        An inner layer's output. float64 stays float64, so that a memory can subtract what is large beside its spread
        (a map's metres, seconds since 1970) before it rounds; all else is float32.
    logits : array of shape (n, L), or Logits
        A classifier's logits, or a regressor's predictions. An array of probabilities (all in [0, 1], each row adds up
        to 1; or one column in [0, 1] with labels 0 and 1) or of percentages becomes its logarithm, with a
        ``UserWarning`` unless `output` says so.
    labels : array of shape (n,), optional
        Class indices (integers; one-hot rows (n, L) and a column (n, 1) are read as such), or targets (floating, of the
        predictions' shape, (n,) or (n, m)), or 0 and 1 for each of L labels that do not exclude each other, (n, L).
    ids : int array of shape (n,), optional
        The examples' names; rows may share one (views of one image, tokens of one document).
    columns : dict of str to array of shape (n, ...), optional
        What else travels with a row. ``"weight"`` (float, >= 0) multiplies its kernel weight.
    source : Source, optional
        Whose keys these are; set by ``encode``, checked wherever two meet.
    task : {"classification", "regression", "multi-label"}, optional
        Inferred: integer labels with (n, L >= 2) logits are classification, rows of 0 and 1 for (n, L) logits that name
        several labels or none multi-label, floating ones with predictions of their shape regression.
    head : Head, optional
        The last layer, when ``logits == keys @ weight.T + bias``; lets a memory store no logits.
    output : {"auto", "logits", "log-probabilities", "probabilities", "percentages", "predictions"}, default "auto"
        What the array `logits` holds; "auto" judges by all of its numbers.
    new_classes : bool, default False
        Labels may name classes that the model has no output for: logits then get a column for each, in which the model
        says 1/L of every row (see ``grown``).
    classes : sequence of str of length L, optional
        What the classes (or the regression outputs) are called, wherever one is shown.
    names : sequence of str of length n, optional
        What each example is called, such as the path of its picture.

    Raises
    ------
    ShapeError, NonFiniteError, LabelError, IdError, TaskError, ParameterError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> enc = rs.Encoded(np.eye(3), np.eye(3) * 4, [0, 1, 2])
    >>> len(enc), enc.task, enc[1:].labels.tolist()
    (3, 'classification', [1, 2])
    """

    keys: np.ndarray
    logits: Logits
    labels: np.ndarray | None
    ids: np.ndarray | None
    columns: dict[str, np.ndarray]
    source: Source | None
    task: Task | None
    head: Head | None
    new_classes: bool
    classes: tuple[str, ...] | None
    names: np.ndarray | None

    def __init__(
        self,
        keys: ArrayLike,
        logits: ArrayLike | Logits,
        labels: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        *,
        columns: Mapping[str, ArrayLike] | None = None,
        source: Source | None = None,
        task: Task | None = None,
        head: Head | None = None,
        output: OutputKind | Literal["auto"] = "auto",
        new_classes: bool = False,
        classes: Sequence[str] | None = None,
        names: Sequence[str] | np.ndarray | None = None,
    ):
        table = _array(keys)
        if table.ndim != 2 or table.shape[1] == 0:
            raise ShapeError(
                f"keys have shape {table.shape}; expected (n, d), one vector per example (pool spatial maps)"
            )
        self.keys = np.ascontiguousarray(_finite(table, "keys", wide=True))
        if isinstance(logits, Logits):
            if output != "auto":
                raise ParameterError(f"output={output!r} says what an array holds; logits are {type(logits).__name__}")
        elif (source is None and head is None) or output != "auto":
            found = understood(logits, labels, task, output)
            if output == "auto" and found.kind in ("probabilities", "percentages"):
                warn(
                    f"these logits are {found.kind}: {shown_kind(found.kind)}. Their logarithms are kept; say "
                    f"output={found.kind!r} if that is right, output='logits' if it is not"
                )
            logits, labels, task = DenseLogits(found.logits), found.labels, found.task
        else:
            logits = DenseLogits(as_tensor(_finite(_array(logits), "logits", wide=True)))
        self.logits = logits
        if len(self.logits) != len(self.keys):
            raise ShapeError(
                f"keys have {len(self.keys)} rows and logits {len(self.logits)}; expected one logit row per key"
            )
        if new_classes and (wanted := _classes_named(labels, task)) > self.logits.shape[1] > 1:
            self.logits, head = grown(self.logits, wanted), None
            logits = self.logits
        self.labels, self.task = _labels(labels, self.logits, task)
        if self.task == "classification" and isinstance(logits, DenseLogits) and logits.table.dtype == torch.float64:
            self.logits = DenseLogits(logits.table[:].float())
        n, numbers = len(self), None if ids is None else _array(ids)
        if numbers is not None and (numbers.dtype.kind not in "iu" or numbers.shape != (n,)):
            given = f"ids have dtype {numbers.dtype} and shape {numbers.shape}"
            raise IdError(f"{given}; expected integers of shape ({n},)")
        self.ids = None if numbers is None else np.ascontiguousarray(int64_ids(numbers))
        self.classes = None if classes is None else checked_classes(classes, self.n_outputs)
        self.names = _names(names, n)
        self.columns = {name: _column(name, value, n) for name, value in (columns or {}).items()}
        self.source, self.head, self.new_classes = source, head, bool(new_classes)
        if "offset" not in self.columns and not new_classes:  # of texts, each batch would say it again
            warn_if_chance(self)

    @property
    def dim(self) -> int:
        """d, the width of a key."""
        return self.keys.shape[1]

    @property
    def n_outputs(self) -> int:
        """L, the number of classes (or of regression outputs)."""
        return self.logits.shape[1]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int | slice | ArrayLike) -> Encoded:
        """Rows by integer, slice, mask or index array, as a new ``Encoded``."""
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"row {index} of {len(self)}")
            index = [int(index)]
        if isinstance(index, slice) and (index.step is None or index.step > 0):  # torch has no other views
            chosen = rows = index
        else:
            chosen = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]
            rows = as_tensor(chosen)
        out = object.__new__(Encoded)
        out.keys, out.logits = self.keys[chosen], self.logits.rows(rows)
        out.labels = None if self.labels is None else self.labels[chosen]
        out.ids = None if self.ids is None else self.ids[chosen]
        out.columns = {name: column[chosen] for name, column in self.columns.items()}
        out.task, out.source, out.head, out.new_classes = self.task, self.source, self.head, self.new_classes
        out.classes, out.names = self.classes, None if self.names is None else self.names[chosen]
        return out

    def grown(self, n_outputs: int) -> Encoded:
        """The same rows with logits of `n_outputs` classes: of each new one the model says 1/L."""
        out = self[:]
        out.logits, out.head, out.new_classes = grown(self.logits, n_outputs), None, True
        out.classes = self.classes and self.classes + tuple(map(str, range(self.n_outputs, n_outputs)))
        return out

    def __repr__(self) -> str:
        labels = "no labels" if self.labels is None else self.task
        return f"Encoded({len(self)} rows, keys of {self.dim}, {self.n_outputs} outputs, {labels})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one ``.npz`` file; a failure (``MemoryFileError``) leaves an earlier file as it was."""
        columns = {f"column.{name}": column for name, column in self.columns.items()}
        arrays: dict[str, Any] = {"keys": self.keys, "labels": self.labels, "ids": self.ids, **columns}
        arrays["names"] = self.names
        if isinstance(self.logits, HeadLogits):
            head = self.logits.head
        else:
            arrays["logits"], head = self.logits.dense(), self.head
        if head is not None:
            arrays |= {"head.weight": head.weight, "head.bias": head.bias}
        about = {"task": self.task, "source": self.source and self.source.to_json(), "new_classes": self.new_classes}
        about["classes"] = self.classes
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
        present: dict[str, Any] = {name: _array(array) for name, array in arrays.items() if array is not None}
        with atomic_write(Path(path)) as part, open(part, "wb") as file:
            np.savez(file, **present)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what ``save`` wrote (or any ``.npz`` with ``keys``, ``logits`` and perhaps ``labels``, ``ids``).

        ``MemoryFileError`` for a file that is missing, torn, not ``.npz``, or lacks keys or logits, or that would
        unpack to far more than itself; arrays that do not fit together are refused as ``Encoded`` refuses them.
        """
        arrays = read_npz(path, "an .npz with keys and logits, as Encoded.save writes it")
        try:
            about = loads(arrays.pop("about").tobytes()) if "about" in arrays else {}
            described.encoded(about)
        except ValueError as error:
            raise MemoryFileError(f"{path} does not say whose rows it holds: {error}; encode again") from error
        head = None
        if "head.weight" in arrays:
            if kinds := {arrays[name].dtype.kind for name in ("head.weight", "head.bias") if name in arrays} - {"f"}:
                raise MemoryFileError(f"{path} holds a head of dtype kind {sorted(kinds)}; expected floating numbers")
            head = Head(*(as_tensor(arrays[name]) for name in ("head.weight", "head.bias") if name in arrays))
        if "keys" not in arrays or ("logits" not in arrays and head is None):
            raise MemoryFileError(f"{path} holds {sorted(arrays)}; expected at least 'keys' and 'logits'")
        keys, labels = arrays["keys"], arrays.get("labels")
        if head is not None and not (_fits(head.weight, (None, *keys.shape[1:])) and head.weight.ndim == 2):
            raise MemoryFileError(f"{path} holds a head of {tuple(head.weight.shape)} for keys of {keys.shape}")
        if head is not None and head.bias is not None and not _fits(head.bias, head.weight.shape[:1]):
            raise MemoryFileError(
                f"{path} holds a head of {tuple(head.weight.shape)} and bias {tuple(head.bias.shape)}"
            )
        logits = HeadLogits(head, as_tensor(keys)) if head and "logits" not in arrays else arrays["logits"]
        columns = {name[7:]: column for name, column in arrays.items() if name.startswith("column.")}
        source, task = about.get("source") and Source.from_json(about["source"]), about.get("task")
        known = {"columns": columns, "source": source, "task": None if labels is None else task, "head": head}
        known["new_classes"] = about.get("new_classes", False)
        known |= {"classes": about.get("classes"), "names": arrays.get("names")}
        return cls(keys, logits, labels, arrays.get("ids"), **known)


def _fits(part: Tensor, shape: Sequence[int | None]) -> bool:
    """Whether these are finite numbers of this shape, of which None is any length."""
    alike = part.ndim == len(shape) and all(b in (a, None) for a, b in zip(part.shape, shape))
    return alike and part.is_floating_point() and bool(part.isfinite().all())


class Understood(NamedTuple):
    """A model's outputs and labels, as a memory takes them."""

    logits: Tensor  # (n, L), of as many columns as there are classes; or a regressor's predictions
    labels: np.ndarray | None
    task: Task | None
    kind: OutputKind  # what the outputs were


def understood(outputs: ArrayLike, labels: ArrayLike | None, task: Task | None, output: str) -> Understood:
    """What outputs (n,) or (n, L) and labels mean together; `output` is a kind, or "auto" for what they look like."""
    table = as_tensor(_finite(_array(outputs), "logits", wide=True))
    table = table[:, None] if table.ndim == 1 else table
    given = None if labels is None else _array(labels)
    if table.ndim != 2 or (given is not None and given.shape[:1] != table.shape[:1]):
        return Understood(table, given, task, "logits")  # which is refused where shapes are compared
    if task is None and output == "predictions":
        task = "regression"
    if given is not None:
        given = one_per_row(given, table.shape[1], task)
        task = _task_of(given, table) if task is None else task
        given = one_per_row(given, table.shape[1], task)
    classes = None if task is None else task == "classification"
    several = task == "multi-label"
    kind = kind_of(table, None if several else classes, several) if output == "auto" else checked_kind(output)
    table = as_logits(table, kind, several)
    return Understood(two_columns(table) if classes else table, given, task, kind)


def _task_of(labels: np.ndarray, table: Tensor) -> Task | None:
    """The task, where labels and outputs say it."""
    n, outputs = table.shape
    if outputs > 1 and labels.shape == (n, outputs) and _multi_hot(labels):
        return "multi-label"
    binary = labels.ndim == 1 and bool(np.isin(labels, (0, 1)).all())
    if labels.dtype.kind in "iub":
        return "classification" if outputs > 1 or binary else None
    if labels.dtype.kind != "f" or labels.size != n * outputs:
        return None
    if outputs > 1 or not np.isin(labels, (0, 1)).all() or len(np.unique(labels)) < 2 or not bool(table.any()):
        return "regression"
    if kind_of(table, classes=True) == "probabilities":
        return "classification"
    said = table.float().numpy().reshape(labels.shape)
    if np.square(said - labels).mean() < labels.var():
        return "regression"
    warn(
        "the labels are all 0.0 or 1.0, and the outputs do not predict such numbers: they are taken for logits of "
        "class 1; say task='classification' if that is right, task='regression' if it is not"
    )
    return "classification"


def _multi_hot(labels: np.ndarray) -> bool:
    """Whether all are 0 or 1, and some are 0 and some 1."""
    return (
        labels.dtype.kind in "fiub" and bool(np.isin(labels, (0, 1)).all()) and bool((labels != labels.flat[0]).any())
    )


def labels_of(rows: Encoded, why: str) -> np.ndarray:
    """The labels of some rows; a ``LabelError`` says `why` they are needed."""
    if rows.labels is None:
        raise LabelError(f"these rows have no labels; {why}")
    return rows.labels


def batches(data: Encoded | Iterable[Encoded]) -> Iterator[Encoded]:
    """The batches of an ``Encoded`` or of any iterable of them."""
    if isinstance(data, Encoded):
        yield data
        return
    if isinstance(data, (str, bytes, np.ndarray, torch.Tensor, dict)) or not isinstance(data, Iterable):
        raise InputError(
            f"got {type(data).__name__}; expected an Encoded or an iterable of them: "
            "make one with rs.encode(model, data) or rs.Encoded(keys, logits, labels)"
        )
    for batch in data:
        if not isinstance(batch, Encoded):
            raise InputError(f"an iterable gave {type(batch).__name__}; expected Encoded batches")
        yield batch


def int64_ids(ids: np.ndarray) -> np.ndarray:
    """Integers as int64; an ``IdError`` where an unsigned one is too large, for it would come out negative."""
    if ids.dtype.kind == "u" and ids.size and int(ids.max()) >= 2**63:
        raise IdError(f"ids hold {ids.max()}; expected at most 2**63 - 1 (int64): number the rows otherwise")
    return ids.astype(np.int64, copy=False)


def _array(value: ArrayLike) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach()
        half = value.is_floating_point() and value.dtype not in (torch.float32, torch.float64)  # NumPy has no bfloat16
        return (value.float() if half else value).cpu().numpy()
    return np.asarray(value)


def _finite(array: np.ndarray, name: str, wide: bool = False) -> np.ndarray:
    """The numbers as float32; with `wide`, those of 64 bits as float64."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} have dtype {array.dtype}; expected numbers")
    dtype = np.float64 if wide and (array.dtype.itemsize > 4 or array.dtype in (np.int32, np.uint32)) else np.float32
    array = array.astype(dtype, copy=False)
    finite = np.abs(array) <= np.finfo(np.float32).max  # what no float32 holds, no memory does
    if not finite.all():
        row, *column = np.argwhere(~finite)[0].tolist()
        where = f"row {row}" + "".join(f", column {place}" for place in column)
        raise NonFiniteError(
            f"{name} hold {int((~finite).sum())} NaN or infinite values (float32), the first in {where}; "
            "drop those rows or find out why the model gives them"
        )
    return array


def _labels(given: ArrayLike | None, logits: Logits, task: Task | None) -> tuple[np.ndarray | None, Task | None]:
    if task is not None and task not in TASKS:
        raise TaskError(f"task={task!r}; expected one of {TASKS}")
    if given is None:
        return None, task
    labels = _array(given)
    n, outputs = logits.shape
    if labels.shape[:1] != (n,):
        raise ShapeError(f"labels have shape {labels.shape} for {n} rows; expected ({n},)")
    if labels.dtype.kind not in "fiub":
        raise LabelError(f"labels have dtype {labels.dtype}; expected class indices or numbers (map names to indices)")
    whole = labels.dtype.kind in "iub"
    if task is None:
        if outputs > 1 and labels.shape == (n, outputs) and n and _multi_hot(labels):
            task = "multi-label"
        elif not (outputs >= 2 if whole else labels.size == n * outputs):
            raise TaskError(
                f"labels of dtype {labels.dtype} and shape {labels.shape} with logits of shape {(n, outputs)}: "
                "classification needs integer labels and (n, L >= 2) logits, regression floating labels and "
                "predictions of their shape; say which with task="
            )
        else:
            task = "classification" if whole else "regression"
    if task == "multi-label":
        if labels.shape != (n, outputs) or not np.isin(labels, (0, 1)).all():
            raise LabelError(
                f"labels have shape {labels.shape} and dtype {labels.dtype}; expected 0 or 1 for each of {outputs} "
                f"labels of {n} rows, ({n}, {outputs})"
            )
        return labels.astype(np.int8), task
    if task == "regression":
        if labels.size != n * outputs:
            raise ShapeError(f"labels {labels.shape} and predictions {(n, outputs)}; expected the same shape")
        return _finite(labels, "labels", wide=True), task
    if outputs < 2:
        raise TaskError("classification needs (n, L >= 2) logits; a single logit s is the two columns [0, s]")
    if labels.ndim != 1:
        raise LabelError(
            f"labels have shape {labels.shape}; expected one class index per row, ({n},), or 0 and 1 for each of "
            f"{outputs} labels, ({n}, {outputs})"
        )
    if not whole and not np.array_equal(labels, np.floor(labels)):
        raise LabelError("classification labels hold fractions or NaN; expected class indices")
    labels = labels.astype(np.int64)
    if n and (labels.min() < 0 or labels.max() >= outputs):
        bad = labels[(labels < 0) | (labels >= outputs)][0]
        hint = "" if bad < 0 else "; for classes that the model has no output for, pass new_classes=True"
        raise LabelError(f"label {bad} is out of range; the logits have {outputs} classes, 0 ... {outputs - 1}{hint}")
    return labels, task


def _classes_named(labels: ArrayLike | None, task: Task | None) -> int:
    """How many classes labels of classes need; 0 for other labels."""
    given = None if labels is None else _array(labels)
    classes = given is not None and given.ndim == 1 and given.dtype.kind in "iu" and task in (None, "classification")
    return int(given.max()) + 1 if given is not None and classes and len(given) else 0


def _names(given: Sequence[str] | np.ndarray | None, n: int) -> np.ndarray | None:
    if given is None:
        return None
    names = np.asarray(given)
    if names.shape != (n,) or (n and names.dtype.kind != "U"):
        raise InputError(f"names have dtype {names.dtype} and shape {names.shape}; expected {n} names, each a str")
    return names


def _column(name: str, given: ArrayLike, n: int) -> np.ndarray:
    column = np.ascontiguousarray(_array(given))
    if column.shape[:1] != (n,) or column.dtype.kind not in "fiub":
        raise ShapeError(
            f"column {name!r} has shape {column.shape} and dtype {column.dtype}; expected numbers, ({n}, ...)"
        )
    if name == "weight":
        column = _finite(column, "weights")
        if column.ndim != 1 or (n and column.min() < 0):
            raise ParameterError("column 'weight' must be one number >= 0 per row")
    return column
