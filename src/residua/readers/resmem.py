"""ResMem (arXiv 2302.01576): add the neighbours' residuals to what the model says."""

from __future__ import annotations

import torch
from torch import Tensor

from residua.core import DenseLogits, Logits, TopLogits, Values
from residua.errors import ParameterError, StorageError, TaskError
from residua.memory import Memory
from residua.readers.reader import Reader
from residua.readers.values import ResidualValues, TableValues, residual_table

SPACES = ("probabilities", "logits")
TABLE = 64_000_000  # float32 entries of the largest residual table worth keeping: 256 MB


class ResMem(Reader):
    """Correct a model by the residuals of the nearest remembered examples.

    Classification (ResMem, eq. 7-8): ``scores(x) = softmax(f(x)/T) + sum_i w_i (onehot(y_i) - softmax(f(x_i)/T))``,
    over the k nearest rows, with ``w_i`` proportional to ``exp(-distance_i / sigma)`` and summing to 1.
    Regression (eq. 3-4): ``f(x) + sum_i w_i (y_i - f(x_i))``.

    Parameters
    ----------
    memory : Memory
        With stored logits (any storage but ``"none"``).
    k : int, default 50
        Neighbours; 0 is the base itself.
    sigma : float, optional
        Kernel width, in the keys' distance (squared for ``kernel="gaussian"``). None: the median distance between
        a remembered row and its nearest other one, measured now.
    temperature : float, default 1.0
        The base softmax's T, for queries and remembered rows alike.
    kernel : {"exponential", "gaussian"}, default "exponential"
        ``exp(-d/sigma)``, the paper's, or ``exp(-d²/sigma)``.
    space : {"probabilities", "logits"}, default "probabilities"
        ``"logits"``: residuals are ``m_{y_i} - f(x_i)``, with ``m_c`` the mean logits of the remembered rows of class
        c; scores are logits, and probabilities their softmax at T (the paper's section 5, our reading).
    epsilon : float, optional
        Share of the base's probability that ``predict_proba`` never goes below; None is 1/L.
    gate : float in (0, 1], optional
        Queries whose base (at T) gives one class at least this probability are not searched and stay the base's.

    Raises
    ------
    ParameterError
        When a parameter is out of its range, or k exceeds the memory.
    StorageError
        When the memory does not store what residuals need.

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> keys = np.array([[0.0], [1.0], [10.0]])
    >>> memory = rs.Memory(rs.Encoded(keys, np.zeros((3, 2)), [0, 1, 1]))
    >>> reader = rs.ResMem(memory, k=1, sigma=1.0)
    >>> reader.scores(rs.Encoded([[0.1], [9.0]], np.zeros((2, 2)))).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    names = ("k", "sigma", "temperature", "kernel", "space", "epsilon", "gate")

    def __init__(
        self,
        memory: Memory,
        k: int = 50,
        sigma: float | None = None,
        temperature: float = 1.0,
        *,
        kernel: str = "exponential",
        space: str = "probabilities",
        epsilon: float | None = None,
        gate: float | None = None,
    ):
        super().__init__(memory, k, sigma, temperature, kernel, epsilon, gate)
        if space not in SPACES:
            raise ParameterError(f"space={space!r}; expected one of {SPACES}")
        self.space = space
        if space == "logits":
            if memory.task != "classification":
                raise TaskError("space='logits' is for classification; a regression memory adds plain residuals")
            if memory.storage.name not in ("full", "head"):
                raise StorageError(f"space='logits' needs full logits; this memory stores {memory.storage.name!r}")
        elif k:
            memory.storage.require(self.temperature)
        self._table: tuple[tuple, Tensor] | None = None

    @property
    def entries_per_neighbour(self) -> int | None:
        kept = self.memory.logits
        return kept.ids.shape[1] + 1 if isinstance(kept, TopLogits) else None

    @property
    def temperature_moves_scores(self) -> bool:
        return self.temperature_moves_values

    @property
    def temperature_moves_values(self) -> bool:
        return self.memory.task == "classification" and self.space == "probabilities"

    def base(self, logits: Logits) -> Tensor:
        return logits.dense() if self.space == "logits" else super().base(logits)

    def probabilities(self, scores: Tensor, base: Tensor) -> Tensor:
        if self.space == "logits":
            return torch.softmax(scores / self.temperature, dim=1)
        return super().probabilities(scores, base)

    def values(self, queries: int) -> Values:
        memory = self.memory
        labels, logits = memory.table["label"], memory.logits
        asked = (memory.version, self.temperature, self.space)
        if self._table is not None and self._table[0] == asked:
            return TableValues(self._table[1])
        if memory.task == "regression":
            return self._keep(asked, labels - logits.dense())
        if self.space == "logits":
            return self._keep(asked, class_means(labels, logits, memory.table["alive"])[labels] - logits.dense())
        # A table of all residuals costs one softmax over the memory: worth it for a batch, not for one query.
        if (
            isinstance(logits, DenseLogits)
            and queries * self.k >= len(memory.table) // 4
            and len(labels) * logits.shape[1] <= TABLE
        ):
            return self._keep(asked, residual_table(labels, logits, self.temperature))
        return ResidualValues(labels, logits, self.temperature)

    def _keep(self, asked: tuple, table: Tensor) -> Values:
        self._table = (asked, table)
        return TableValues(table)


def class_means(labels: Tensor, logits: Logits, alive: Tensor) -> Tensor:
    """Mean logits (L, L) of the remembered rows of each class; zeros for a class without rows."""
    dense = logits.dense()[alive]
    sums = dense.new_zeros(logits.shape[1], logits.shape[1]).index_add_(0, labels[alive], dense)
    return sums / torch.bincount(labels[alive], minlength=logits.shape[1]).clamp_min(1)[:, None]
