"""What an evaluation found, as numbers, as JSON types and as a table to read."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Base and memory on the same test points. Shares are between 0 and 1; what a task does not have is None.

    Attributes
    ----------
    task : {"classification", "regression"}
    reader, params : str, dict
        The reader's class and its parameters.
    n : int
        Test points.
    base, memory : float
        Accuracy of the model as it is and of the reader; for regression, mean squared error.
    gain : float
        ``tpr - fpr``, which is ``memory - base``; for regression ``base - memory``, how much the mean squared error
        falls. Positive means that the memory helps.
    gain_interval : (float, float)
        Paired percentile bootstrap interval of the gain, at `confidence`.
    p_value : float
        Two-sided: McNemar's exact test; for regression a randomisation test of the mean difference.
    tpr, fpr : float or None
        ResMem, eq. 9-10: share of test points that the base gets wrong and the memory right, and the reverse.
    ece_base, ece_memory : float or None
        Expected calibration error (15 bins): of softmax at temperature 1, and of ``reader.predict_proba``.
    log_loss_base, log_loss_memory : float or None
        Of the same probabilities, in nats.
    per_class_gain : float array of shape (L,), or None
        The gain among the points of each class; nan for a class without any.
    support : int array of shape (L,), or None
        Test points of each class.
    r2_base, r2_memory : float or None
        Regression: 1 - squared error / variance of the targets, both summed over outputs; nan for constant targets.
    improved, worsened : float or None
        Regression: share of points whose squared error fell, and rose.
    label_knn : float or None
        Accuracy (or mean squared error) of label k-NN with the reader's kernel, k and sigma; None for ``k=0``.
    label_knn_tuned, label_knn_params : float, dict, or None
        The same with the k and sigma that are best on validation data; None without such data.
    """

    task: str
    reader: str
    params: dict
    n: int
    base: float
    memory: float
    gain: float
    gain_interval: tuple[float, float]
    confidence: float
    p_value: float
    tpr: float | None = None
    fpr: float | None = None
    ece_base: float | None = None
    ece_memory: float | None = None
    log_loss_base: float | None = None
    log_loss_memory: float | None = None
    per_class_gain: np.ndarray | None = None
    support: np.ndarray | None = None
    r2_base: float | None = None
    r2_memory: float | None = None
    improved: float | None = None
    worsened: float | None = None
    label_knn: float | None = None
    label_knn_tuned: float | None = None
    label_knn_params: dict | None = None

    @property
    def significant(self) -> bool:
        """Whether ``p_value < 1 - confidence``."""
        return self.p_value < 1 - self.confidence

    def to_dict(self) -> dict:
        """Every attribute as JSON types; nan becomes None, as JSON has no such number.

        Examples
        --------
        >>> import json, numpy as np, residua as rs
        >>> memory = rs.Memory(rs.Encoded(np.eye(2), np.zeros((2, 2)), [0, 1]))
        >>> result = rs.evaluate(rs.ResMem(memory, k=1), rs.Encoded(np.eye(2), np.zeros((2, 2)), [0, 1]))
        >>> json.loads(json.dumps(result.to_dict()))["per_class_gain"]
        [0.0, 1.0]
        """
        return {name: plain(value) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={short(value)}" for name, value in self.params.items() if value is not None)
        table = self._answers() if self.task == "classification" else self._errors()
        return f"{self.reader}({shown}) on {self.n:,} test points\n\n{table}\n\n{self.verdict}"

    @property
    def verdict(self) -> str:
        """In words: is the memory better or worse, and is the difference more than chance."""
        test = "McNemar's exact test" if self.task == "classification" else "randomisation test of the mean"
        p = "p < 0.0001" if self.p_value < 1e-4 else f"p = {self.p_value:.4f}"
        if self.gain == 0:
            return f"The memory makes no difference here ({test}, {p})."
        word = "better" if self.gain > 0 else "worse"
        if self.significant:
            advice = "" if self.gain > 0 else " Do not use it like this: tune the reader, or leave the model alone."
            return (
                f"The memory is {word} than the model alone, and the difference is significant ({test}, {p}).{advice}"
            )
        return (
            f"The memory is {word} than the model alone, but the difference is not significant at the "
            f"{1 - self.confidence:.2g} level ({test}, {p}): these test points cannot tell the two apart."
        )

    def _answers(self) -> str:
        rows = [
            ("", "base", "memory", "change"),
            ("accuracy", percent(self.base), percent(self.memory), in_points(self.gain)),
            (
                "calibration error",
                percent(self.ece_base),
                percent(self.ece_memory),
                in_points(self.ece_memory - self.ece_base),
            ),
            (
                "log-loss",
                f"{self.log_loss_base:.4f}",
                f"{self.log_loss_memory:.4f}",
                f"{self.log_loss_memory - self.log_loss_base:+.4f}",
            ),
            ("wrong made right (TPR)", "", percent(self.tpr), ""),
            ("right made wrong (FPR)", "", percent(self.fpr), ""),
            *self._label_rows(percent),
        ]
        low, high = self.gain_interval
        level = f"{100 * self.confidence:.4g} %"
        return f"{aligned(rows)}\n{level} interval of the gain: {100 * low:+.2f} to {in_points(high)}"

    def _errors(self) -> str:
        rows = [
            ("", "base", "memory", "change"),
            ("mean squared error", f"{self.base:.5g}", f"{self.memory:.5g}", f"{-self.gain:+.4g}"),
            ("R²", f"{self.r2_base:.4f}", f"{self.r2_memory:.4f}", f"{self.r2_memory - self.r2_base:+.4f}"),
            ("points improved", "", percent(self.improved), ""),
            ("points worsened", "", percent(self.worsened), ""),
            *self._label_rows(lambda error: f"{error:.5g}"),
        ]
        low, high = self.gain_interval
        level = f"{100 * self.confidence:.4g} %"
        return f"{aligned(rows)}\n{level} interval of the fall in squared error: {low:+.4g} to {high:+.4g}"

    def _label_rows(self, form) -> list[tuple[str, str, str, str]]:
        rows = []
        if self.label_knn is not None:
            rows.append(("label k-NN, same settings", "", form(self.label_knn), ""))
        if self.label_knn_tuned is not None:
            shown = f"k={self.label_knn_params['k']}, sigma={short(self.label_knn_params['sigma'])}"
            rows.append((f"label k-NN, {shown}", "", form(self.label_knn_tuned), ""))
        return rows


def aligned(rows: list[tuple[str, str, str, str]]) -> str:
    """Rows of four cells as text: names to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = (
        f"{name:<{widths[0]}}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:]))
        for name, *cells in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def percent(share: float) -> str:
    """A share as percent."""
    return f"{100 * share:.2f} %"


def in_points(share: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * share:+.2f} points"


def short(value) -> str:
    """A parameter (in JSON types) in few digits and words."""
    if isinstance(value, dict) and "shares" in value:  # an AdaptiveLambda
        return f"{min(value['shares']):.2g} to {max(value['shares']):.2g} by distance"
    if isinstance(value, dict) and "reader" in value:  # what a ContinuousCache is over
        inner = ", ".join(f"{name}={short(item)}" for name, item in value["params"].items() if item is not None)
        return f"{value['reader']}({inner})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plain(value):
    """`value` as JSON types; nan becomes None."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
