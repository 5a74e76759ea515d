"""What a row of a memory is: learned from the first rows, and the same for all that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from residua.core import ArrayLike, Encoded, Source, Task, as_tensor
from residua.core.naming import check_order, checked_classes, named_classes
from residua.errors import InputError, LabelError, NonFiniteError, ShapeError, TaskError
from residua.memory.table import alike

KeyDtype: TypeAlias = Literal["float32", "float16", "bfloat16"]
Objective: TypeAlias = Literal["accuracy", "log_loss", "conservative", "squared_error"]  # "better", in a word
Scorer: TypeAlias = Callable[[Any, Any, np.ndarray], float]  # of an estimator, X and y, as scikit-learn's
KEY_DTYPES: dict[KeyDtype, torch.dtype] = {name: getattr(torch, name) for name in get_args(KeyDtype)}
CLASS_DTYPES: tuple[torch.dtype, ...] = (torch.int8, torch.int16, torch.int32)
_PLAIN = (
    "task",
    "dim",
    "n_outputs",
    "flat_labels",
    "key_dtype",
    "storage",
    "normalise",
    "model_outputs",
)  # JSON types as they are
# A column whose mean is within so many standard deviations of 0 is kept as it is. Further out, exact search could vouch
# for fewer of its answers: its bound grows with the keys' norms (with 1 for 0.5, up to six times as many had doubts).
_SPREADS = 0.5
_MANY = 20  # distinct keys
_SQUARE_ROOT_OF_LEAST = 1e-18  # the square of a smaller number loses digits in float32, or is 0


@dataclass(frozen=True, eq=False)
class Schema:
    """What every row of one memory has in common.

    Keys are kept as differences from a float64 centre, regression targets and predictions from another: what is large
    beside its spread, such as a time stamp, would lose its digits in float32. Centres are 0 where that costs nothing.

    Examples
    --------
    >>> import numpy as np
    >>> seconds = 1.7e9 + np.arange(4.0)[:, None] * 128
    >>> schema = Schema.of(Encoded(seconds, np.zeros((4, 2)), [0, 1, 0, 1]))
    >>> schema.key_centre.tolist(), schema.centred(seconds)[:, 0].tolist()
    ([1700000256.0], [-256.0, -128.0, 0.0, 128.0])
    """

    task: Task
    dim: int  # d, the width of a key
    n_outputs: int  # L, classes or regression outputs
    flat_labels: bool  # whether labels have shape (n,), not (n, m)
    columns: dict[str, tuple[str, tuple[int, ...]]]  # the extra columns: dtype, and shape of one row
    key_dtype: KeyDtype  # what the differences of keys are stored as
    key_centre: Tensor  # float64 (d,), on the CPU
    target_centre: Tensor | None  # float64 (L,), on the CPU; None unless this is a regression
    storage: dict[str, Any]  # what is kept of the logits, as `describe_storage` says it
    model_outputs: int | None = None  # those of the model, where classes were added to them; None: all
    normalise: bool = False  # whether keys are divided by their Euclidean length before all else
    source: Source | None = None  # whose keys these are, where that is known
    classes: tuple[str, ...] | None = None  # what the classes (or outputs) are called, where that is known

    @classmethod
    def of(
        cls,
        batch: Encoded,
        *,
        key_dtype: KeyDtype = "float32",
        storage: dict[str, Any] | None = None,
        normalise: bool = False,
    ) -> Self:
        """The schema of a memory that begins with the labelled rows of `batch`; ``LabelError``, ``InputError``."""
        labels, task = labelled(batch)
        for name in {"key", "label", "id"} & set(batch.columns):
            raise InputError(f"an extra column is called {name!r}, as one of the memory's own: give it another name")
        numbers, keys = task == "regression", as_tensor(batch.keys)
        return cls(
            task=task,
            dim=batch.dim,
            n_outputs=batch.n_outputs,
            flat_labels=labels.ndim == 1,
            columns={name: (column.dtype.name, column.shape[1:]) for name, column in batch.columns.items()},
            key_dtype=key_dtype,
            key_centre=centre_of(unit(keys) if normalise else keys),
            target_centre=centre_of(as_tensor(labels).reshape(len(batch), -1)) if numbers else None,
            storage=storage or {"name": "full"},
            normalise=bool(normalise),
            source=batch.source,
            classes=batch.classes,
        )

    @property
    def is_text(self) -> bool:
        """Whether rows are a language model's next tokens: classes with a column ``offset``."""
        return self.task == "classification" and "offset" in self.columns

    @property
    def objective(self) -> Objective:
        """What a reader is tuned for unless another objective is named."""
        return "squared_error" if self.task == "regression" else "log_loss" if self.is_text else "accuracy"

    @property
    def label_dtype(self) -> torch.dtype:
        """What labels are kept as: classes in the smallest signed integers that hold them all (unsigned ones torch
        would take for a mask), several labels as bool, targets as float32."""
        if self.task != "classification":
            return torch.bool if self.task == "multi-label" else torch.float32
        return next(dtype for dtype in CLASS_DTYPES if self.n_outputs - 1 <= torch.iinfo(dtype).max)

    @property
    def largest_key(self) -> float:
        """How far from the centre a number of a key may be: it fits its dtype, and distances between keys float32."""
        # Two rows are at most twice as far from each other as the further one is from the centre.
        squared = torch.finfo(torch.float32).max / (4 * self.dim)
        return min(torch.finfo(KEY_DTYPES[self.key_dtype]).max, squared**0.5)

    def grown(self, n_outputs: int) -> Self:
        """The same with more classes; ``ShapeError`` for fewer, or where there are no classes."""
        if self.task != "classification" or n_outputs < self.n_outputs:
            raise ShapeError(f"{n_outputs} outputs for a {self.task} memory of {self.n_outputs}; only classes can grow")
        more = tuple(map(str, range(self.n_outputs, n_outputs)))
        grown = {"n_outputs": n_outputs, "classes": self.classes and self.classes + more}
        return replace(self, **grown, model_outputs=self.model_outputs or self.n_outputs)

    def widened(self, batch: Encoded) -> Encoded:
        """Rows of the model with columns for the classes that it has never heard of; others as they are."""
        return batch.grown(self.n_outputs) if self.lacks_classes(batch.n_outputs) else batch

    def lacks_classes(self, n_outputs: int) -> bool:
        """Whether so many outputs are the model's own, or those of a time with fewer classes."""
        return self.model_outputs is not None and self.model_outputs <= n_outputs < self.n_outputs

    def check(self, batch: Encoded) -> Self:
        """Refuse rows that do not fit; the schema of all rows with these, which may know their source or names at last.

        Raises ``LabelError``, ``TaskError``, ``ShapeError``, ``InputError`` or ``SourceMismatchError``.
        """
        labelled(batch)
        self._check(
            batch,
            "rows",
            "rows",
            "; memory.add(rows, new_classes=True) takes in classes that the model has no output for",
        )
        if batch.columns.keys() != self.columns.keys():
            own = list(self.columns)
            raise InputError(f"rows bring columns {sorted(batch.columns)}; this memory's rows have {own}")
        for name, column in batch.columns.items():
            dtype, shape = self.columns[name]
            if column.shape[1:] != shape or not np.can_cast(column.dtype, dtype):
                given = f"column {name!r} has rows of shape {column.shape[1:]} and dtype {column.dtype}"
                raise InputError(f"{given}; this memory's are of shape {shape} and dtype {dtype}")
        known = self.source or batch.source, self.classes or batch.classes
        return self if known == (self.source, self.classes) else replace(self, source=known[0], classes=known[1])

    def check_query(self, batch: Encoded) -> None:
        """Refuse rows that cannot be queries, which need no labels: another task, another width, another model."""
        self._check(batch, "data", "queries")

    def _check(self, batch: Encoded, data: str, rows: str, hint: str = "") -> None:
        if batch.task is not None and batch.task != self.task:
            hint = "; rows that name one label each look like classes, say task='multi-label' when you encode them"
            shown = hint if (batch.task, self.task) == ("classification", "multi-label") else ""
            raise TaskError(f"{batch.task} {data} for a {self.task} memory{shown}")
        if (batch.dim, batch.n_outputs) != (self.dim, self.n_outputs):
            wanted = f"this memory has keys of {self.dim} and {self.n_outputs} outputs{hint}"
            raise ShapeError(f"{rows} with keys of {batch.dim} and {batch.n_outputs} outputs; {wanted}")
        if self.classes != batch.classes:  # nearly always they are the same, or None
            check_order(self.classes, batch.classes)
        if self.source is not None and self.source is not batch.source:
            self.source.require(batch.source)
        if self.normalise:
            largest_magnitudes(as_tensor(batch.keys))

    def rows(self, batch: Encoded, ids: np.ndarray) -> dict[str, Tensor]:
        """A batch as columns of the table; classes in their ``label_dtype``, where ``Encoded`` holds int64.

        ``NonFiniteError`` for keys too far from the centre for the key dtype, or for float32 squared distances, or so
        near to each other that these are zero.
        """
        keys, dtype = self.centred(batch.keys), KEY_DTYPES[self.key_dtype]
        limit = self.largest_key
        largest = float(keys.abs().max()) if keys.numel() else 0.0
        if not largest <= limit:
            advice = "use key_dtype='bfloat16'" if self.key_dtype == "float16" else "scale them"
            row, column = divmod(int(keys.abs().argmax()), self.dim)
            what = f"keys as far as {largest:.3g} from the centre do not fit {self.key_dtype} distances"
            raise NonFiniteError(f"{what} (row {row}, column {column}); {advice}")
        least = max(_SQUARE_ROOT_OF_LEAST, 8 * torch.finfo(dtype).tiny)
        if 0 < largest < least:
            raise NonFiniteError(
                f"keys that differ by no more than {2 * largest:.3g} are all the same to {self.key_dtype} distances; "
                "scale them"
            )
        stored = keys.to(dtype)
        if self.key_dtype != "float32" and _collapsed(keys, stored):
            raise NonFiniteError(
                f"different keys become the same in {self.key_dtype}: they differ by too little beside their size; "
                "use key_dtype='float32', or centre and scale them"
            )
        labels = as_tensor(labelled(batch)[0])
        extra = {name: as_tensor(batch.columns[name].astype(dtype)) for name, (dtype, _) in self.columns.items()}
        return {
            "key": stored,
            "label": self._stored(labels),
            "id": as_tensor(np.asarray(ids, np.int64)),
            "active": alike(True, len(batch)),
            **{f"column.{name}": column for name, column in extra.items()},
        }

    def _stored(self, labels: Tensor) -> Tensor:
        """Labels as the table keeps them: classes (n,), bool (n, L) of several labels, or differences."""
        return self.target_differences(labels) if self.task == "regression" else labels.to(self.label_dtype)

    def centred(self, keys: ArrayLike) -> Tensor:
        """Keys (n, d), of length 1 where they are normalised, as float32 differences from the centre, on their device;
        ``NonFiniteError`` for a key of zeros that is to be normalised."""
        table = as_tensor(keys)
        return _differences(unit(table) if self.normalise else table, self.key_centre)

    def target_differences(self, values: ArrayLike) -> Tensor:
        """Targets or predictions as float32 differences from their centre, (n, L); logits as they are."""
        differences = _differences(as_tensor(values).reshape(-1, self.n_outputs), self.target_centre)
        if self.target_centre is not None and not differences.isfinite().all():
            row, column = divmod(int(differences.isfinite().logical_not().flatten().int().argmax()), self.n_outputs)
            raise NonFiniteError(
                "targets or predictions do not fit float32, even less their centre, the first in "
                f"row {row}, column {column}; scale them"
            )
        return differences

    def targets(self, differences: Tensor) -> Tensor:
        """The inverse: float64 (n, L), on the CPU."""
        return differences.cpu().double() + (0 if self.target_centre is None else self.target_centre)

    def labels(self, labels: ArrayLike, count: int) -> Tensor:
        """New labels (classes by index or name) for `count` ids, one each or one for all, checked and as the table
        stores them."""
        labels, classes = np.asarray(labels), self.task == "classification"
        if classes and labels.dtype.kind == "U":
            labels = named_classes(labels, self.classes)
        kinds, expected = ("iub", "class indices") if classes else ("fiub", "numbers")
        if self.task == "multi-label":
            if labels.dtype.kind not in kinds or not np.isin(labels, (0, 1)).all():
                raise LabelError(
                    f"the new labels hold other than 0 and 1; expected one of them for {self.n_outputs} each"
                )
            if labels.shape not in ((self.n_outputs,), (count, self.n_outputs)):
                raise ShapeError(f"{labels.shape} labels for {count} ids; expected ({count}, {self.n_outputs})")
            return torch.from_numpy(np.broadcast_to(labels, (count, self.n_outputs)) > 0)
        if labels.dtype.kind not in kinds:
            raise LabelError(f"the new labels have dtype {labels.dtype}; expected {expected}")
        if not classes and not np.isfinite(labels).all():
            raise LabelError("the new targets hold NaN or infinity")
        if classes and labels.size and not (labels.min() >= 0 and labels.max() < self.n_outputs):
            raise LabelError(f"a new label is out of range; the memory has classes 0 ... {self.n_outputs - 1}")
        shape = (count,) if classes else (count, self.n_outputs)
        if labels.size not in (1, np.prod(shape)):
            raise ShapeError(f"{labels.shape} labels for {count} ids; expected one each")
        labels = torch.from_numpy(np.array(np.broadcast_to(labels.reshape(-1 if labels.size == 1 else shape), shape)))
        return self._stored(labels)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of JSON types; a centre of zeros is None."""
        centres = {"key_centre": self.key_centre, "target_centre": self.target_centre}
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            **{name: c.tolist() if c is not None and c.any() else None for name, c in centres.items()},
            "columns": {name: [dtype, list(shape)] for name, (dtype, shape) in self.columns.items()},
            "source": self.source and self.source.to_json(),
            **({} if self.classes is None else {"classes": list(self.classes)}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_json``."""

        def centre(name: str, width: int) -> Tensor:
            return torch.from_numpy(np.array(data[name] or [0.0] * width, np.float64).reshape(width))

        return cls(
            **{name: data[name] for name in _PLAIN if name in data},  # a folder of 0.1 or 0.2 does not say `normalise`
            key_centre=centre("key_centre", data["dim"]),
            target_centre=centre("target_centre", data["n_outputs"]) if data["task"] == "regression" else None,
            columns={name: (dtype, tuple(shape)) for name, (dtype, shape) in data["columns"].items()},
            source=data["source"] and Source.from_json(data["source"]),
            classes=checked_classes(data.get("classes"), data["n_outputs"]),
        )


def labelled(batch: Encoded) -> tuple[np.ndarray, Task]:
    """A batch's labels and task, which it has if it has labels; ``LabelError`` without."""
    if batch.labels is None or batch.task is None:
        raise LabelError("these rows have no labels; a memory keeps labelled examples")
    return batch.labels, batch.task


def written(labels: Tensor) -> Tensor:
    """Labels as files hold them: classes as int32, however many there are."""
    return labels.int() if labels.dtype in CLASS_DTYPES else labels


def _collapsed(keys: Tensor, stored: Tensor) -> bool:
    """Whether most of some keys that differ are one and the same as they are stored: of enough of them, for a few may
    be near to each other by their nature."""
    some = slice(None, None, max(1, len(keys) // 1000))
    before, after = (len(table[some].float().unique(dim=0)) for table in (keys, stored))
    return before >= _MANY and 2 * after <= before


def _differences(values: Tensor, centre: Tensor | None) -> Tensor:
    return values.float() if centre is None or not centre.any() else (values.double() - centre).float()


def largest_magnitudes(keys: Tensor) -> Tensor:
    """The largest magnitude of each key (n, 1), by which it is divided before it is squared; ``NonFiniteError`` names
    the first row that is all zeros and so has no direction."""
    largest = keys.abs().amax(dim=1, keepdim=True)
    if bool((largest == 0).any()):
        zeros = (largest[:, 0] == 0).nonzero()[:, 0]
        raise NonFiniteError(
            f"{len(zeros)} of {len(keys)} keys are all zeros, the first in row {int(zeros[0])}: they have no direction "
            "to normalise; leave these rows out, take another layer's output for the key, or use normalise=False"
        )
    return largest


def unit(keys: Tensor) -> Tensor:
    """Keys (n, d) divided by their Euclidean length; float64 stays float64, all else becomes float32."""
    keys = keys if keys.dtype == torch.float64 else keys.float()
    scaled = keys / largest_magnitudes(keys)  # neither overflows nor vanishes when it is squared
    return scaled / torch.linalg.vector_norm(scaled, dim=1, keepdim=True)


def centre_of(values: Tensor) -> Tensor:
    """What to subtract from each column of `values` (n, d) so that float32 can hold the differences, float64 (d,).

    A multiple of a power of two not above the column's standard deviation, so that no digit of a whole number is lost;
    of a column that does not vary, its value. 0 for a column whose mean is small beside its spread (beside the others'
    spread, if it has none).
    """
    parts = values.split(max(1, 2**22 // values.shape[1]))  # float64 copies stay small
    zeros = values.new_zeros(values.shape[1], dtype=torch.float64)
    mean = sum((part.sum(dim=0, dtype=torch.float64) for part in parts), zeros) / len(values)
    squares = sum(((part.double() - mean).square_().sum(dim=0) for part in parts), zeros)
    mean, spread = mean.numpy(), (squares / len(values)).sqrt().numpy()
    constant = (values == values[0]).all(dim=0).numpy()
    unit = np.ldexp(0.5, np.frexp(np.where(constant, 1.0, spread))[1])
    centre = np.where(constant, values[0].double().numpy(), np.round(mean / unit) * unit)
    spread[constant] = 0.0 if constant.all() else np.sqrt(np.square(spread[~constant]).mean())
    return torch.from_numpy(np.where(np.abs(mean) > _SPREADS * spread, centre, 0.0))
