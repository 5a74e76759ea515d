"""One prediction's anatomy, as arrays, as a data frame and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from residua.errors import MissingDependencyError, ShapeError

SHOWN = 10  # neighbours in the printed table


@dataclass(frozen=True, eq=False)
class Explanation:
    """``scale * base + contributions.sum(axis=0) == scores``; neighbours come nearest first, missing ones not at all.

    Attributes
    ----------
    task : {"classification", "regression"}
    rows, ids : int64 arrays of shape (k,)
        The neighbours' row numbers in the memory, and their ids.
    labels : array of shape (k,), or (k, m) for m regression targets
        Their labels.
    distances : float32 array of shape (k,)
        Plain (not squared) Euclidean distances of their keys.
    weights : float32 array of shape (k,)
        What multiplies each one's value: normalised kernel weights, times lmbda for kNN-LM.
    contributions : float32 array of shape (k, L)
        What each neighbour adds to each score.
    base : float32 array of shape (L,)
        The base's own scores: softmax(f / T); predictions for regression; logits in ``space="logits"``.
    scale : float
        What is left of them: 1 for ResMem, 1 - lmbda for kNN-LM.
    scores : float32 array of shape (L,)
        The reader's scores.
    prediction, base_prediction : int, or float, or float32 array of shape (m,)
        Of the reader, and of the model alone.
    label : the same, or None
        The truth, when the query came with it.
    columns : dict of str to array of shape (k, ...)
        What else the remembered rows carry, such as a path.
    """

    task: str
    rows: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    weights: np.ndarray
    contributions: np.ndarray
    base: np.ndarray
    scale: float
    scores: np.ndarray
    prediction: int | float | np.ndarray
    base_prediction: int | float | np.ndarray
    label: int | float | np.ndarray | None
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        """How many neighbours there are."""
        return len(self.rows)

    def to_frame(self, classes: Sequence[str] | None = None):
        """A pandas data frame with one row per neighbour, nearest first.

        Parameters
        ----------
        classes : sequence of str of length L, optional
            Names of the classes (or of the regression outputs).

        Returns
        -------
        pandas.DataFrame
            Columns ``id``, ``label``, ``distance``, ``weight``. Classification: ``to_predicted``, ``to_base`` and,
            when the truth is known, ``to_true``: what the neighbour adds to the score of the predicted class, of the
            one the model alone predicts, and of the true one. Regression: ``to_output``, or ``to_<name>`` (and
            ``label_<name>``) for each of several. Then the memory's own columns of one value per row; where a name is
            taken, ``column.<name>``.

        Raises
        ------
        MissingDependencyError
            When pandas is not installed.
        ShapeError
            When there are not L names.

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> memory = rs.Memory(rs.Encoded(np.array([[0.0], [3.0]]), np.zeros((2, 2)), [0, 1]))
        >>> why = rs.explain(rs.ResMem(memory, k=1, sigma=1.0), rs.Encoded([[1.0]], np.zeros((1, 2))))
        >>> print(why.to_frame(["cat", "dog"]).to_string(index=False))
         id label  distance  weight  to_predicted  to_base
          0   cat       1.0     1.0           0.5      0.5
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependencyError(
                'to_frame needs pandas: pip install "residua[sklearn]"; the same numbers are attributes'
            ) from error
        names = self._names(classes)
        table: dict[str, object] = {"id": self.ids}
        if self.task == "classification":
            table["label"] = [names[label] for label in self.labels] if classes is not None else self.labels
        elif len(names) == 1:
            table["label"] = self.labels.reshape(-1)
        else:
            table |= {f"label_{name}": self.labels[:, i] for i, name in enumerate(names)}
        table |= {"distance": self.distances, "weight": self.weights}
        table |= {f"to_{word}": self.contributions[:, i] for word, i in self._outputs(names).items()}
        for name, column in self.columns.items():
            if column.ndim == 1:
                table[f"column.{name}" if name in table else name] = column
        return pandas.DataFrame(table)

    def __str__(self) -> str:
        names = self._names(None)
        truth = "" if self.label is None else f", truth {_shown(self.label)}"
        lines = [f"prediction {_shown(self.prediction)} (base alone {_shown(self.base_prediction)}{truth})"]
        outputs = list(dict.fromkeys(self._outputs(names).values()))  # predicted and base may be one class
        for i in outputs:
            left, added = self.scale * float(self.base[i]), float(self.contributions[:, i].sum())
            what = f"class {i}" if self.task == "classification" else f"output {i}"
            lines.append(
                f"  {what}: base {left:.4g} {added:+.4g} from {len(self)} neighbours = {float(self.scores[i]):.4g}"
            )
        if not len(self):
            return "\n".join([*lines, "no neighbours: this is the model alone"])
        lines += self._table(outputs)
        if len(self) > SHOWN:
            lines.append(f"and {len(self) - SHOWN} more, of weight {float(self.weights[SHOWN:].sum()):.4f} together")
        return "\n".join(lines)

    def _table(self, outputs: list[int]) -> list[str]:
        number = "+.4f" if self.task == "classification" else "+.4g"
        rows = [["id", "label", "distance", "weight", *(f"to {i}" for i in outputs)]]
        for n in range(min(SHOWN, len(self))):
            about = [str(self.ids[n]), _shown(self.labels[n]), f"{self.distances[n]:.4g}", f"{self.weights[n]:.4f}"]
            rows.append(about + [f"{self.contributions[n, i]:{number}}" for i in outputs])
        widths = [max(map(len, column)) for column in zip(*rows)]
        return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths)) for row in rows]

    def _names(self, classes: Sequence[str] | None) -> list[str]:
        if classes is None:
            return [str(i) for i in range(len(self.scores))]
        if len(classes) != len(self.scores):
            raise ShapeError(f"{len(classes)} names for {len(self.scores)} outputs; expected one each")
        return [str(name) for name in classes]

    def _outputs(self, names: list[str]) -> dict[str, int]:
        """The outputs worth a column, by what they are called there."""
        if self.task == "classification":
            told = {"predicted": self.prediction, "base": self.base_prediction, "true": self.label}
            return {word: int(i) for word, i in told.items() if i is not None}
        return {"output": 0} if len(self.scores) == 1 else {name: i for i, name in enumerate(names)}


def _shown(value) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return "[" + " ".join(f"{item:.4g}" for item in value.tolist()) + "]"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
