"""How good each setting was on the rows that a reader was tuned on: one parameter at a time, and two as a map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

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
        if results := getattr(one, "results_", None):
            found.append(surface_of(one, results, measure))
        one = getattr(one, "over", None)
    return found


def surface_of(reader: Reader, results: dict[str, np.ndarray], measure: Measure) -> Surface:
    """Of what a sweep found, beside the settings that `reader` has."""
    sweep = Sweep(reader, results, measure)
    tried = {name: sweep.tried(name) for name in sweep.names}
    profiles = [sweep.profile(name) for name, values in tried.items() if len(values) > 1]
    pair = next((pair for pair in PAIRS if all(len(tried.get(name, ())) > 1 for name in pair)), None)
    edges = [name for name, values in tried.items() if len(values) > 2 and sweep.is_edge(name)]
    map = None if pair is None else sweep.map(*pair)
    return Surface(type(reader).__name__, len(sweep.score), sweep.measure, profiles, map, edges)


class Sweep:
    """The settings that were compared: what each scored, and which have no memory."""

    names: list[str]  # of the parameters that are numbers
    measure: str
    values: np.ndarray  # of the measure, and its sign: 1 where more is better
    sign: float
    shown: Callable[[float], str]
    score: np.ndarray
    heard: np.ndarray  # settings with a memory
    level: float  # the best measure without one

    def __init__(self, reader: Reader, results: dict[str, np.ndarray], measure: Measure):
        self.reader, self.results = reader, results
        self.names = [name for name in results if name not in MEASURED and results[name].dtype.kind in "iuf"]
        name = next((name for name in ("squared_error", "log_loss", "accuracy") if name in results), "score")
        if name == "log_loss" and measure.name == "perplexity":
            name = "perplexity"
        self.measure = name.replace("_", " ").replace("log loss", "log-loss")
        self.values, self.score = (results[one].astype(np.float64) for one in (name, "score"))
        self.sign = 1.0 if name in ("accuracy", "score") else -1.0
        self.shown = percent if name == "accuracy" else "{:.4g}".format
        silent = results["lmbda" if "window" in results else "k"] == 0
        self.heard = ~silent
        self.level = self.best(silent)

    def best(self, of: np.ndarray) -> float:
        """The measure of the best setting among some, bool (n,); NaN without one."""
        some = np.flatnonzero(of & np.isfinite(self.score))
        return float(self.values[some[np.argmax(self.score[some])]]) if len(some) else math.nan

    def tried(self, name: str) -> np.ndarray:
        """The values of a parameter, ascending."""
        return np.unique(self.results[name][self.heard])

    def own(self, name: str) -> float:
        """The reader's own value; NaN where that is no number."""
        value = getattr(self.reader, name, None)
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan

    def is_edge(self, name: str) -> bool:
        """Whether the best value is the first or last that was tried, and more may lie beyond."""
        tried, score = self.tried(name), np.where(self.heard, self.score, -np.inf)
        best = self.results[name][np.argmax(score)]
        return best in (tried[0], tried[-1]) and best not in NOTHING_BEYOND.get(name, ())

    def profile(self, name: str) -> Lines:
        """The best that there is at each value of a parameter, whatever the others are."""
        tried = self.tried(name).tolist()
        best = [self.best(self.heard & (self.results[name] == value)) for value in tried]
        at = int(np.nanargmax(self.sign * np.array(best))) if np.isfinite(best).any() else 0
        words, said = WORDS.get(name, name), [self.shown(value) for value in best]
        return lines(
            [("best setting", "memory", tried, best)],
            alt=f"{self.measure} by {words}: {said[0]} at {tried[0]:.3g}, {said[-1]} at {tried[-1]:.3g}; the best is "
            f"{said[at]} at {tried[at]:.3g}; without a memory it is {self.shown(self.level)}.",
            table=[(name, self.measure), *((f"{value:.4g}", one) for value, one in zip(tried, said))],
            x_label=words,
            y_label=self.measure,
            shown=self.shown,
            log=name != "lmbda",
            level=self.level,
            at=self.own(name),
        )

    def map(self, down: str, across: str) -> Map:
        """The best that there is at each pair of values, beside what there is without a memory."""
        rows, columns = self.tried(down), self.tried(across)
        table = np.full((len(rows), len(columns)), np.nan)
        for i, j in np.ndindex(*table.shape):
            table[i, j] = self.best(self.heard & (self.results[down] == rows[i]) & (self.results[across] == columns[j]))
        i, j = (int(np.argmin(np.abs(tried - self.own(name)))) for tried, name in ((rows, down), (columns, across)))
        is_own = math.isclose(rows[i], self.own(down)) and math.isclose(columns[j], self.own(across))
        better = int((self.sign * table > self.sign * self.level).sum())
        return grid(
            self.sign * table,
            (down, rows.tolist()),
            (across, columns.tolist()),
            alt=f"{self.measure} for each {down} and {across}: {better} of {np.isfinite(table).sum()} are better than "
            f"without a memory, {self.shown(self.level)}.",
            level=self.sign * self.level,
            shown=lambda value: self.shown(self.sign * value),
            chosen=(i, j) if is_own else None,
        )
