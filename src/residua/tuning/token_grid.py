"""Which settings compete where the rows are a language model's tokens."""

from __future__ import annotations

import numpy as np

from residua.errors import ParameterError
from residua.readers import KNNLM, Reader

K = 2 ** np.arange(11)  # 1 ... 1024, the paper's
SIGMA = 2.0 ** np.arange(-3, 6)  # multiples of the typical distance squared; another domain needs the wide ones
TEMPERATURE = np.array([0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5])  # language models are near 1 already
LMBDA = np.linspace(0.05, 0.95, 19)


def token_default(name: str, reader: Reader) -> np.ndarray:
    """The default values of one tuned parameter, ascending."""
    memory = reader.memory
    if name == "k":
        most = 1024 if isinstance(reader, KNNLM) else 128  # residuals are swept densely, at V numbers a neighbour
        return np.unique(np.minimum(K[most >= K], len(memory)))
    if name == "sigma":
        typical = memory.typical_distance()
        return SIGMA * (typical**2 if reader.kernel == "gaussian" else typical)
    if name == "temperature":
        kept = getattr(memory.storage, "temperature", None)
        return TEMPERATURE if kept is None or not reader.temperature_moves_values else np.array([kept])
    shares = LMBDA[largest_share(reader) >= LMBDA]
    return shares if len(shares) else np.array([largest_share(reader)])


def largest_share(reader: Reader) -> float:
    """The largest share of the neighbours under which no token falls below epsilon of the base's probability."""
    return 1 - reader.floor


def check_shares(reader: Reader, shares: np.ndarray) -> None:
    """Raise when a share in the grid is negative, or leaves the base too little for a likelihood."""
    if shares[0] < 0 or shares[-1] > largest_share(reader):
        raise ParameterError(
            f"the grid has lmbda from {shares[0]:g} to {shares[-1]:g}; for tokens expected 0 ... "
            f"1 - epsilon = {largest_share(reader):g}: beyond it, a token that no neighbour has is all but impossible"
        )
