"""A reader whose shares depend on the query: votes of several widths, and a text's own past, in one gate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor

from residua.caution import warn
from residua.core import (
    Array,
    Base,
    Change,
    Encoded,
    LabelValues,
    Logits,
    Neighbours,
    Prediction,
    Queries,
    Softmax,
    Term,
    Values,
)
from residua.errors import ParameterError, TaskError
from residua.memory import Memory
from residua.readers.cache import usual_theta
from residua.readers.evidence import USUAL
from residua.readers.gate import OF_PAST, OF_VOTES, SHARPNESSES, WIDTHS, Experts, Mixture, Shares
from residua.readers.neighbour import NeighbourReader, positive, weigh, whole
from residua.readers.past import CacheState
from residua.readers.reader import OWN, Exclude, TextState, of_one_moment, register_reader

Form: TypeAlias = Literal["gate", "tempered"]
FORMS = ("gate", "tempered")
MUCH = 2.0  # times as many rows as were there when the gate was fitted, or as few


@register_reader
class Gated(NeighbourReader):
    """Mix a model with its neighbours' labels, in shares that depend on the query, and that ``fit`` finds.

    The neighbours vote under three widths at once; how much each vote counts is learned from how near the nearest
    neighbour is, how sure the model is, and how far the neighbours agree with each other and with the model. What the
    same text said before may vote as well, in the same gate. Probabilities are the scores, and always sum to 1.

    Parameters
    ----------
    memory : Memory
        Of classes or tokens; any storage: only labels are read.
    k : int, optional
        Neighbours; 0 is the model alone. None: 1024, or all rows where there are fewer.
    sigma : float, optional
        The square of the distance that widths and nearness are measured by; the widths are 1/8, 1/2 and 2 of it. None:
        of the median nearest-neighbour distance in the memory.
    form : {"tempered", "gate"}, optional
        ``"gate"`` is a mixture, whose contributions are exact; ``"tempered"`` has one number more, and better
        probabilities: what it adds to a class is shared by the neighbours that name it. None: ``"tempered"``, but
        ``"gate"`` under a cache, where the other takes minutes to fit and gains little.
    cache : int, optional
        How many rows back the same text is remembered, as by a ``ContinuousCache``. None: not at all.
    theta : float, optional
        How sharp that is, as of a ``ContinuousCache``.
    shares : Shares, optional
        The numbers that ``fit`` finds.

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
    >>> reader = rs.Gated(rs.Memory(rows(500))).fit(rows(2000))
    >>> reader.evidence_.used, bool(rs.evaluate(reader, rows(500)).accuracy > 0.9)
    (True, True)
    """

    default_k: int = 1024

    form: Form
    cache: int | None
    theta: float
    shares: Shares | None

    def __init__(
        self,
        memory: Memory | None = None,
        k: int | None = None,
        sigma: float | None = None,
        *,
        form: Form | None = None,
        cache: int | None = None,
        theta: float | None = None,
        shares: Shares | None = None,
    ):
        super().__init__(memory, k, sigma, 1.0, "gaussian")
        if self.memory.task != "classification":
            raise TaskError(
                f"a gate mixes probabilities of classes, and this is a {self.memory.task} memory; read it with ResMem "
                "or KNNLM"
            )
        form = form or ("tempered" if cache is None else "gate")
        if form not in FORMS:
            raise ParameterError(f"form={form!r}; expected one of {FORMS}")
        if shares is not None and not isinstance(shares, Shares):
            raise ParameterError(f"shares={shares!r}; expected what fit found, a Shares, or None")
        self.form = form
        self.cache = None if cache is None else whole("cache", cache, 1, "a whole number of rows >= 1, or None")
        needed = cache is not None and theta is None
        self.theta = usual_theta(self.memory) if needed else positive("theta", 1.0 if theta is None else theta)
        self.shares = shares
        experts, features = self._shape
        if shares is not None and shares.weights and [len(w) for w in shares.weights] != [features] * experts:
            raise ParameterError(
                f"the shares have weights of {[len(w) for w in shares.weights]}; with cache={cache} there are "
                f"{experts} experts, of {features} weights each: fit it again"
            )

    @property
    def _shape(self) -> tuple[int, int]:
        """How many experts, and features."""
        past = self.cache is not None
        return len(WIDTHS) + past * len(SHARPNESSES), OF_VOTES + past * OF_PAST

    @property
    def is_noop(self) -> bool:
        return super().is_noop or (self.shares is not None and not self.shares.weights)

    @property
    def floor(self) -> float:
        return 0.0  # a mixture is a probability as it is

    def values(self, queries: int) -> Values:
        return LabelValues(self.memory.column("label"))

    def start(self) -> CacheState | None:
        if self.cache is None or self.is_noop:
            return None
        return CacheState(self.cache, tuple(by * self.theta for by in SHARPNESSES), self.memory.device)

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
        blocks = super().read(keys, logits, excluded, depth=depth)
        if self.is_noop:
            yield from blocks
            return
        self._check_fitted()
        if self.cache is not None and not isinstance(state, CacheState):
            raise ParameterError(
                "what a Gated with a cache says depends on the text before: read its rows in order, with the state "
                "that reader.start() gives"
            )
        for rows, now in blocks:
            if isinstance(state, CacheState) and isinstance(now.base, Softmax):
                own = {"documents": documents, "tokens": tokens}
                past = state.look_back(keys[rows].float(), **{n: v if v is None else v[rows] for n, v in own.items()})
                here = now.near, now.base, past
                now = replace(now, weigh=lambda here=here: self._mixed(*here))
            yield rows, now

    def change(self, neighbours: Neighbours, queries: Queries, values: Values | None = None) -> Change:
        return self._mixed(neighbours, queries.base)

    def _mixed(self, near: Neighbours, base: Base, past: tuple[Term, ...] = ()) -> Mixture:
        assert self.shares is not None and isinstance(base, Softmax)  # as the constructor and ``read`` made sure
        near, own = near.first(self.k), self.row_weights(near)
        votes = torch.stack([weigh(near, by * self.sigma, self._kernel, own) for by in WIDTHS])
        values = LabelValues(self.memory.column("label"))
        labels = values.weighted(near.rows.clamp_min(0), votes[0])[0]
        experts = Experts.of(base, near, votes, labels, self.sigma, past)
        scale, weights = experts.mixed(self.shares)
        terms = (Term(near.rows, weights[0], values), *(replace(one, weights=w) for one, w in zip(past, weights[1:])))
        return Mixture(scale, terms, experts=experts)

    def _check_fitted(self) -> None:
        shares, now = self.shares, len(self.memory)
        if shares is None:
            raise ParameterError("this Gated has no shares yet: fit it first, reader.fit(documents)")
        if shares.rows and not shares.rows / MUCH <= now <= shares.rows * MUCH:
            warn(
                f"this gate was fitted when the memory had {shares.rows:,} rows, and it has {now:,} now: what is near "
                "has changed; fit it again"
            )

    @of_one_moment
    def fit(
        self,
        validation: Encoded | Iterable[Encoded] | None = None,
        *,
        exclude: Exclude = OWN,
        evidence: float | None = USUAL,
        progress: bool | None = None,
    ) -> Self:
        """Find the shares, on rows that are not remembered, or on the memory's own, each as if its own id were not.

        Constant shares, shares by query, and these tempered are fitted on every other document (or row), and judged on
        those between, both ways; the best is then fitted on all. It is used where it is better than the model alone
        beyond doubt.

        Parameters
        ----------
        validation : Encoded or iterable of Encoded, optional
            Labelled rows, of two documents or more. Documents that are remembered are read without their own rows.
            None: rows of the memory, which must have kept what the model said; ``rs.lm.fit`` reads text again.
        exclude : "own", None, or int array of shape (n,) or (n, m)
            As for ``rs.tune``.
        evidence : float or None, default 1.96
            How sure the gain must be on rows not fitted on, in standard errors, as of ``rs.tune``; else the reader is
            the model alone.
        progress : bool, optional
            A bar: always, or never; by default only on a terminal, after a second.

        Returns
        -------
        Gated
            The reader itself, with its ``shares``, and ``evidence_``.

        Raises
        ------
        InputError, LabelError, ParameterError, EmptyMemoryError, StorageError
        """
        from residua.readers.gate_fit import fitted  # and scipy's statistics, which reading needs not

        experts, features = self._shape
        even = Shares([[0.0] * features] * experts)
        self.shares, self.evidence_, self.tuned_on_ = fitted(
            self.with_params(shares=even), validation, self.form == "tempered", exclude, evidence, progress
        )
        return self

    @classmethod
    def from_json(cls, params: dict[str, Any], memory: Memory) -> Self:
        shares = params["shares"]
        return super().from_json(params | {"shares": None if shares is None else Shares.from_json(shares)}, memory)
