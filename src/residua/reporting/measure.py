"""What a verdict is about, and how it is written: accuracy, perplexity or squared error."""

from __future__ import annotations

from dataclasses import dataclass

from residua.evaluation import Evaluation
from residua.evaluation.cells import change, in_points, known, percent


@dataclass(frozen=True)
class Measure:
    """The measure of an evaluation's verdict.

    Attributes
    ----------
    name : str
        What it is called.
    share : bool
        Whether it is a share of rows, of which more is better; else a loss, of which less is better.
    base, now : float
        Of the model alone, and with the memory, over all rows.
    """

    name: str
    share: bool
    base: float
    now: float

    @classmethod
    def of(cls, result: Evaluation) -> Measure:
        """The one that `result` is about."""
        if result.task == "regression":
            return cls("mean squared error", False, known(result.base_mse), known(result.mse))
        if result.objective == "log_loss":
            return cls("perplexity", False, known(result.base_perplexity), known(result.perplexity))
        name = "accuracy" if result.task == "classification" else "share of labels that are right"
        return cls(name, True, known(result.base_accuracy), known(result.accuracy))

    def shown(self, value: float) -> str:
        """A value in words."""
        return percent(value) if self.share else f"{value:.4g}"

    def gained(self, base: float, now: float) -> float:
        """By how much `now` is better: a difference of shares, or the part of a loss that is gone."""
        return now - base if self.share else 1 - now / base if base else 0.0

    def changed(self, base: float, now: float) -> str:
        """The change in words: percentage points, or percent of a loss."""
        if self.share:
            return in_points(now - base)
        return change(base, now) if base else f"{now - base:+.4g}"
