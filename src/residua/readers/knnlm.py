"""kNN-LM (arXiv 1911.00172): interpolate what the model says with the neighbours' labels."""

from __future__ import annotations

from numbers import Real

from torch import Tensor

from residua.core import Neighbours, Values
from residua.errors import ParameterError
from residua.memory import Memory
from residua.readers.adaptive import AdaptiveLambda
from residua.readers.reader import Reader
from residua.readers.values import LabelValues, TableValues


class KNNLM(Reader):
    """Interpolate a model with the labels of the nearest remembered examples.

    ``scores = lmbda * p_kNN + (1 - lmbda) * softmax(f(x)/T)``, where ``p_kNN`` sums the kernel weights of the
    neighbours of each label (kNN-LM, eq. 2-3). ``lmbda=1`` is label k-NN. For regression, the neighbours' targets.

    Parameters
    ----------
    memory : Memory
        Any storage: only labels are read.
    k : int, default 1024
        Neighbours; 0 is the base itself.
    lmbda : float in [0, 1], or AdaptiveLambda, default 0.25
        The neighbours' share; an ``AdaptiveLambda`` gives one to each query, by its nearest neighbour's distance.
    sigma : float, optional
        Kernel width: a squared distance for ``kernel="gaussian"`` (the paper's is 1), a distance for
        ``"exponential"``. None: the median nearest-neighbour distance (squared) among the memory's own rows.
    temperature : float, default 1.0
        The base softmax's T.
    kernel : {"gaussian", "exponential"}, default "gaussian"
        ``exp(-d²/sigma)``, the paper's, or ``exp(-d/sigma)``, ResMem's.
    epsilon : float, optional
        Share of the base's probability that ``predict_proba`` never goes below; None is 1/L.
    gate : float in (0, 1], optional
        Queries whose base (at T) gives one class at least this probability are not searched and stay the base's.

    Raises
    ------
    ParameterError
        When a parameter is out of its range, or k exceeds the memory.

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> memory = rs.Memory(rs.Encoded(np.array([[0.0], [1.0]]), np.zeros((2, 2)), [0, 1]), storage="none")
    >>> query = rs.Encoded([[0.0]], np.zeros((1, 2)))
    >>> rs.KNNLM(memory, k=1, lmbda=0.5).scores(query).tolist()
    [[0.75, 0.25]]
    """

    names = ("k", "lmbda", "sigma", "temperature", "kernel", "epsilon", "gate")
    signed = False
    entries_per_neighbour = 1

    def __init__(
        self,
        memory: Memory,
        k: int = 1024,
        lmbda: float | AdaptiveLambda = 0.25,
        sigma: float | None = None,
        temperature: float = 1.0,
        *,
        kernel: str = "gaussian",
        epsilon: float | None = None,
        gate: float | None = None,
    ):
        super().__init__(memory, k, sigma, temperature, kernel, epsilon, gate)
        adaptive = isinstance(lmbda, AdaptiveLambda)
        if not (adaptive or (isinstance(lmbda, Real) and 0 <= lmbda <= 1)):
            raise ParameterError(f"lmbda={lmbda!r}; expected a share between 0 and 1, or an AdaptiveLambda")
        self.lmbda = lmbda if adaptive else float(lmbda)

    @property
    def idle(self) -> bool:
        return super().idle or self.lmbda == 0

    def share(self, neighbours: Neighbours | None = None) -> tuple[float | Tensor, float | Tensor]:
        given = self.lmbda
        if isinstance(given, AdaptiveLambda):
            if neighbours is None:
                raise ParameterError("lmbda follows the neighbours' distances here: share(neighbours)")
            given = given(neighbours)
        return 1 - given, given

    def values(self, queries: int) -> Values:
        labels = self.memory.table["label"]
        return TableValues(labels) if self.memory.task == "regression" else LabelValues(labels)
