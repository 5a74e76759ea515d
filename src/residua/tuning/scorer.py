"""Objectives that are scikit-learn's scorers: each setting answers all validation rows, and the scorer judges that."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from residua.core import Encoded, Prediction, Task, as_tensor
from residua.core.encoded import labels_of
from residua.errors import MissingDependencyError, ParameterError
from residua.memory import Memory
from residua.memory.schema import Scorer
from residua.readers import NeighbourReader
from residua.tuning.objective import OBJECTIVES, WHY, Grid, plain

RESAMPLES = 200


def scorer_of(objective: str | Scorer, task: Task) -> Scorer:
    """The scorer of that name, or the function as it is; ``ParameterError`` for an unknown name."""
    expected = f"one of {OBJECTIVES[task]}, a scikit-learn scorer's name, or a function (estimator, X, y)"
    if not isinstance(objective, str):
        if not callable(objective):
            raise ParameterError(f"objective={objective!r}; expected {expected}")
        return objective
    try:
        from sklearn import metrics
    except ImportError as error:
        needs = (
            f'objective={objective!r} is a scorer of scikit-learn\'s; install it with: pip install "residua[sklearn]"'
        )
        raise MissingDependencyError(needs) from error
    if objective not in (known := metrics.get_scorer_names()):
        near = difflib.get_close_matches(objective, [*OBJECTIVES[task], *known], n=3, cutoff=0.5)
        hint = f"; near names: {', '.join(map(repr, near))}" if near else ""
        raise ParameterError(f"objective={objective!r} for a {task} memory; expected {expected}{hint}")
    return metrics.get_scorer(objective)


class ScorerSweep:
    """Every setting by a scorer: what all rows found is kept, and read again setting after setting."""

    reader: NeighbourReader
    grid: Grid
    objective: str | Scorer
    scorer: Scorer
    kept: list[tuple[Encoded, Prediction]]

    def __init__(self, reader: NeighbourReader, grid: Grid, objective: str | Scorer):
        self.reader, self.grid, self.objective, self.kept = reader, grid, objective, []
        self.scorer = scorer_of(objective, reader.memory.task)

    def add(self, part: Encoded, prediction: Prediction, truth: Tensor) -> None:
        """Keep a block, whose prediction holds the neighbours."""
        self.kept.append((part, prediction))

    def results(self, max_fpr: float) -> dict[str, np.ndarray]:
        """``score`` of every setting, with an axis for each parameter of the grid."""
        score = np.zeros([len(values) for values in self.grid.values()])
        at = {name: axis for axis, name in enumerate(self.grid)}
        for index in np.ndindex(*score.shape):
            # The base, at one temperature: all other parameters are the same to it.
            first = tuple(place if axis in (at["k"], at.get("temperature")) else 0 for axis, place in enumerate(index))
            if index[at["k"]] == 0 and index != first:
                score[index] = score[first]
                continue
            setting = {name: plain(values[place]) for (name, values), place in zip(self.grid.items(), index)}
            try:
                score[index] = Answers(self.reader.with_params(**setting), self.kept).score_by(self.scorer)
            except ValueError as error:
                raise ParameterError(f"objective={self.objective!r} cannot judge these rows: {error}") from error
        return {"score": score}


class Answers:
    """What a reader says of rows whose neighbours are known, as an estimator of row numbers.

    Attributes
    ----------
    truth : array of shape (n,) or (n, L)
    """

    truth: np.ndarray
    estimator: Any

    def __init__(self, reader: NeighbourReader, kept: Sequence[tuple[Encoded, Prediction]]):
        classes, said, sure, truth = reader.memory.task != "regression", [], [], []
        for part, found in kept:
            now = reader.reread(found, as_tensor(part.keys), part.logits)
            said.append((now.argmax() if classes else now.scores).cpu().numpy())
            sure.append(now.probabilities.double().cpu().numpy() if classes else said[-1])
            truth.append(labels_of(part, WHY))
        flat = reader.memory.task == "regression" and reader.memory.flat_labels
        self.truth, predictions = np.concatenate(truth), np.concatenate(said)
        self.estimator = estimator_of(
            reader.memory, predictions[:, 0] if flat else predictions, np.concatenate(sure) if classes else None
        )

    def score_by(self, scorer: Scorer, rows: np.ndarray | None = None) -> float:
        """The scorer's judgement of all rows, or of some (numbers, repeated ones count again)."""
        rows = np.arange(len(self.truth)) if rows is None else rows
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that nobody predicts, in setting after setting
            return float(scorer(self.estimator, rows, self.truth[rows]))


def estimator_of(memory: Memory, said: np.ndarray, sure: np.ndarray | None) -> Any:
    """A fitted scikit-learn estimator whose X are numbers of rows that were answered, (n,) or (n, 1): what was `said`
    of them, and how `sure` one was of each class, None of a regression."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    def fit(self: Any, X: Any = None, y: Any = None) -> Any:
        return self  # as it is: some tools ask for one

    def predict(self: Any, X: np.ndarray) -> np.ndarray:
        return said[np.asarray(X).reshape(-1)]

    def predict_proba(self: Any, X: np.ndarray) -> np.ndarray:
        assert sure is not None
        p = sure[np.asarray(X).reshape(-1)]
        return p / p.sum(axis=1, keepdims=True) if memory.task == "classification" else p

    outputs = memory.n_outputs
    if sure is None:
        known: dict[str, Any] = {"fit": fit, "predict": predict, "__sklearn_is_fitted__": lambda self: True}
        return type("Answered", (RegressorMixin, BaseEstimator), known)()
    several = memory.task == "multi-label"
    classes = [np.arange(2)] * outputs if several else np.arange(outputs)
    known = {"fit": fit, "predict": predict, "predict_proba": predict_proba, "classes_": classes}
    return type("Answered", (ClassifierMixin, BaseEstimator), known | {"__sklearn_is_fitted__": lambda self: True})()


def score_gain(
    sweep: ScorerSweep, base: NeighbourReader, memory: NeighbourReader, counted: np.ndarray, groups: np.ndarray | None
) -> tuple[float, float]:
    """By how much the score rises with the memory on the `counted` rows, bool (n,), of those that a sweep has kept, and
    the same in standard errors: those of paired bootstrap resamples of rows, or of whole `groups` (n,)."""
    scorer, before, now = sweep.scorer, Answers(base, sweep.kept), Answers(memory, sweep.kept)
    rows, rng = np.flatnonzero(counted), np.random.default_rng(0)
    if not len(rows):
        return 0.0, 0.0
    numbers = rows if groups is None else groups[rows]
    members = [rows[numbers == name] for name in np.unique(numbers)] if groups is not None else rows[:, None]
    gains = []
    for drawn in [None, *rng.integers(0, len(members), (RESAMPLES, len(members)))]:
        some = rows if drawn is None else np.concatenate([members[place] for place in drawn])
        try:
            gains.append(now.score_by(scorer, some) - before.score_by(scorer, some))
        except ValueError:  # a class may be missing among some, of which a scorer wants all
            gains.append(np.nan)
    gain, spread = gains[0], float(np.nanstd(gains[1:])) if np.isfinite(gains[1:]).any() else 0.0
    return (gain, gain / spread) if np.isfinite(gain) and spread > 0 else (0.0, 0.0)
