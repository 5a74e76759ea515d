"""A review queue: what an audit found of each remembered row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from residua import html
from residua.core.exported import Exported
from residua.core.frame import data_frame
from residua.core.naming import checked_classes, class_name
from residua.drawing.look import Images, Look, facts_of, named, picture_of
from residua.printable import count, one_line, short

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from scipy.sparse import csr_matrix

SHOWN = 10  # rows in the printed table


@dataclass(frozen=True, eq=False, repr=False)
class Audit(Exported):
    """Of each of n remembered rows, in the order of ``memory.labels``: is its label doubtful, what is it worth.

    Attributes
    ----------
    reader, params : str, dict
        Whose answers the margins, memorisation and influence are of: class and parameters, in JSON types.
    ids, labels, suggested : int64 arrays of shape (n,)
        Ids, labels, and what the reader says of each row without those of its own id.
    margin : float64 array of shape (n,)
        The log-probability of the label, less that of the best other class, without the row's own id, in nats: below 0
        the reader says something else.
    memorisation : float64 array of shape (n,)
        The probability of the label with the rows of its own id, less that without them.
    influence : float64 array of shape (n,)
        By how much this row raises the probability of a utility row's label, in the mean over all: with it, less
        without it alone.
    shapley : float64 array of shape (n,)
        KNN-Shapley values, for unweighted label k-NN with the reader's k. Exact values sum to ``utility``.
    utility, n_utility, shapley_error : float, int, float
        What that k-NN earns: in the mean over utility rows the share of the label among the k nearest; how many rows;
        how far a value may be off, 0 where values are exact (for an exact index).
    nearest, nearest_distance : int64 and float32 arrays of shape (n,)
        The nearest remembered row of another id, as a position in these arrays (-1 for none), and how far (nan).
    nearest_test, test_distance : int64 and float32 arrays of shape (n,), or None
        The same among the utility rows, as the number of one; None where none were given. Over 10 000 of them, -1 and
        inf for rows that are nobody's near neighbours.
    duplicate_distance : float
        Up to which rows are near-duplicates.
    pred_probs : float32 array of shape (n, L)
        The reader's probabilities without each row's own id: cleanlab's ``pred_probs``.
    knn_graph : scipy.sparse.csr_matrix of shape (n, n)
        Distances to the k nearest rows of other ids (fewer where a row has fewer), nearest first: cleanlab's
        ``knn_graph``.
    names, columns, classes : dict, dict, tuple of L str or None
        What the memory calls ids, what else its rows carry, (n, ...) by name, and what it calls classes.
    """

    reader: str
    params: dict[str, Any]
    ids: np.ndarray
    labels: np.ndarray
    suggested: np.ndarray
    margin: np.ndarray
    memorisation: np.ndarray
    influence: np.ndarray
    shapley: np.ndarray
    utility: float
    n_utility: int
    shapley_error: float
    nearest: np.ndarray
    nearest_distance: np.ndarray
    nearest_test: np.ndarray | None
    test_distance: np.ndarray | None
    duplicate_distance: float
    pred_probs: np.ndarray
    knn_graph: csr_matrix
    names: dict[int, str]
    columns: dict[str, np.ndarray]
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """How many rows were looked at."""
        return len(self.ids)

    @property
    def duplicate(self) -> np.ndarray:
        """Rows with a near-duplicate of another id in the memory, bool (n,)."""
        return self.nearest_distance <= self.duplicate_distance

    @property
    def test_duplicate(self) -> np.ndarray:
        """Rows with a near-duplicate among the utility rows, bool (n,)."""
        return (
            np.zeros(len(self), bool) if self.test_distance is None else self.test_distance <= self.duplicate_distance
        )

    def to_frame(self, classes: Sequence[str] | None = None) -> pandas.DataFrame:
        """A pandas data frame with one row per remembered row, the most doubtful label first; its index is the
        position in ``memory.labels``.

        Parameters
        ----------
        classes : sequence of str of length L, optional
            Names of the classes, if not the memory's own.

        Returns
        -------
        pandas.DataFrame
            Columns ``id`` (and ``name``, where ids have names), ``label``, ``suggested``, ``margin``,
            ``memorisation``, ``influence``, ``shapley``; ``nearest`` (the id of the nearest row of another id; -1 for
            none), ``nearest_distance``, ``duplicate``; where utility rows were given ``nearest_test`` (the number of
            one), ``test_distance``, ``test_duplicate``.

        Raises
        ------
        MissingDependencyError, ShapeError
        """
        width = self.pred_probs.shape[1]
        named = self.classes if classes is None else checked_classes([str(name) for name in classes], width)
        table: dict[str, object] = {"id": self.ids}
        if self.names:
            table["name"] = [self._name(id) for id in self.ids.tolist()]
        for name in ("label", "suggested"):
            said = self.labels if name == "label" else self.suggested
            table[name] = said if named is None else [named[label] for label in said]
        table |= {name: getattr(self, name) for name in ("margin", "memorisation", "influence", "shapley")}
        table["nearest"] = np.where(self.nearest < 0, -1, self.ids[self.nearest])
        table |= {"nearest_distance": self.nearest_distance, "duplicate": self.duplicate}
        if self.nearest_test is not None:
            table |= {"nearest_test": self.nearest_test, "test_distance": self.test_distance}
            table["test_duplicate"] = self.test_duplicate
        return data_frame(table, {}).iloc[self.order]

    def look(self, at: int, images: Images | None = None) -> Look:
        """What the row at a position looks like to a person; `images` are those of what is remembered, by id."""
        id = int(self.ids[at])
        picture = picture_of(images, id, self.names.get(id))
        return Look(named(self.names.get(id), f"id {id}"), picture, None, facts_of(self.columns, at))

    def plot(self, images: Images | None = None, *, rows: int = 12) -> Figure:
        """A picture of the `rows` most doubtful labels: each remembered row, its label, and what the reader says.

        Parameters
        ----------
        images : array or tensor (n, h, w[, c]) or (n, c, h, w), sequence, mapping, callable, path, optional
            Pictures of what is remembered, by id; a folder that names are in. Without, names that are paths of
            pictures are opened. What has no picture is shown by its columns.
        rows : int, default 12

        Returns
        -------
        matplotlib.figure.Figure
            ``savefig`` writes it; a notebook shows it.

        Raises
        ------
        MissingDependencyError, InputError, ShapeError
        """
        from residua.review.picture import draw

        return draw(self, images, rows)

    @property
    def order(self) -> np.ndarray:
        """Positions int64 (n,), the most doubtful label first."""
        return np.argsort(self.margin, kind="stable")

    def to_dict(self) -> dict[str, Any]:
        """The figures of the whole, as JSON types."""
        return {
            "reader": self.reader,
            "params": self.params,
            "rows": len(self),
            "doubtful": int((self.margin < 0).sum()),
            "duplicates": int(self.duplicate.sum()),
            "test_duplicates": None if self.nearest_test is None else int(self.test_duplicate.sum()),
            "duplicate_distance": float(self.duplicate_distance),
            "utility": float(self.utility),
            "n_utility": self.n_utility,
            "shapley_error": float(self.shapley_error),
        }

    def __repr__(self) -> str:
        doubtful = int((self.margin < 0).sum())
        return f"Audit({self.reader} on {count(len(self), 'row')}: {doubtful:,} of which the reader says another label)"

    def __str__(self) -> str:
        cells = [[str(cell) for cell in row] for row in self._rows()]
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths)) for row in cells]
        return "\n".join([*self._about(), "", *lines])

    def _repr_html_(self) -> str:
        return "".join(map(html.paragraph, self._about())) + html.table(self._rows())

    def _about(self) -> list[str]:
        said = self.to_dict()
        whose = "rows of its own" if self.nearest_test is None else "utility rows"
        error = f", each off by at most {self.shapley_error:.2g}" if self.shapley_error else ""
        near = f"{said['duplicates']:,} have a near-duplicate in the memory"
        if self.nearest_test is not None:
            near += f", {said['test_duplicates']:,} among the utility rows"
        return [
            f"{count(len(self), 'remembered row')} read by {short({'reader': self.reader, 'params': self.params})}",
            f"of {said['doubtful']:,} the reader says another label; {near} (within {self.duplicate_distance:.3g})",
            f"KNN-Shapley of unweighted label k-NN, k={self.params['k']}, on {self.n_utility:,} {whose}: utility "
            f"{self.utility:.4f}{error}",
        ]

    def _rows(self) -> list[tuple[str, ...]]:
        head = ["id", *(["name"] if self.names else []), "label", "suggested", "margin", "memorised", "influence"]
        table: list[tuple[str, ...]] = [(*head, "Shapley")]
        for at in self.order[:SHOWN]:
            name = [self._name(int(self.ids[at]))] if self.names else []
            said = [class_name(self.classes, int(label[at])) for label in (self.labels, self.suggested)]
            numbers = [f"{self.margin[at]:.2f}", f"{self.memorisation[at]:.3f}"]
            numbers += [f"{values[at]:+.2e}" for values in (self.influence, self.shapley)]
            table.append((str(self.ids[at]), *name, *said, *numbers))
        return table

    def _name(self, id: int) -> str:
        return one_line(self.names.get(id, str(id)))
