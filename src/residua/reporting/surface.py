"""How good each setting was on the rows that a reader was tuned on: one parameter at a time, and two as a map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from residua.evaluation.cells import percent
from residua.readers import Reader
from residua.reporting.coordinates import Lines, Map, grid, lines
from residua.reporting.measure import Measure

WORDS = {
    "k": "k, neighbours",
    "sigma": "σ, the kernel's width",
    "temperature": "T, the softmax's temperature",
    "lmbda": "λ, the neighbours' share",
    "theta": "θ, the cache's sharpness",
    "window": "tokens that the cache looks back",
    "residual_weight": "the residuals' weight",
}
PAIRS = (("sigma", "k"), ("theta", "window"), ("lmbda", "k"), ("temperature", "k"))
NOTHING_BEYOND = {"k": (1,), "lmbda": (1.0,), "window": (1,)}
MEASURED = ("accuracy", "tpr", "fpr", "log_loss", "perplexity", "squared_error", "score")


@dataclass(frozen=True)
class Surface:
    """What a sweep found.

    Attributes
    ----------
    reader : str
        The class that was tuned.
    settings : int
        How many were compared.
    measure : str
        By what.
    profiles : list of Lines
        Of each parameter the best that there is at each value, whatever the others are.
    map : Map or None
        Of the two that matter most, against the setting without a memory.
    edges : list of str
        Parameters whose best value is the largest or smallest that was tried, so that more may lie beyond.
    """

    reader: str
    settings: int
    measure: str
    profiles: list[Lines]
    map: Map | None
    edges: list[str]


def surfaces(reader: Reader, measure: Measure) -> list[Surface]:
    """Of a tuned reader, and of the one that it is over."""
    found, one = [], reader
    while isinstance(one, Reader):
        results = getattr(one, "results_", None)
        if results:
            found.append(surface_of(one, results, measure))
        one = getattr(one, "over", None)
    return found


def surface_of(reader: Reader, results: dict[str, np.ndarray], measure: Measure) -> Surface:
    """Of what a sweep found, beside the settings that `reader` has."""
    names = [name for name in results if name not in MEASURED and results[name].dtype.kind in "iuf"]
    name, values, shown = _measured(results, measure)
    score = results["score"].astype(np.float64)
    without = results["lmbda" if "window" in results else "k"] == 0
    level = _best(values, score, without)
    silent = without if not without.all() else np.zeros(len(score), bool)
    profiles = []
    for parameter in names:
        tried = np.unique(results[parameter][~silent])
        if len(tried) < 2:
            continue
        best = [_best(values, score, ~silent & (results[parameter] == value)) for value in tried]
        own = getattr(reader, parameter, None)
        words, chosen = WORDS.get(parameter, parameter), None if not _is_number(own) else float(own)
        table = [(parameter, name), *((f"{x:.4g}", shown(y)) for x, y in zip(tried.tolist(), best))]
        at = int(np.argmax([_best(score, score, ~silent & (results[parameter] == value)) for value in tried]))
        profiles.append(
            lines(
                [("best setting", "memory", tried.tolist(), best)],
                alt=f"{name} by {words}: from {shown(best[0])} at {tried[0]:.3g} to {shown(best[-1])} at "
                f"{tried[-1]:.3g}; {shown(best[at])} at {tried[at]:.3g} is the best; without a memory {shown(level)}.",
                table=table,
                x_label=words,
                y_label=name,
                shown=shown,
                log=parameter != "lmbda",
                level=level,
                at=chosen,
            )
        )
    pair = next((pair for pair in PAIRS if all(len(np.unique(results.get(one, [0]))) > 2 for one in pair)), None)
    seen = None if pair is None else _map(reader, results, pair, silent, values, score, level, name, shown)
    return Surface(type(reader).__name__, len(score), name, profiles, seen, _edges(results, names, silent, score))


def _measured(results: dict[str, np.ndarray], measure: Measure) -> tuple[str, np.ndarray, Callable[[float], str]]:
    """What the settings were compared by: its name, its values, and how these are written."""
    for name in ("squared_error", "log_loss", "accuracy"):
        if name in results:
            break
    else:
        return "score", results["score"].astype(np.float64), "{:.4g}".format
    if name == "log_loss" and measure.name == "perplexity":
        name = "perplexity"
    words = name.replace("_", " ").replace("log loss", "log-loss")
    return words, results[name].astype(np.float64), percent if name == "accuracy" else "{:.4g}".format


def _best(values: np.ndarray, score: np.ndarray, of: np.ndarray) -> float:
    """The value of the best setting among some; NaN without one."""
    some = np.flatnonzero(of & np.isfinite(score))
    return float(values[some[np.argmax(score[some])]]) if len(some) else math.nan


def _map(
    reader: Reader,
    results: dict[str, np.ndarray],
    pair: tuple[str, str],
    silent: np.ndarray,
    values: np.ndarray,
    score: np.ndarray,
    level: float,
    name: str,
    shown: Callable[[float], str],
) -> Map:
    rows, columns = (np.unique(results[one][~silent]) for one in pair)
    table = np.full((len(rows), len(columns)), np.nan)
    where = np.searchsorted(rows, results[pair[0]]), np.searchsorted(columns, results[pair[1]])
    for i, j in np.ndindex(*table.shape):
        table[i, j] = _best(values, score, ~silent & (where[0] == i) & (where[1] == j))
    sign = 1.0 if np.array_equal(values, score) or name in ("accuracy", "score") else -1.0  # of losses less is better
    own = [getattr(reader, one, None) for one in pair]
    chosen = None
    if all(map(_is_number, own)):
        i, j = (int(np.argmin(np.abs(tried - value))) for tried, value in zip((rows, columns), own))
        chosen = (i, j) if math.isclose(rows[i], own[0]) and math.isclose(columns[j], own[1]) else None
    better = int((sign * table > sign * level).sum())
    return grid(
        sign * table,
        (pair[0], rows.tolist()),
        (pair[1], columns.tolist()),
        alt=f"{name} for each {pair[0]} and {pair[1]}: {better} of {np.isfinite(table).sum()} are better than without "
        f"a memory, {shown(level)}.",
        level=sign * level,
        shown=lambda value: shown(sign * value),
        chosen=chosen,
    )


def _edges(results: dict[str, np.ndarray], names: list[str], silent: np.ndarray, score: np.ndarray) -> list[str]:
    best = np.flatnonzero(~silent)[np.argmax(score[~silent])] if (~silent).any() else None
    found = []
    for name in names if best is not None else ():
        tried = np.unique(results[name][~silent])
        ends = [end for end in (tried[0], tried[-1]) if end not in NOTHING_BEYOND.get(name, ())]
        if len(tried) > 2 and results[name][best] in ends:
            found.append(name)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
