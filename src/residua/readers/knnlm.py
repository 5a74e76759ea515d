"""kNN-LM (arXiv 1911.00172): interpolate what the model says with the neighbours' labels."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, Self

from torch import Tensor

from residua.core import Few, LabelValues, Neighbours, Queries, TableValues, Values
from residua.errors import ParameterError
from residua.memory import Memory
from residua.readers.adaptive import AdaptiveLambda
from residua.readers.few import Interpolated, Plain
from residua.readers.neighbour import Kernel, KernelName, NeighbourReader
from residua.readers.reader import register_reader


@register_reader
class KNNLM(NeighbourReader):
    """Interpolate a model with the labels of the nearest remembered examples.

    ``scores = lmbda * p_kNN + (1 - lmbda) * softmax(f(x)/T)``, where ``p_kNN`` sums the kernel weights of the
    neighbours of each label (kNN-LM, eq. 2-3). ``lmbda=1`` is label k-NN. For regression, the neighbours' targets.

    Parameters
    ----------
    memory : Memory
        Any storage: only labels are read.
    k : int, optional
        Neighbours; 0 is the base itself. None: 1024, or all rows where there are fewer.
    lmbda : float in [0, 1], or AdaptiveLambda, default 0.25
        The neighbours' share; an ``AdaptiveLambda`` gives each query its own.
    sigma : float, optional
        Kernel width: a squared distance for ``kernel="gaussian"`` (the paper's is 1), a distance for
        ``"exponential"``. None: the median nearest-neighbour distance (squared) in the memory.
    kernel : {"gaussian", "exponential"} or Kernel, default "gaussian"
        ``exp(-d²/sigma)``, the paper's; ``exp(-d/sigma)``, ResMem's; or your own.
    temperature, epsilon, skip, class_weight
        As for ``ResMem``.

    Raises
    ------
    ParameterError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> memory = rs.Memory(rs.Encoded(np.array([[0.0], [1.0]]), np.zeros((2, 2)), [0, 1]), storage="none")
    >>> query = rs.Encoded([[0.0]], np.zeros((1, 2)))
    >>> rs.KNNLM(memory, k=1, lmbda=0.5).scores(query).tolist()
    [[0.75, 0.25]]
    """

    default_k: int = 1024

    lmbda: float | AdaptiveLambda

    def __init__(
        self,
        memory: Memory | None = None,
        k: int | None = None,
        lmbda: float | AdaptiveLambda = 0.25,
        sigma: float | None = None,
        temperature: float = 1.0,
        *,
        kernel: KernelName | Kernel = "gaussian",
        epsilon: float | None = None,
        skip: float | None = None,
        class_weight: Mapping[int, float] | str | None = None,
    ):
        super().__init__(memory, k, sigma, temperature, kernel, epsilon, skip, class_weight)
        if not isinstance(lmbda, AdaptiveLambda):
            if not (isinstance(lmbda, Real) and 0 <= lmbda <= 1):
                raise ParameterError(f"lmbda={lmbda!r}; expected a share between 0 and 1, or an AdaptiveLambda")
            lmbda = float(lmbda)
        self.lmbda = lmbda

    @property
    def is_noop(self) -> bool:
        return super().is_noop or self.lmbda == 0

    def share(self, neighbours: Neighbours, queries: Queries) -> tuple[float | Tensor, float | Tensor]:
        given = self.lmbda(neighbours) if isinstance(self.lmbda, AdaptiveLambda) else self.lmbda
        return 1 - given, given

    def few(self, plain: Plain) -> Few | None:
        if isinstance(self.lmbda, AdaptiveLambda):
            return None
        return Interpolated(plain, plain.labels(self.memory.column("label")), self.lmbda)

    def native_reading(self) -> dict[str, Any] | None:
        # Where a token may be on the floor, or nothing is left of the base, the whole vocabulary is to be looked at.
        if isinstance(self.lmbda, AdaptiveLambda) or self.lmbda == 1 or self.floor > 1 - self.lmbda:
            return None
        return dict(said=None, in_logits=False, left=1 - self.lmbda, given=self.lmbda)

    def values(self, queries: int) -> Values:
        labels, centre = self.memory.column("label"), self.memory.target_centre
        if self.memory.task == "multi-label":
            return TableValues(labels[:].float())
        return LabelValues(labels) if centre is None else TableValues(labels + centre)

    @classmethod
    def from_json(cls, params: dict[str, Any], memory: Memory) -> Self:
        if "lmbda" in cls.parameter_names() and isinstance(params["lmbda"], dict):
            params = params | {"lmbda": AdaptiveLambda.from_json(params["lmbda"])}
        return super().from_json(params, memory)
