"""ResMem (arXiv 2302.01576): add the neighbours' residuals to what the model says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, one_hot

from residua.core import DenseLogits, LabelValues, Logits, TableValues, TopLogits, Values
from residua.errors import ParameterError, StorageError, TaskError
from residua.memory import Memory
from residua.memory.storage import NO_LOGITS
from residua.readers.neighbour import NOTICE, Kernel, KernelName, NeighbourReader
from residua.readers.reader import register_reader

Space: TypeAlias = Literal["probabilities", "logits"]
SPACES: tuple[Space, ...] = get_args(Space)
TABLE = 64_000_000  # float32 entries of the largest residual table worth keeping: 256 MB
BLOCK = 16_000_000  # float32 entries of one temporary: 64 MB


@register_reader
class ResMem(NeighbourReader):
    """Correct a model by the residuals of the nearest remembered examples.

    Classification (ResMem, eq. 7-8): ``scores(x) = softmax(f(x)/T) + sum_i w_i (onehot(y_i) - softmax(f(x_i)/T))``,
    over the k nearest rows, with ``w_i`` proportional to ``exp(-distance_i / sigma)`` and summing to 1.
    Regression (eq. 3-4): ``f(x) + sum_i w_i (y_i - f(x_i))``.

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
    space : {"probabilities", "logits"}, default "probabilities"
        ``"logits"``: residuals are ``m_{y_i} - f(x_i)``, with ``m_c`` the mean logits of the remembered rows of class
        c; scores are logits, and probabilities their softmax at T (the paper's section 5, our reading).
    epsilon : float, optional
        Share of the base's probability that ``predict_proba`` never goes below; None: 1/L.
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

    def __init__(
        self,
        memory: Memory | None = None,
        k: int | None = None,
        sigma: float | None = None,
        temperature: float = 1.0,
        *,
        kernel: KernelName | Kernel = "exponential",
        space: Space = "probabilities",
        epsilon: float | None = None,
        skip: float | None = None,
        class_weight: Mapping[int, float] | str | None = None,
    ):
        super().__init__(memory, k, sigma, temperature, kernel, epsilon, skip, class_weight)
        if space not in SPACES:
            raise ParameterError(f"space={space!r}; expected one of {SPACES}")
        self.space = space
        if space == "logits":
            if self.memory.task != "classification":
                raise TaskError(
                    f"space='logits' is for classification; a {self.memory.task} memory adds plain residuals"
                )
            if self.memory.storage.name not in ("full", "head"):
                raise StorageError(f"space='logits' needs full logits; this memory stores {self.memory.storage.name!r}")
        elif self.k:
            self.memory.storage.require(self.temperature)
        self._table: tuple[tuple[int, float, Space], Tensor] | None = None

    @property
    def score_space(self) -> str:
        return "probability" if self.space == "probabilities" else "logit"

    def values(self, queries: int) -> Values:
        memory = self.memory
        made_of = (memory.version, self.temperature, self.space)
        if self._table is not None and self._table[0] == made_of:
            return TableValues(self._table[1])
        labels, logits = memory.column("label"), memory.stored_logits
        if logits is None:
            raise StorageError(NO_LOGITS)
        # A table of all residuals costs one softmax over the memory: worth it for a batch, not for one query.
        fits = isinstance(logits, DenseLogits) and len(labels) * logits.shape[1] <= TABLE
        if memory.task == "regression":
            table = labels - logits.dense()
        elif memory.task == "multi-label":
            table = labels[:].float() - torch.sigmoid(logits.dense() / self.temperature)
        elif self.space == "logits":
            if memory.schema.model_outputs is not None:
                raise StorageError(
                    "space='logits' moves logits towards their class's mean, and the model has none for classes that "
                    "were added to this memory; use space='probabilities'"
                )
            table = class_means(labels, logits, memory.active_rows)[labels] - logits.dense()
        elif fits and queries * self.k >= len(labels) // 4:
            table = residual_table(labels, logits, self.temperature)
        else:
            return ResidualValues(labels, logits, self.temperature)
        self._table = (made_of, table)
        return TableValues(table)


def class_means(labels: Tensor, logits: Logits, active: Tensor) -> Tensor:
    """Mean logits (L, L) of each class's `active` rows; zeros where it has none."""
    dense, own = logits.dense(active), labels[active].long()
    sums = dense.new_zeros(logits.shape[1], logits.shape[1]).index_add_(0, own, dense)
    return sums / torch.bincount(own, minlength=logits.shape[1]).clamp_min(1)[:, None]


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
    table = logits.probabilities(None, temperature)
    table = table.masked_fill_(table < NOTICE, 0).neg_()
    rows = torch.arange(len(table), device=table.device)
    table[rows, labels] += 1
    return table
