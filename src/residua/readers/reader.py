"""What every reader of a memory shares: search, weigh, change, combine."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from residua.core import Change, Encoded, Logits, Neighbours, Softmax, Values, batches
from residua.core.logits import as_tensor
from residua.errors import IdError, MemoryFileError, ParameterError, ShapeError, TaskError
from residua.memory import Memory
from residua.memory.folder import write_json
from residua.readers.kernel import check_kernel, weigh
from residua.readers.tokens import Stream

QUERIES = 2048  # queries read at a time, so that temporaries stay small
FILE = "reader.json"  # a saved reader's parameters, beside the memory's own files


class Reader(ABC):
    """A memory, and how to read it. Parameters are attributes; ``with_params`` gives a changed copy.

    In tensors, on the memory's device, a prediction is ``change(memory.search(keys, k)).apply(base(logits))``, where
    the gate lets it through; ``combine`` does that, and the public methods do it for NumPy batches.
    """

    #: names of the parameters, in the constructor's order
    names: tuple[str, ...] = ("k", "sigma", "temperature", "kernel", "epsilon", "gate")
    #: whether a prediction depends on the rows before it
    stateful = False
    #: whether what rows say may be negative
    signed = True

    def __init__(self, memory: Memory, k: int, sigma, temperature, kernel: str, epsilon, gate):
        if not isinstance(memory, Memory):
            raise ParameterError(f"got a {type(memory).__name__} where a Memory is expected: rs.Memory(encoded)")
        if not isinstance(k, Real) or isinstance(k, bool) or not float(k).is_integer() or k < 0:
            raise ParameterError(f"k={k!r}; expected a whole number >= 0 (0 is no memory: the base itself)")
        if k > len(memory):
            raise ParameterError(f"k={k}, and the memory has {len(memory)} rows; choose k <= {len(memory)}")
        self.memory, self.k, self.kernel = memory, int(k), check_kernel(kernel)
        if sigma is None:
            sigma = memory.typical_distance() if k else 1.0
            sigma = sigma**2 if kernel == "gaussian" else sigma
        self.sigma = positive("sigma", sigma)
        self.temperature = positive("temperature", temperature)
        if epsilon is not None and not (isinstance(epsilon, Real) and 0 < epsilon <= 1):
            raise ParameterError(f"epsilon={epsilon!r}; expected a number in (0, 1], or None for 1/L")
        self.epsilon = None if epsilon is None else float(epsilon)
        if gate is not None and not (isinstance(gate, Real) and 0 < gate <= 1):
            raise ParameterError(f"gate={gate!r}; expected a probability in (0, 1], or None to search every row")
        if gate is not None and memory.task == "regression":
            raise ParameterError("a gate compares probabilities; a regression memory has none, leave gate=None")
        self.gate = None if gate is None else float(gate)

    # --- what a reader is -------------------------------------------------------------------------------------

    @abstractmethod
    def values(self, queries: int) -> Values:
        """What the memory's rows say; `queries` neighbourhoods will be read with it."""

    @property
    def entries_per_neighbour(self) -> int | None:
        """How many outputs a row speaks of; None is all of them."""
        return None

    @property
    def temperature_moves_scores(self) -> bool:
        """Whether another temperature can change which class scores best."""
        return self.memory.task == "classification"

    @property
    def temperature_moves_values(self) -> bool:
        """Whether another temperature changes what the rows say."""
        return False

    def base(self, logits: Logits) -> Tensor:
        """The base's own scores (q, L), float32: softmax(f / T), or predictions for regression."""
        if self.memory.task == "regression":
            return logits.dense()
        return logits.probabilities(None, self.temperature)

    def share(self, neighbours: Neighbours | None = None) -> tuple[float | Tensor, float | Tensor]:
        """(what is left of the base, what multiplies normalised weights), where there are neighbours: numbers, or
        float32 tensors (q, 1) where the neighbours decide."""
        return 1.0, 1.0

    def weights(self, neighbours: Neighbours) -> Tensor:
        """Normalised weights (q, k): the kernel's, times the rows' own ``weight`` column if they carry one."""
        own = None
        if "column.weight" in self.memory.table:
            own = self.memory.table["column.weight"][neighbours.rows.clamp_min(0)]
        return weigh(neighbours, self.sigma, self.kernel, own)

    def change(self, neighbours: Neighbours) -> Change:
        """How these neighbours change a prediction."""
        weights = self.weights(neighbours)
        left, given = self.share(neighbours)
        scale = torch.where(weights.sum(dim=1, keepdim=True) > 0, left, 1.0)  # no neighbours: the base
        return Change(scale, neighbours.rows, weights * given, self.values(len(neighbours)))

    def probabilities(self, scores: Tensor, base: Tensor) -> Tensor:
        """Scores made probabilities: max(scores, epsilon * p_T), renormalised; up to epsilon = 1/L, the largest score's
        class stays the likeliest."""
        proper = torch.maximum(scores, self.floor * base)
        return proper / proper.sum(dim=1, keepdim=True)

    @property
    def floor(self) -> float:
        """The share of the base's probability that no class goes below: epsilon, or 1/L where that is None."""
        return 1 / self.memory.n_outputs if self.epsilon is None else self.epsilon

    def asked(self, base: Softmax) -> Tensor | None:
        """The queries (their numbers, int64, on the memory's device) that the gate lets through to the memory; None is
        all of them."""
        if self.gate is None:
            return None
        return (base.best.log_prob.exp() < self.gate).nonzero()[:, 0].to(self.memory.device)

    def shut(self, logits: Logits) -> Tensor:
        """Bool (q,): the queries that the gate keeps from the memory."""
        shut = torch.ones(len(logits), dtype=torch.bool, device=self.memory.device)
        return shut.index_fill_(0, self.asked(Softmax(logits, self.temperature)), False)

    def gated(self, neighbours: Neighbours, logits: Logits) -> Neighbours:
        """`neighbours`, without those of queries that the gate keeps from the memory."""
        if self.gate is None:
            return neighbours
        shut = self.shut(logits)[:, None]
        return Neighbours(neighbours.rows.masked_fill(shut, -1), neighbours.distances.masked_fill(shut, torch.inf))

    def combine(self, keys: Tensor, logits: Logits, exclude_ids=None) -> tuple[Tensor, Tensor]:
        """(scores, the base's own scores), float32 (q, L) tensors on the memory's device; they may be one tensor."""
        base = self.base(logits).to(self.memory.device)
        if self.k == 0 or len(self.memory) == 0:
            return base, base
        asked = self.asked(Softmax(logits, self.temperature))
        if asked is None or len(asked) == len(base):
            return self.change(self.memory.search(keys, self.k, exclude_ids)).apply(base), base
        if not len(asked):
            return base, base
        excluded = None if exclude_ids is None else np.asarray(exclude_ids)[asked.cpu().numpy()]
        neighbours = self.memory.search(keys[asked.to(keys.device)], self.k, excluded)
        return base.index_copy(0, asked, self.change(neighbours).apply(base[asked])), base

    @property
    def idle(self) -> bool:
        """Whether the memory has no say at all: k = 0, or nothing remembered."""
        return self.k == 0 or len(self.memory) == 0

    def stream(self) -> Stream:
        """Token by token: sparse probabilities over a vocabulary, for texts in order."""
        return Stream(self)

    # --- NumPy in, NumPy out ----------------------------------------------------------------------------------

    def scores(self, data: Encoded | Iterable[Encoded], exclude_ids=None) -> np.ndarray:
        """The changed scores.

        Parameters
        ----------
        data : Encoded or iterable of Encoded
            Queries; labels are not needed.
        exclude_ids : int array of shape (n,) or (n, m), optional
            Ids whose rows are not neighbours of each query, such as its own when it is remembered.

        Returns
        -------
        float32 array of shape (n, L)
            Classification: rows sum to 1 and may leave [0, 1] (logits in ``space="logits"``).
            Regression: predictions, of the targets' shape.

        Raises
        ------
        ShapeError, TaskError, SourceMismatchError
            When the queries do not fit the memory, or come from another model.
        """
        read = [scores.cpu().numpy() for scores, _ in self.read(data, exclude_ids)]
        scores = np.concatenate(read) if read else np.empty((0, self.memory.n_outputs), np.float32)
        return scores[:, 0] if self.memory.task == "regression" and self.memory.flat_labels else scores

    def predict(self, data: Encoded | Iterable[Encoded], exclude_ids=None) -> np.ndarray:
        """Class indices int64 (n,), or the predictions of a regression memory."""
        scores = self.scores(data, exclude_ids)
        return scores if self.memory.task == "regression" else scores.argmax(axis=1)

    def predict_proba(self, data: Encoded | Iterable[Encoded], exclude_ids=None) -> np.ndarray:
        """Probabilities float32 (n, L): ``max(scores, epsilon * p_T)`` renormalised (epsilon: 1/L by default).

        Always positive where the base's are, so log-loss is finite. With ``epsilon`` up to 1/L the argmax is that of
        ``scores``, whose largest is at least 1/L.

        Raises
        ------
        TaskError
            For a regression memory.
        """
        if self.memory.task != "classification":
            raise TaskError("a regression memory has no class probabilities; call predict")
        read = [self.probabilities(scores, base).cpu().numpy() for scores, base in self.read(data, exclude_ids)]
        return np.concatenate(read) if read else np.empty((0, self.memory.n_outputs), np.float32)

    def read(self, data: Encoded | Iterable[Encoded], exclude_ids=None) -> Iterator[tuple[Tensor, Tensor]]:
        """(scores, the base's own scores), float32 (b, L) tensors on the memory's device, block by block."""
        excluded = None if exclude_ids is None else np.asarray(exclude_ids)
        start = 0
        for batch in batches(data):
            self.check(batch)
            for first in range(0, len(batch), QUERIES):
                part = batch[first : first + QUERIES] if len(batch) > QUERIES else batch
                own = None if excluded is None else excluded[start : start + len(part)]
                start += len(part)
                yield self.combine(as_tensor(part.keys), part.logits, own)
        if excluded is not None and len(excluded) != start:
            raise IdError(f"exclude_ids have {len(excluded)} rows for {start} queries; expected one row per query")

    def check(self, batch: Encoded) -> None:
        """Raise when a batch cannot be a query of this memory."""
        memory = self.memory
        if batch.task is not None and batch.task != memory.task:
            raise TaskError(f"{batch.task} data for a {memory.task} memory")
        if (batch.dim, batch.n_outputs) != (memory.dim, memory.n_outputs):
            raise ShapeError(
                f"queries with keys of {batch.dim} and {batch.n_outputs} outputs; this memory has keys of "
                f"{memory.dim} and {memory.n_outputs} outputs"
            )
        if memory.source is not None:
            memory.source.require(batch.source)

    # --- parameters -------------------------------------------------------------------------------------------

    @property
    def params(self) -> dict:
        """The parameters by name, as the constructor takes them."""
        return {name: getattr(self, name) for name in self.names}

    def with_params(self, **changed) -> Reader:
        """A reader of the same class and memory with some parameters changed."""
        unknown = set(changed) - set(self.names)
        if unknown:
            raise ParameterError(f"{type(self).__name__} has no parameter {sorted(unknown)}; it has {self.names}")
        if "k" in changed:
            return type(self)(self.memory, **{**self.params, **changed})
        # Forgetting may have left fewer than k rows: no error here, as it is none when reading.
        other = type(self)(self.memory, **{**self.params, **changed, "k": min(self.k, len(self.memory))})
        other.k = self.k
        return other

    def to_json(self) -> dict:
        """The reader without its memory, in JSON types."""
        params = {n: v.to_json() if hasattr(v, "to_json") else v for n, v in self.params.items()}
        return {"reader": type(self).__name__, "params": params}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.params.items() if value is not None)
        return f"{type(self).__name__}({self.memory!r}, {shown})"

    def save(self, path: str | os.PathLike) -> None:
        """Save the memory into folder `path`, and these parameters beside it; ``rs.load(path)`` gives both back.

        Raises
        ------
        MemoryFileError
            As ``Memory.save``.
        """
        self.memory.save(path)
        try:
            write_json(Path(path) / FILE, self.to_json())
        except OSError as error:
            raise MemoryFileError(f"cannot write {Path(path) / FILE}: {error.strerror or error}") from error


def positive(name: str, value) -> float:
    """`value` as a float, if it is finite and > 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ParameterError(f"{name}={value!r}; expected a finite number > 0")
    return number
