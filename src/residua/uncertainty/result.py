"""What sets, intervals and withheld answers are like on test rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from residua import html
from residua.core import Task
from residua.evaluation.cells import aligned, percent
from residua.printable import count, plain
from residua.uncertainty.selective import risk_coverage

FIFTHS = ("nearest fifth", "second fifth", "middle fifth", "fourth fifth", "farthest fifth")


@dataclass(frozen=True, eq=False, repr=False)
class Coverage:
    """The reader and the model alone (``base_…``) on the same test rows, each with its own calibrated sets.

    Attributes
    ----------
    reader, task, score, by : str
    confidence : float
        The rate that was asked for.
    calibrated : int
        Calibrating rows.
    rows : dict of str to array of shape (n, ...)
        Of each test row: ``score`` (of the truth), ``in`` (whether the truth is in), ``size`` (classes in the set, or
        the interval's width), both means over several outputs, ``distance`` to the k-th neighbour, and of
        classes ``label``, ``confidence`` and ``wrong``; all but label and distance for ``base_``, too.
    """

    reader: str
    task: Task
    score: str
    by: str | None
    confidence: float
    calibrated: int
    rows: dict[str, np.ndarray]

    @property
    def coverage(self) -> float:
        """The share of rows whose truth is in."""
        return float(self.rows["in"].mean())

    @property
    def base_coverage(self) -> float:
        """The same of the model alone."""
        return float(self.rows["base_in"].mean())

    @property
    def size(self) -> float:
        """Classes in a set, or the width of an interval, on average."""
        return float(self.rows["size"].mean())

    @property
    def base_size(self) -> float:
        """The same of the model alone."""
        return float(self.rows["base_size"].mean())

    @property
    def aurc(self) -> float | None:
        """Area under the risk-coverage curve: the share of wrong answers among the most confident, averaged over all
        coverages. None of a regression."""
        return None if self.task == "regression" else float(self.risk_coverage().mean())

    @property
    def base_aurc(self) -> float | None:
        """The same of the model alone."""
        return None if self.task == "regression" else float(self.risk_coverage("base_").mean())

    def risk_coverage(self, of: str = "") -> np.ndarray:
        """The share of wrong answers among the i most confident, i = 1 … n; of the model alone with ``"base_"``."""
        return risk_coverage(self.rows[f"{of}confidence"], self.rows[f"{of}wrong"])

    @property
    def by_distance(self) -> dict[str, tuple[float, float, float, float]]:
        """Coverage of the base and of the reader, and their sizes, in fifths of the test rows by their distance to the
        memory. Empty where not all were searched."""
        distance = self.rows["distance"]
        if np.isnan(distance).any() or len(distance) < len(FIFTHS):
            return {}
        parts = np.array_split(np.argsort(distance, kind="stable"), len(FIFTHS))
        return {name: self._of(part) for name, part in zip(FIFTHS, parts)}

    def by_class(self) -> dict[int, tuple[float, float, float, float]]:
        """The same of the test rows of each class that has any; empty for a regression."""
        labels = self.rows.get("label", np.empty(0, int))
        return {int(one): self._of(np.flatnonzero(labels == one)) for one in np.unique(labels)}

    def _of(self, part: np.ndarray) -> tuple[float, float, float, float]:
        means = [float(self.rows[name][part].mean()) for name in ("base_in", "in", "base_size", "size")]
        return means[0], means[1], means[2], means[3]

    def to_dict(self) -> dict[str, Any]:
        """All but what is of each row, as JSON types."""
        names = ("reader", "task", "score", "by", "confidence", "calibrated", "coverage", "base_coverage", "size")
        names += ("base_size", "aurc", "base_aurc", "by_distance")
        return {name: plain(getattr(self, name)) for name in names}

    def __repr__(self) -> str:
        return f"Coverage({self._about()}: {percent(self.coverage)}, size {self.base_size:.4g} -> {self.size:.4g})"

    def __str__(self) -> str:
        return f"{self._about()}\n\n{aligned(self._table())}"

    def _repr_html_(self) -> str:
        return html.paragraph(self._about()) + html.table(self._table())

    def _about(self) -> str:
        by = f" by {self.by}" if self.by else ""
        return (
            f"{self.reader}, {self.score}{by}, calibrated on {self.calibrated:,}, {count(len(self.rows['in']), 'row')}"
        )

    def _table(self) -> list[tuple[str, str, str, str]]:
        size = "mean width" if self.task == "regression" else "classes in a set"
        rows = [("", "base", "memory", "asked for")]
        rows.append(("truth inside", percent(self.base_coverage), percent(self.coverage), percent(self.confidence)))
        for name, (base, now, _, _) in self.by_distance.items():
            rows.append((f"  {name}", percent(base), percent(now), ""))
        rows.append((size, f"{self.base_size:.4g}", f"{self.size:.4g}", ""))
        if self.aurc is not None and self.base_aurc is not None:
            rows.append(("risk, mean over coverages", percent(self.base_aurc), percent(self.aurc), ""))
        return rows
