"""Numbers as a reader sees them: with intervals, over repetitions, settings in their symbols."""

from collections.abc import Sequence

import numpy as np

from experiments.intervals import sign

SYMBOLS = {"k": "k", "sigma": "σ", "temperature": "T", "lmbda": "λ"}


def interval(found: Sequence[float | None], bold: bool = False) -> str:
    """``[middle, low, high]`` in points, signed; without its ends where they are unbounded.

    With `bold`, an interval that excludes 0 is in bold type.

    >>> interval([1.234, 0.5, 2.0]), interval([1.234, 0.5, 2.0], bold=True), interval([-0.001, None, None])
    ('+1.23 [+0.50, +2.00]', '**+1.23 [+0.50, +2.00]**', '+0.00')
    """
    ends = [f"{round(value, 2) + 0.0:+.2f}" for value in found if value is not None and np.isfinite(value)]  # no -0.00
    if len(ends) < 3:
        return ends[0]
    text = f"{ends[0]} [{ends[1]}, {ends[2]}]"
    return f"**{text}**" if bold and sign(found) else text


def mean(values: Sequence[float]) -> str:
    """The mean, and ± the standard deviation where there are several.

    >>> mean([56.46]), mean([1.0, 2.0, 3.0])
    ('56.46', '2.00 ± 1.00')
    """
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")


def settings(found: dict | list[dict]) -> str:
    """A reader's settings; those of the two halves of a test set with a semicolon between them.

    >>> settings([{"k": 1024, "sigma": 0.7}, {"k": 20, "sigma": 0.96485}])
    'k 1024, σ 0.7; k 20, σ 0.965'
    """
    if isinstance(found, list):
        return "; ".join(map(settings, found))
    if found["k"] == 0:
        return "k 0, no memory"
    shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in found.items()}  # k whole
    return ", ".join(f"{SYMBOLS[name]} {value}" for name, value in shown.items())


def p_value(p: float) -> str:
    """To four digits.

    >>> p_value(0.03387), p_value(1e-9)
    ('0.0339', '< 0.0001')
    """
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
