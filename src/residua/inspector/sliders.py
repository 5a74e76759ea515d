"""The numbers of a reader that can be moved, how far each goes, and the reader that they then give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeVar

from residua.errors import ParameterError, ResiduaError
from residua.readers import NeighbourReader

R = TypeVar("R", bound=NeighbourReader)

Scale = Literal["whole", "log", "linear"]
WIDE, NARROW = 32.0, 8.0  # how many times as large, or as small, a width and a factor can become

# What each is called, what it means, and how it moves; a reader has those that its constructor takes.
_KNOWN: dict[str, tuple[str, str, Scale]] = {
    "k": ("k", "how many neighbours are read", "whole"),
    "sigma": ("σ", "how far a neighbour is heard", "log"),
    "temperature": ("T", "how soft the model's own answer is", "log"),
    "lmbda": ("λ", "the neighbours' share", "linear"),
    "base_weight": ("a", "how much the model's own answer weighs", "log"),
    "residual_weight": ("b", "how much the residuals weigh", "log"),
}


@dataclass(frozen=True)
class Slider:
    """One number of a reader, from `least` to `most`, and what it is now."""

    name: str
    symbol: str
    meaning: str
    scale: Scale
    least: float
    most: float
    value: float


def sliders_of(reader: NeighbourReader, depth: int) -> list[Slider]:
    """The numbers of `reader` that can be moved, where `depth` neighbours of each query are known.

    What is no number (a share by distance), what cannot change (the temperature of residuals that were stored at one)
    and what changes nothing (a regression's) is left out.

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    >>> [(one.name, one.least, one.most) for one in sliders_of(rs.KNNLM(memory, k=2, sigma=4.0), depth=3)]
    [('k', 0, 3), ('sigma', 0.125, 128.0), ('temperature', 0.125, 8.0), ('lmbda', 0.0, 1.0)]
    """
    found = list[Slider]()
    for name, (symbol, meaning, scale) in _KNOWN.items():
        value = _value(reader, name)
        if value is None or (name == "temperature" and reader.memory.task == "regression"):
            continue
        if scale == "whole":
            least, most = 0, min(depth, len(reader.memory))
        elif scale == "linear":
            least, most = 0.0, 1.0
        else:
            times = WIDE if name == "sigma" else NARROW
            least, most = value / times, value * times
            try:
                reader.with_params(**{name: most})
            except ResiduaError:
                continue
        found.append(Slider(name, symbol, meaning, scale, least, most, value))
    return found


def moved(reader: R, settings: Mapping[str, Any], last: R | None = None) -> R:
    """`reader` with these numbers instead of its own; ``ParameterError`` for what is none of its numbers.

    `last` is what was made so before: the same reader but for its numbers, whose residuals serve this one, too.
    """
    for name, value in settings.items():
        if name not in _KNOWN or name not in reader.parameter_names():
            raise ParameterError(f"a {type(reader).__name__} has no number {name!r} to move")
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ParameterError(f"{name}={value!r}; expected a number")
    wanted = {name: getattr(reader, name) for name in _KNOWN if name in reader.parameter_names()} | dict(settings)
    k = wanted.get("k")
    if k is not None and "k" not in settings:
        wanted["k"] = min(k, len(reader.memory))  # forgetting may have left fewer rows
    return (reader if last is None else last).with_params(**wanted)


def _value(reader: NeighbourReader, name: str) -> float | None:
    """What a number of the reader is now; None where it has none of that name, or no number."""
    if name not in reader.parameter_names():
        return None
    value = getattr(reader, name)
    if value is None and name.endswith("_weight") and getattr(reader, "space", None) == "exponent":
        return 1.0
    return value if isinstance(value, Real) and not isinstance(value, bool) else None  # type: ignore[return-value]
