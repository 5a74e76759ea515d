"""The pooled reader: votes of several widths, and what the model says of the same neighbours, in one exponent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from residua.caution import warn
from residua.core import Change, Encoded, Few, LabelValues, Logits, Neighbours, Queries, TableValues, Term, Values
from residua.core.probabilities import TINY
from residua.errors import ParameterError, StorageError, TaskError
from residua.memory import Memory
from residua.memory.storage import NO_LOGITS
from residua.readers import few
from residua.readers.evidence import USUAL
from residua.readers.few import LEAST, Plain
from residua.readers.neighbour import Kernel, KernelName, NeighbourReader, positive, weigh, whole
from residua.readers.reader import OWN, Exclude, of_one_moment, register_reader
from residua.readers.seen import Seen, watched

WIDTHS = (0.1, 0.3, 1.0)  # multiples of the typical distance
MOST = 64  # widths
UNHEARD = 0.05  # times the model's probability: u, what a class has that no neighbour names
MUCH = 2.0  # times as many rows as were there when the coefficients were fitted, or as few


@register_reader
class Pooled(NeighbourReader):
    """Add to a model's log-probabilities what its neighbours' labels say under several widths, and take away what the
    model says of the same neighbours, each as much as ``fit`` finds.

    Classification: with ``v = sum_i w_i onehot(y_i)`` and ``q = sum_i w_i softmax(f(x_i)/T)`` of each width, and
    ``u = softmax(f(x)/T) / 20``, scores are logits: a weighted sum of f(x)/T, and of log(1 + v/u), log(1 + q/u), v and
    q of every width. Regression: f(x), and a weighted sum of the neighbours' mean residual under each width.

    Parameters
    ----------
    memory : Memory
        Of classes or numbers, with stored logits.
    k : int, optional
        Neighbours; 0 is the model alone. None: 200, or all rows where there are fewer.
    widths : sequence of float, optional
        Kernel widths, each as ``sigma`` of ``ResMem``. None: 0.1, 0.3 and 1 times the median nearest-neighbour distance
        in the memory, measured now (their squares for ``kernel="gaussian"``).
    temperature, kernel, skip, class_weight
        As for ``ResMem``.
    coefficients : sequence of float, optional
        What ``fit`` finds: of the model's logits, then four of each width; of a regression, one of each width.
    fitted_rows : int, optional
        How many rows the memory had then. When it has twice as many, or half, a warning says to fit again.

    Raises
    ------
    ParameterError, TaskError, StorageError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> rng = np.random.default_rng(0)
    >>> def rows(n):
    ...     keys = rng.normal(size=(n, 2))
    ...     return rs.Encoded(keys, rng.normal(size=(n, 2)), (keys[:, 0] > 0).astype(int))
    >>> reader = rs.Pooled(rs.Memory(rows(500))).fit()
    >>> reader.evidence_.used, bool(rs.evaluate(reader, rows(500)).accuracy > 0.9)
    (True, True)
    """

    default_k: int = 200

    widths: list[float]
    coefficients: list[float] | None
    fitted_rows: int | None

    def __init__(
        self,
        memory: Memory | None = None,
        k: int | None = None,
        widths: Sequence[float] | None = None,
        temperature: float = 1.0,
        *,
        kernel: KernelName | Kernel = "exponential",
        coefficients: Sequence[float] | None = None,
        fitted_rows: int | None = None,
        skip: float | None = None,
        class_weight: Mapping[int, float] | str | None = None,
    ):
        super().__init__(memory, k, 1.0, temperature, kernel, None, skip, class_weight)
        task, schema = self.memory.task, self.memory.schema
        if task == "multi-label" or schema.is_text:
            what, read = (
                ("of several labels", "ResMem(memory, space='exponent')")
                if task == "multi-label"
                else ("of text", "Gated(memory)")
            )
            raise TaskError(f"Pooled is for classes and for numbers, and this is a memory {what}; read it with {read}")
        if self.k:
            self.memory.storage.require(self.temperature)
        if widths is None:
            typical = self.memory.median_nn_distance() if self.k else 1.0
            widths = [self._kernel.typical_sigma(by * typical) for by in WIDTHS]
        self.widths = [positive("a width", width) for width in widths]
        if not 0 < len(self.widths) <= MOST:
            raise ParameterError(f"{len(self.widths)} widths; expected 1 to {MOST} kernel widths, or widths=None")
        self.sigma = self.widths[len(self.widths) // 2]
        expected = len(self.widths) if task == "regression" else 1 + 4 * len(self.widths)
        if coefficients is not None and len(coefficients) != expected:
            raise ParameterError(f"{len(coefficients)} coefficients for {len(self.widths)} widths; expected {expected}")
        self.coefficients = None if coefficients is None else [float(one) for one in coefficients]
        if not all(map(math.isfinite, self.coefficients or ())):
            raise ParameterError(f"coefficients={self.coefficients}; expected finite numbers")
        rows = "a whole number of rows, or None"
        self.fitted_rows = None if fitted_rows is None else whole("fitted_rows", fitted_rows, 0, rows)

    @property
    def is_noop(self) -> bool:
        if self.coefficients is None:
            return super().is_noop
        first, *others = [1.0, *self.coefficients] if self.memory.task == "regression" else self.coefficients
        return super().is_noop or (first == 1 and not any(others))

    @property
    def score_space(self) -> str:
        return "probability" if self.memory.task == "regression" else "logit"

    def values(self, queries: int) -> Values:
        labels, logits = self.memory.column("label"), self.memory.stored_logits
        if logits is None:
            raise StorageError(NO_LOGITS)
        return TableValues(labels - logits.dense()) if self.memory.task == "regression" else Said(labels, logits)

    def columns(self, neighbours: Neighbours, queries: Queries, values: Values | None = None) -> Tensor:
        """What the coefficients weigh, float32 (1 + 4 widths, q, L); of a regression float64 (widths, q, m)."""
        values = self.values(len(neighbours)) if values is None else values
        if isinstance(values, Said):
            return self._pool(neighbours, queries, values).columns()
        by_width = self._by_width(neighbours).double()
        out = by_width.new_zeros(len(by_width), len(neighbours), self.memory.n_outputs)
        for each, weights in zip(out, by_width):
            values.add_to(each, neighbours.rows.clamp_min(0), weights)
        return out

    def change(self, neighbours: Neighbours, queries: Queries, values: Values | None = None) -> Change:
        coefficients, rows = self._checked_coefficients(), neighbours.rows
        values = self.values(len(neighbours)) if values is None else values
        if isinstance(values, Said):
            pool = self._pool(neighbours, queries, values)
            term = PooledTerm(rows, pool.weights.mean(dim=0), values, pool=pool, coefficients=coefficients)
            return Change(torch.where(pool.heard, coefficients[0], 1.0)[:, None], (term,), "logit")
        by_width = self._by_width(neighbours).double()
        weights = torch.tensordot(by_width.new_tensor(coefficients), by_width, 1)
        return Change(weights.new_ones(len(rows), 1), (Term(rows, weights, values),))

    def few(self, plain: Plain) -> Few | None:
        logits, coefficients = self.memory.stored_logits, self._checked_coefficients()
        said = None if logits is None or min(self.widths) < LEAST else plain.said(logits)
        if said is None:
            return None
        labels = plain.labels(self.memory.column("label"))
        return few.Pooled(plain, labels, said, self.widths, coefficients, UNHEARD)

    def _by_width(self, neighbours: Neighbours) -> Tensor:
        """Weights float32 (widths, q, k), of a sum of 1 under each width."""
        own = self.row_weights(neighbours)
        return torch.stack([weigh(neighbours, width, self._kernel, own) for width in self.widths])

    def _pool(self, neighbours: Neighbours, queries: Queries, values: Said) -> Pool:
        start = queries.base.logits.dense().to(neighbours.rows.device) / self.temperature
        return Pool.of(self._by_width(neighbours), neighbours.rows.clamp_min(0), values, start, self.temperature)

    def _checked_coefficients(self) -> list[float]:
        then, now = self.fitted_rows, len(self.memory)
        if self.coefficients is None:
            raise ParameterError("this Pooled has no coefficients yet; fit it first: reader.fit(), or fit(validation)")
        if then and not then / MUCH <= now <= then * MUCH:
            warn(
                f"this Pooled was fitted when the memory had {then:,} rows, and it has {now:,} now: neighbours are "
                "nearer or further than they were; fit it again"
            )
        return self.coefficients

    @of_one_moment
    def fit(
        self,
        validation: Encoded | Iterable[Encoded] | None = None,
        *,
        calibration: Encoded | Iterable[Encoded] | None = None,
        exclude: Exclude = OWN,
        evidence: float | None = USUAL,
        progress: bool | None = None,
    ) -> Self:
        """Find the coefficients: a convex problem, solved in seconds.

        They are used where they are better than the model alone, at its own best temperature, beyond doubt: on rows
        that they were not fitted on, fold by fold.

        Parameters
        ----------
        validation : Encoded or iterable of Encoded, optional
            Labelled rows that are not remembered. None: at most 8 000 of the memory's own, each as if it (and all of
            its id) were not there. The model has often learned these, and is then too sure of them.
        calibration : Encoded or iterable of Encoded, optional
            A few labelled rows that are neither remembered nor in `validation`: all coefficients are multiplied by the
            number that serves these best, which is one temperature.
        exclude : "own", None, or int array of shape (n,) or (n, m)
            As for ``rs.tune``; of validation rows alone.
        evidence : float or None, default 1.96
            How sure the gain must be, in standard errors, as of ``rs.tune``; else the reader is the model alone.
        progress : bool, optional
            A bar: always, or never; by default only on a terminal, after a second.

        Returns
        -------
        Pooled
            The reader itself, with its ``coefficients`` and ``evidence_``.

        Raises
        ------
        InputError, LabelError, ParameterError, EmptyMemoryError, StorageError
        """
        from residua.readers.pooled_fit import fitted  # and scipy's optimisers, which reading needs not

        seen = list[Seen]()
        validation, calibration = watched(validation, seen), watched(calibration, seen)
        self.coefficients, self.evidence_ = fitted(self, validation, calibration, exclude, evidence, progress)
        self.fitted_rows, self.tuned_on_ = len(self.memory), Seen.join(seen)
        return self


class Said(Values):
    """What the model says of rows, and their labels."""

    signed: bool = True

    def __init__(self, labels: Tensor, logits: Logits):
        self.labels, self.logits = LabelValues(labels), logits

    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.labels.entries(rows)


@dataclass(frozen=True)
class Pool:
    """What the neighbours of q queries, and the model at these neighbours, say of L classes under S widths."""

    weights: Tensor  # float32 (S, q, k)
    rows: Tensor  # int64 (q, k)
    values: Said
    temperature: float
    start: Tensor  # float32 (q, L): the model's logits / T
    unheard: Tensor  # float32 (q, L): u
    votes: Tensor  # float32 (S, q, L): v
    said: Tensor  # float32 (S, q, L): q

    @classmethod
    def of(cls, weights: Tensor, rows: Tensor, values: Said, start: Tensor, temperature: float) -> Self:
        """From weights (S, q, k) of rows (q, k), and the model's logits / T."""
        votes = start.new_zeros(len(weights), *start.shape)
        for each, given in zip(votes, weights):
            values.labels.add_to(each, rows, given)
        once, which = rows.unique(return_inverse=True)
        table = values.logits.probabilities(once, temperature)
        said = torch.stack(
            [embedding_bag(which, table, mode="sum", per_sample_weights=given.to(table.dtype)) for given in weights]
        )
        unheard = UNHEARD * torch.softmax(start, dim=1).clamp_min(TINY / UNHEARD)
        return cls(weights, rows, values, temperature, start, unheard, votes, said)

    @property
    def heard(self) -> Tensor:
        """Bool (q,): the queries that have neighbours."""
        return self.weights[0].sum(dim=1) > 0

    def columns(self) -> Tensor:
        """Float32 (1 + 4 S, q, L): the model's logits, and of each width both logarithms, v and q."""
        logs = (torch.log1p(part / self.unheard) for part in (self.votes, self.said))
        by_width = torch.stack([*logs, self.votes, self.said], dim=1)
        return torch.cat([self.start[None], by_width.flatten(0, 1)])

    def shares(self, query: int, coefficients: list[float]) -> Tensor:
        """What each neighbour adds to one query's scores, float32 (k, L): its part of each term."""
        table = self.values.logits.probabilities(self.rows[query], self.temperature)
        own = torch.zeros_like(table).scatter_(1, self.values.labels.entries(self.rows[query])[0], 1.0)
        of_votes, of_said, u = torch.zeros_like(own), torch.zeros_like(own), self.unheard[query]
        for s, (log_v, log_q, v, q) in enumerate(_by_four(coefficients)):
            votes, said, weights = self.votes[s, query], self.said[s, query], self.weights[s, query][:, None]
            of_votes += weights * (v + log_v * _per_unit(votes, u))
            of_said += weights * (q + log_q * _per_unit(said, u))
        return own * of_votes + table * of_said


def _by_four(coefficients: list[float]) -> list[list[float]]:
    """The four coefficients of each width."""
    return [coefficients[start : start + 4] for start in range(1, len(coefficients), 4)]


def _per_unit(part: Tensor, unheard: Tensor) -> Tensor:
    """``log(1 + part/u) / part``, or 0 where nothing is shared."""
    return torch.where(part > 0, torch.log1p(part / unheard) / part.clamp_min(TINY), 0.0)


@dataclass(frozen=True)
class PooledTerm(Term):
    """All that is added to the model's logits. Its logarithms are no sum over neighbours: each neighbour has the share
    that its part of v (or of q) has, so that the shares add up to the term."""

    pool: Pool = field(kw_only=True)
    coefficients: list[float] = field(kw_only=True)

    shared: ClassVar[bool] = True

    @property
    def width(self) -> None:
        return None

    def add_to(self, scores: Tensor) -> None:
        columns = self.pool.columns()[1:]
        scores += torch.tensordot(columns.new_tensor(self.coefficients[1:]), columns, 1)

    def entries(self) -> tuple[Tensor, Tensor]:
        added = torch.zeros_like(self.pool.start)
        self.add_to(added)
        return torch.arange(added.shape[1], device=added.device).expand(added.shape), added

    def contributions(self, query: int) -> tuple[Tensor, Tensor]:
        shares = self.pool.shares(query, self.coefficients)
        return torch.arange(shares.shape[1], device=shares.device).expand(shares.shape), shares
