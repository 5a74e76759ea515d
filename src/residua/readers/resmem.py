"""ResMem (arXiv 2302.01576): add the neighbours' residuals to what the model says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, one_hot

from residua.core import DenseLogits, Few, LabelValues, Logits, Neighbours, Queries, TableValues, TopLogits, Values
from residua.errors import ParameterError, StorageError, TaskError
from residua.memory import Memory
from residua.memory.storage import NO_LOGITS
from residua.readers.few import Plain, Residuals
from residua.readers.neighbour import NOTICE, Kernel, KernelName, NeighbourReader, positive
from residua.readers.reader import register_reader

Space: TypeAlias = Literal["probabilities", "exponent"]
SPACES: tuple[Space, ...] = get_args(Space)
TABLE = 64_000_000  # float32 entries of the largest residual table worth keeping: 256 MB
BLOCK = 16_000_000  # float32 entries of one temporary: 64 MB


@register_reader
class ResMem(NeighbourReader):
    """Correct a model by the residuals of the nearest remembered examples.

    Classification (ResMem, eq. 7-8): ``scores(x) = softmax(f(x)/T) + sum_i w_i (onehot(y_i) - softmax(f(x_i)/T))``,
    over the k nearest rows, with ``w_i`` proportional to ``exp(-distance_i / sigma)`` and summing to 1.
    Regression (eq. 3-4): ``f(x) + sum_i w_i (y_i - f(x_i))``. With ``space="exponent"`` the same residuals are added to
    log-probabilities, ``p(x)`` proportional to ``exp(a log softmax(f(x)/T) + b sum_i w_i (onehot(y_i) -
    softmax(f(x_i)/T)))``: as accurate, and calibrated.

    Parameters
    ----------
    memory : Memory
        With stored logits (any storage but ``"none"``).
    k : int, optional
        Neighbours; 0 is the base itself. None: 50, or all rows where there are fewer.
    sigma : float, optional
        Kernel width, in the keys' distance (squared for ``kernel="gaussian"``). None: the median nearest-neighbour
        distance in the memory, measured now.
    temperature : float, default 1.0
        The base softmax's T, for queries and remembered rows alike.
    kernel : {"exponential", "gaussian"} or Kernel, default "exponential"
        ``exp(-d/sigma)``, the paper's; ``exp(-d²/sigma)``; or your own.
    space : {"probabilities", "exponent"}, default "probabilities"
        Where residuals are added. Scores in the exponent are logits, and probabilities their softmax, or of several
        labels each one's sigmoid; ``rs.tune`` chooses T and b.
    base_weight, residual_weight : float > 0, optional
        The exponent's a and b; None: 1.
    epsilon : float, optional
        Share of the base's probability that ``predict_proba`` never goes below; None: 1/L. Not in the exponent, where
        nothing is negative.
    skip : float in (0, 1], optional
        Queries whose base (at T) gives one class at least this probability are not searched and stay the base's.
    class_weight : "balanced", dict of int to float, or None
        How much remembered rows of each class weigh; ``"balanced"`` is n / (L * the class's rows), a class that a dict
        lacks weighs 1. None: as the model's classes weighed when it was fitted, where ``encode`` could see it, else
        all alike. A model of weighted classes speaks of other class shares than its rows have, and residuals that are
        not weighed likewise take that back. ``{}``: all weigh alike.

    Raises
    ------
    ParameterError, TaskError, StorageError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> keys = np.array([[0.0], [1.0], [10.0]])
    >>> memory = rs.Memory(rs.Encoded(keys, np.zeros((3, 2)), [0, 1, 1]))
    >>> reader = rs.ResMem(memory, k=1, sigma=1.0)
    >>> reader.scores(rs.Encoded([[0.1], [9.0]], np.zeros((2, 2)))).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    default_k: int = 50

    space: Space
    base_weight: float | None
    residual_weight: float | None

    def __init__(
        self,
        memory: Memory | None = None,
        k: int | None = None,
        sigma: float | None = None,
        temperature: float = 1.0,
        *,
        kernel: KernelName | Kernel = "exponential",
        space: Space = "probabilities",
        base_weight: float | None = None,
        residual_weight: float | None = None,
        epsilon: float | None = None,
        skip: float | None = None,
        class_weight: Mapping[int, float] | str | None = None,
    ):
        super().__init__(memory, k, sigma, temperature, kernel, epsilon, skip, class_weight)
        if space not in SPACES:
            gone = "; space='exponent' has taken the place of 'logits'" if space == "logits" else ""
            raise ParameterError(f"space={space!r}; expected one of {SPACES}{gone}")
        if space == "exponent" and self.memory.task == "regression":
            raise TaskError("space='exponent' is for classes, and this is a regression memory; leave space out")
        self.space = space
        for name, weight in (("base_weight", base_weight), ("residual_weight", residual_weight)):
            if weight is not None and space != "exponent":
                raise ParameterError(f"{name}={weight!r}, and space={space!r}; expected space='exponent' beside it")
            setattr(self, name, None if weight is None else positive(name, weight))
        if self.k:
            self.memory.storage.require(self.temperature)

    @property
    def score_space(self) -> str:
        return "probability" if self.space == "probabilities" else "logit"

    def columns(self, neighbours: Neighbours, queries: Queries, values: Values | None = None) -> tuple[Tensor, Tensor]:
        """What the exponent adds up, float32 (2, q, L): the base's logits / T, and the neighbours' residual; and which
        queries, bool (q,), have neighbours."""
        weights = self.weights(neighbours, queries)
        start = queries.base.logits.dense().to(weights.device) / self.temperature
        residual = torch.zeros_like(start)
        values = self.values(len(neighbours)) if values is None else values
        values.add_to(residual, neighbours.rows.clamp_min(0), weights)
        return torch.stack([start, residual]), weights.sum(dim=1) > 0

    def share(self, neighbours: Neighbours, queries: Queries) -> tuple[float | Tensor, float | Tensor]:
        return self._shares

    @property
    def _shares(self) -> tuple[float, float]:
        return self.base_weight or 1.0, self.residual_weight or 1.0

    def few(self, plain: Plain) -> Few | None:
        memory, labels = self.memory, self.memory.column("label")
        said = None if memory.stored_logits is None else plain.said(memory.stored_logits)
        in_logits = self.space == "exponent"
        return None if said is None else Residuals(plain, plain.labels(labels), said, self._shares, in_logits)

    def native_reading(self) -> dict[str, Any] | None:
        logits = self.memory.stored_logits
        table = logits.table if isinstance(logits, DenseLogits) else None
        if not isinstance(table, Tensor) or table.dtype != torch.float32 or not table.is_contiguous():
            return None
        left, given = self._shares
        return dict(said=table, in_logits=self.space == "exponent", left=left, given=given)

    def values(self, queries: int) -> Values:
        memory = self.memory
        labels, logits = memory.column("label"), memory.stored_logits
        if logits is None:
            raise StorageError(NO_LOGITS)
        # A table of all residuals costs one softmax over the memory: worth it for a batch, not for one query.
        small = isinstance(logits, DenseLogits) and len(labels) * logits.shape[1] <= TABLE
        if memory.task == "classification" and not (small and self._pays(queries)):
            return ResidualValues(labels, logits, self.temperature)
        return TableValues(self._kept("table", (self.temperature,), lambda: self._residuals(labels, logits)))

    def _made(self, params: dict[str, Any]) -> Self:
        made, table = super()._made(params), vars(self).get("_made_once", {}).get("table")
        if table is not None and made.temperature == self.temperature:  # it knows its version of the memory itself
            vars(made)["_made_once"] = {"table": table}
        return made

    def _pays(self, queries: int) -> bool:
        made = vars(self).get("_made_once", {}).get("table", (None,))
        return made[0] == (self.memory.version, self.temperature) or queries * self.k >= self.memory.n_rows // 4

    def _residuals(self, labels: Tensor, logits: Logits) -> Tensor:
        """Every row's, (n, L)."""
        if self.memory.task == "regression":
            return labels - logits.dense()
        if self.memory.task == "multi-label":
            return labels[:].float() - torch.sigmoid(logits.dense() / self.temperature)
        return residual_table(labels, logits, self.temperature)


class ResidualValues(Values):
    """Row i says ``onehot(labels[i]) - softmax(logits[i] / T)`` (ResMem, eq. 7), made when it is read, each once.

    With top-m logits, entries that were not kept read as 0.
    """

    labels: LabelValues
    logits: Logits
    temperature: float
    width: int | None

    def __init__(self, labels: Tensor, logits: Logits, temperature: float):
        self.labels, self.logits, self.temperature = LabelValues(labels), logits, temperature
        self.width = logits.ids.shape[1] + 1 if isinstance(logits, TopLogits) else None

    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.logits, TopLogits):
            classes, said = self._kept(self.logits, rows)
            own, one = self.labels.entries(rows)
            return torch.cat([own, classes], dim=1), torch.cat([one, -said], dim=1)
        said = self.logits.probabilities(rows, self.temperature)
        values = one_hot(self.labels.labels[rows].long(), said.shape[1]) - said
        return torch.arange(said.shape[1], device=rows.device).expand(said.shape), values

    def add_to(self, scores: Tensor, rows: Tensor, weights: Tensor) -> None:
        entries = self.logits.ids.shape[1] if isinstance(self.logits, TopLogits) else scores.shape[1]
        step = max(1, BLOCK // (rows.shape[1] * entries))
        for some, near, given in zip(scores.split(step), rows.split(step), weights.split(step)):
            some += self._sum(some, near, given)  # a view: in place

    def _sum(self, scores: Tensor, near: Tensor, given: Tensor) -> Tensor:
        """Two sums that cancel first, so that no residual is no change, exactly."""
        change = torch.zeros_like(scores)
        self.labels.add_to(change, near, given)
        if isinstance(self.logits, TopLogits):
            classes, said = self._kept(self.logits, near.reshape(-1))
            said = (said * given.reshape(-1, 1)).reshape(len(near), -1)
            return change.sub_(torch.zeros_like(change).scatter_add_(1, classes.reshape(len(near), -1), said))
        once, where = near.unique(return_inverse=True)
        said = self.logits.probabilities(once, self.temperature)
        return change.sub_(embedding_bag(where, said, mode="sum", per_sample_weights=given))

    def _kept(self, logits: TopLogits, rows: Tensor) -> tuple[Tensor, Tensor]:
        kept = logits.rows(rows)
        said = (kept.values.float() / self.temperature - kept.logsumexp(None, self.temperature)[:, None]).exp()
        return kept.ids.long(), said


def residual_table(labels: Tensor, logits: Logits, temperature: float) -> Tensor:
    """Every row's residual at once (n, L)."""
    table = torch.threshold_(logits.probabilities(None, temperature), NOTICE, 0).neg_()
    rows = torch.arange(len(table), device=table.device)
    table[rows, labels.long()] += 1
    return table
