"""Which settings compete."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from residua.errors import ParameterError
from residua.memory.schema import Scorer
from residua.readers import KERNELS, NeighbourReader
from residua.tuning.objective import OBJECTIVES, Grid

SWEPT = ("k", "sigma", "temperature", "lmbda", "residual_weight")  # what a reader that uses it is tuned over by default
WHOLE = ("k", "window")  # parameters that are whole numbers
ALL = 1 << 20  # more neighbours than anybody tries

# The defaults where rows stand alone, and where they are a text: language models are near T = 1 already, another domain
# needs wide kernels, and k doubles to the paper's 1 024 (residuals are swept densely, at V numbers a neighbour: 128).
K = {False: np.unique(np.geomspace(1, 500, 20).round().astype(int)), True: 2 ** np.arange(11)}
SIGMA = {False: 2.0 ** np.arange(-4, 3.5, 0.5), True: 2.0 ** np.arange(-3, 6)}  # multiples of the typical width
TEMPERATURE = {False: np.geomspace(0.25, 5, 12), True: np.array([0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5])}
LMBDA = {False: np.array([0.05, *np.arange(1, 11) / 10]), True: np.linspace(0.05, 0.95, 19)}
RESIDUAL_WEIGHT = 2.0 ** np.arange(5)  # what narrow kernels gain most by is some 8
WIDE_K = 128
THIN = 3  # every so many of them where a setting is costly


def full_grid(reader: NeighbourReader, grid: Mapping[str, Any] | None, objective: str | Scorer) -> Grid:
    """The values of each tuned parameter: the user's where given, else the defaults for this reader.

    Numbers ascend; ``k`` always starts with 0, the base alone. A reader's own parameters compete where they are named.
    """
    grid, names = dict(grid or {}), reader.parameter_names()
    tuned = swept(reader)
    unknown = set(grid) - set(names)
    if unknown:
        raise ParameterError(
            f"the grid names {sorted(unknown)}; {type(reader).__name__} has {names}, and tunes {tuned} by itself"
        )
    full = {name: values_of(name, grid[name]) if name in grid else _default(name, reader, objective) for name in tuned}
    full |= {name: own_values(name, grid[name]) for name in grid if name not in tuned}
    if full["k"][-1] > len(reader.memory):
        raise ParameterError(f"the grid has k={full['k'][-1]}, and the memory has {len(reader.memory)} rows")
    full["k"] = np.unique(np.concatenate([[0], full["k"]]))
    if full["k"][0] < 0 or any(full[name][0] <= 0 for name in SWEPT[1:] if name in full and name != "lmbda"):
        raise ParameterError("the grid holds a k < 0, or a sigma, temperature or residual_weight <= 0")
    if "lmbda" in full and not 0 <= full["lmbda"][0] <= full["lmbda"][-1] <= 1:
        raise ParameterError(f"the grid has lmbda from {full['lmbda'][0]:g} to {full['lmbda'][-1]:g}; expected shares")
    return full


def swept(reader: NeighbourReader) -> list[str]:
    """What `reader` is tuned over by default."""
    names = [name for name in SWEPT if name in reader.parameter_names()]
    return names if reader.score_space == "logit" else [name for name in names if name != "residual_weight"]


def values_of(name: str, values: Any) -> np.ndarray:
    """A user's values of one number, ascending, each once."""
    values = np.unique(np.atleast_1d(np.asarray(values, dtype=np.int64 if name in WHOLE else np.float64)))
    if not len(values) or not np.isfinite(values).all():
        raise ParameterError(f"the grid of {name} is empty or not finite")
    return values


def own_values(name: str, values: Any) -> np.ndarray:
    """A user's values of any other parameter, each once, in their order; as objects where they are no numbers."""
    values = list(dict.fromkeys([values] if isinstance(values, str) else values))
    if not values:
        raise ParameterError(f"the grid of {name} is empty")
    numbers = all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
    return np.asarray(values) if numbers else np.fromiter(values, object)


def largest_share(reader: NeighbourReader) -> float:
    """The largest share of the neighbours under which no class falls below epsilon of the base's probability."""
    return 1 - reader.floor


def _default(name: str, reader: NeighbourReader, objective: str | Scorer) -> np.ndarray:
    if objective not in OBJECTIVES[reader.memory.task]:  # a scorer reads every setting by itself
        values = _default(name, reader, "squared_error" if reader.memory.task == "regression" else "log_loss")
        return np.union1d(values[::THIN], [1.0]) if name == "temperature" else values[::THIN]
    memory, text = reader.memory, reader.memory.schema.is_text
    thin = slice(None, None, 2 if "residual_weight" in swept(reader) and not text else 1)  # one more parameter
    if name == "residual_weight":
        return RESIDUAL_WEIGHT
    if name == "k":
        if not text:
            return K[text][thin][K[text][thin] <= len(memory)]
        most = K[text][K[text] <= (WIDE_K if reader.values(1).width is None else ALL)]
        return np.unique(np.minimum(most, len(memory)))
    if name == "sigma":
        return SIGMA[text][thin] * KERNELS.get(reader.kernel).typical_sigma(memory.median_nn_distance())
    if name == "lmbda":
        if objective != "log_loss":
            return LMBDA[text]
        most = largest_share(reader)
        return LMBDA[text][LMBDA[text] <= most] if LMBDA[text][0] <= most else np.array([most])
    kept = getattr(memory.storage, "temperature", None)
    if kept is not None and reader.values(1).signed:  # top-m storage serves residuals at one temperature
        return np.array([kept])
    if objective != "log_loss" and reader.memory.task == "regression":
        return np.array([reader.temperature])
    return TEMPERATURE[text]
