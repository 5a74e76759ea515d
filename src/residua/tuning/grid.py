"""Which settings compete."""

from __future__ import annotations

import numpy as np

from residua.errors import ParameterError
from residua.readers import Reader
from residua.tuning.token_grid import token_default

TUNED = ("k", "sigma", "temperature", "lmbda")
WHOLE = ("k", "window")  # parameters that are whole numbers
K = np.unique(np.geomspace(1, 500, 20).round().astype(int))  # 19 values, and 0 always
SIGMA = 2.0 ** np.arange(-4, 3.5, 0.5)  # 15 multiples of the median nearest-neighbour distance
TEMPERATURE = np.geomspace(0.25, 5, 12)
LMBDA = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


def full_grid(reader: Reader, grid: dict | None, objective: str) -> dict[str, np.ndarray]:
    """The values of each tuned parameter, ascending: the user's where given, else the defaults for this reader.

    ``k`` always starts with 0, which is the base alone.
    """
    grid = dict(grid or {})
    tuned = [name for name in TUNED if name in reader.names]
    unknown = set(grid) - set(tuned)
    if unknown:
        raise ParameterError(f"the grid names {sorted(unknown)}; {type(reader).__name__} tunes {tuned}")
    memory = reader.memory

    def default(name: str) -> np.ndarray:
        return token_default(name, reader) if memory.of_tokens else _default(name, reader, objective)

    full = {name: values_of(name, grid[name]) if name in grid else default(name) for name in tuned}
    if full["k"][-1] > len(memory):
        raise ParameterError(f"the grid has k={full['k'][-1]}, and the memory has {len(memory)} rows")
    full["k"] = np.unique(np.concatenate([[0], full["k"]]))
    if full["k"][0] < 0 or full["sigma"][0] <= 0 or full["temperature"][0] <= 0:
        raise ParameterError("the grid holds a k < 0, or a sigma or temperature <= 0")
    return full


def values_of(name: str, values) -> np.ndarray:
    """A user's values of one parameter, ascending, each once."""
    values = np.unique(np.atleast_1d(np.asarray(values, dtype=np.int64 if name in WHOLE else np.float64)))
    if not len(values) or not np.isfinite(values).all():
        raise ParameterError(f"the grid of {name} is empty or not finite")
    return values


def _default(name: str, reader: Reader, objective: str) -> np.ndarray:
    memory = reader.memory
    if name == "k":
        return K[len(memory) >= K]
    if name == "sigma":
        typical = memory.typical_distance()
        return SIGMA * (typical**2 if reader.kernel == "gaussian" else typical)
    if name == "lmbda":
        return LMBDA
    kept = getattr(memory.storage, "temperature", None)
    if kept is not None:  # top-m storage serves one temperature
        return np.array([kept])
    ranks_only = objective != "log_loss" and not reader.temperature_moves_scores
    return np.array([reader.temperature]) if ranks_only else TEMPERATURE
