"""A reader without neighbours: a student that has learned what they say answers in their place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from residua.core import (
    Array,
    Change,
    DenseLogits,
    Encoded,
    HeadLogits,
    Logits,
    Neighbours,
    Prediction,
    Softmax,
    TableValues,
    Term,
)
from residua.core.logits import rows_at_once
from residua.core.probabilities import TINY
from residua.errors import IdError, MemoryFileError, ParameterError, StorageError, TaskError
from residua.memory import Memory
from residua.memory.arguments import excluded_ids
from residua.memory.merging import ids_held
from residua.memory.schema import unit
from residua.readers.familiarity import Familiarity
from residua.readers.neighbour import FEW, positive
from residua.readers.reader import OWN, Exclude, Reader, TextState, misshapen, register_reader
from residua.readers.student import Student

ENTRIES = 2**20  # scores made at a time: what one step leaves is in the cache for the next
CURE = "distil again, from the memory as it is: rs.distil(reader)"


@register_reader
class Distilled(Reader):
    """Answer by a student that ``rs.distil`` has taught what a memory's neighbours say: no index, no search.

    With the student's logits s of a query's key, a mixture is ``(1 - lmbda) * softmax(f(x)/T) + lmbda * softmax(s)``
    (MLP Memory, arXiv 2508.01832), and a residual read-out ``softmax(f(x)/T + gamma * s)``. A student knows the rows
    that it learned, and these alone: once the memory has changed, it refuses to answer.

    Parameters
    ----------
    memory : Memory
        The one that it learned.
    student : Student
        What ``rs.distil`` made.
    lmbda : float in [0, 1], optional
        The student's share, of a mixture. 1: the student alone. None: 0.25.
    gamma : float >= 0, optional
        How much of s is added, of a residual read-out. None: 1.
    temperature : float, default 1.0
        T.

    Raises
    ------
    ParameterError, TaskError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> rng = np.random.default_rng(0)
    >>> def rows(n):
    ...     keys = rng.normal(size=(n, 2))
    ...     return rs.Encoded(keys, np.zeros((n, 2)), (keys[:, 0] > 0).astype(int))
    >>> reader = rs.distil(rs.KNNLM(rs.Memory(rows(300)), k=10), epochs=10).with_params(lmbda=1.0)
    >>> bool(rs.evaluate(reader, rows(500)).accuracy > 0.9)
    True
    """

    student: Student
    lmbda: float | None
    gamma: float | None

    def __init__(
        self,
        memory: Memory | None = None,
        student: Student | None = None,
        *,
        lmbda: float | None = None,
        gamma: float | None = None,
        temperature: float = 1.0,
    ):
        if not isinstance(memory, Memory):
            raise ParameterError(f"got a {type(memory).__name__} where a Memory is expected: rs.Memory(encoded)")
        check_task(memory)
        if not isinstance(student, Student):
            raise ParameterError(f"got a {type(student).__name__} where a Student is expected: rs.distil makes readers")
        if (student.dim, student.outputs) != (memory.dim, memory.n_outputs):
            raise ParameterError(
                f"the student reads keys of {student.dim} and knows {student.outputs} classes; this memory has keys of "
                f"{memory.dim} and {memory.n_outputs} classes; {CURE}"
            )
        other = "gamma" if student.readout == "mixture" else "lmbda"
        if (gamma if other == "gamma" else lmbda) is not None:
            raise ParameterError(
                f"{other} is given, and this student has learned a {student.readout}; give its share by "
                f"{'lmbda' if other == 'gamma' else 'gamma'}, or distil with another readout"
            )
        self.memory, self.student, self.k = memory, student.to(memory.device), 0
        self.temperature = positive("temperature", temperature)
        self.lmbda = self.gamma = None
        if student.readout == "mixture":
            self.lmbda = _share("lmbda", 0.25 if lmbda is None else lmbda, 1.0, "a share from 0 to 1")
        else:
            self.gamma = _share("gamma", 1.0 if gamma is None else gamma, np.inf, "a finite number >= 0")

    @property
    def share(self) -> str:
        """By what name the student's share is given: ``"lmbda"`` or ``"gamma"``."""
        return "gamma" if self.lmbda is None else "lmbda"

    @property
    def has_neighbours(self) -> bool:
        return False

    @property
    def is_noop(self) -> bool:
        return getattr(self, self.share) == 0

    @property
    def learned(self) -> dict[str, Tensor]:
        self._require_known()
        return {f"student.{name}": tensor for name, tensor in self.student.numbers.items()}

    @property
    def bytes_per_row(self) -> dict[str, int]:
        return self.memory.bytes_per_row | {"reader": self.student.nbytes // max(self.memory.n_rows, 1)}

    def read(
        self,
        keys: Tensor,
        logits: Logits,
        excluded: Array | None = None,
        *,
        depth: int = 0,
        state: TextState | None = None,
        documents: Array | None = None,
        tokens: Array | None = None,
    ) -> Iterator[tuple[slice, Prediction]]:
        memory = self.memory
        if keys.ndim != 2 or (keys.shape[1], *logits.shape) != (memory.dim, len(keys), memory.n_outputs):
            raise misshapen(memory, keys, logits)
        if not self.is_noop:
            self._require_known()
            self._require_strangers(excluded, len(keys))
        base = Softmax(DenseLogits(logits.dense()) if isinstance(logits, HeadLogits) else logits, self.temperature)
        if depth:  # somebody wants to know what is near, which the student does not
            near = memory.search(keys, depth, excluded)
        else:
            none = torch.empty(len(keys), 0, device=memory.device)
            near = Neighbours(none.long(), none)
        step = rows_at_once(memory.n_outputs, memory.device, ENTRIES)
        for start in range(0, len(keys), step):
            rows = slice(start, start + step)
            yield rows, self.answered(base[rows], near[rows], None if self.is_noop else self.says(keys[rows]))

    def says(self, keys: Tensor) -> Tensor:
        """The student's logits s, float32 (q, L), of keys (q, d)."""
        keys = keys.to(self.memory.device)
        return self.student(unit(keys) if self.memory.schema.normalise else keys)

    def answered(self, base: Softmax, near: Neighbours, said: Tensor | None) -> Prediction:
        """What the student's logits `said` (q, L), None where it has no say, make of the base."""
        space = "probability" if self.lmbda is not None else "logit"
        if said is None:
            return Prediction(base, near, None, 0.0, None, space)

        def weigh() -> Change:
            if self.lmbda is None:
                given, left, table = self.gamma or 0.0, 1.0, said
            else:
                given, left, table = self.lmbda, 1 - self.lmbda, torch.softmax(said, dim=1)
            own = torch.arange(len(said), device=said.device)[:, None]  # each query is told one thing
            weights = torch.full(own.shape, given, device=said.device)
            return Change(torch.full_like(weights, left), (Term(own, weights, _Taught(table), "student"),), space)

        return Prediction(base, near, weigh, 0.0, None, space)

    def at_once(self, keys: Tensor, logits: Tensor) -> Tensor | None:
        if not 0 < len(keys) == len(logits) <= FEW or logits.shape[1] != self.memory.n_outputs or self.is_noop:
            return None
        if logits.dtype != torch.float32 or keys.shape[1] != self.memory.dim or logits.device != self.memory.device:
            return None
        self._require_known()
        said, gauge = self.says(keys), torch.logsumexp(logits, dim=1, keepdim=True)
        base = logits if self.temperature == 1 else logits / self.temperature
        if self.gamma is not None:
            return torch.log_softmax(torch.add(base, said, alpha=self.gamma), dim=1).add_(gauge)
        assert self.lmbda is not None
        mixed = torch.lerp(torch.softmax(base, dim=1), torch.softmax(said, dim=1), self.lmbda)
        return mixed.clamp_min_(TINY).log_().add_(gauge)

    def familiarity(self, data: Encoded | Iterable[Encoded], exclude: Exclude = OWN) -> Familiarity:
        """``ParameterError``: a student knows no distance to what it learned, and knew its own rows by heart."""
        raise ParameterError(
            "a Distilled has no neighbours, and cannot tell what is far from them; ask the reader that it learned from"
        )

    def _require_known(self) -> None:
        """That the memory is the one that the student learned."""
        now = self._kept("rows", (), lambda: rows_of(self.memory))
        if now != self.student.rows:
            then = self.student.rows.partition(" ")[0]
            raise StorageError(
                f"this student learned {then} rows, and the memory has changed since (it has {len(self.memory)} now): "
                f"what was forgotten is not forgotten in the student, and what was added is unknown to it; {CURE}"
            )

    def _require_strangers(self, excluded: Array | None, queries: int) -> None:
        if excluded is None or not queries:
            return
        ids = excluded_ids(excluded, queries).unique().numpy()
        known = ids[np.isin(ids, self._kept("ids", (), lambda: np.unique(ids_held(self.memory))))]
        if len(known):
            raise IdError(
                f"id {known[0]} is to be excluded and is remembered: a student has learned from every row, and cannot "
                "answer as if some were not there. Ask the reader that it learned from, or answer all the same with "
                "exclude=None"
            )

    @classmethod
    def from_json(cls, params: dict[str, Any], memory: Memory) -> Self:
        about = dict(params["student"])
        numbers = about.pop("learned", None)
        if numbers is None:
            raise MemoryFileError("the student's numbers are missing; restore them from a copy, or distil again")
        return super().from_json(params | {"student": Student.from_json(about, numbers)}, memory)


class _Taught(TableValues):
    """Each query's own row of a table (q, L)."""

    def add_to(self, scores: Tensor, rows: Tensor, weights: Tensor) -> None:
        scores += self.table.to(scores.device) * weights.to(scores)


def check_task(memory: Memory) -> None:
    """``TaskError`` unless the memory is of classes (or tokens)."""
    if memory.task != "classification":
        raise TaskError(
            f"a student learns a vote among classes, and this is a {memory.task} memory; read it with ResMem"
        )


def rows_of(memory: Memory) -> str:
    """Which rows a memory remembers: how many, and a digest of ids, labels, and how many were ever added."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (memory.ids, memory.labels, np.int64(sum(event.added for event in memory.log()))):
        digest.update(np.ascontiguousarray(part).tobytes())
    return f"{len(memory)} {digest.hexdigest()}"


def _share(name: str, value: float, most: float, expected: str) -> float:
    fits = isinstance(value, Real) and not isinstance(value, bool) and 0 <= value <= most and value < np.inf
    if not fits:
        raise ParameterError(f"{name}={value!r}; expected {expected}")
    return float(value)
