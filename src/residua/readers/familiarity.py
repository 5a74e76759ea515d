"""What a memory does not know: how far a query is from it, and how unsure its answer, beside the memory's own rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from residua import html
from residua.core import AbsentLogits, Encoded, Neighbours
from residua.core.frame import data_frame
from residua.errors import EmptyMemoryError, IdError
from residua.memory.queries import sampled_rows
from residua.printable import count
from residua.readers.residual_size import near_sizes, residual_sizes, typical_size

if TYPE_CHECKING:
    import pandas

    from residua.readers.reader import Exclude, Reader

LEAST_K = 50  # the distance to a nearer one tells less (Sun et al. 2022)
SHOWN = 0.05


@dataclass(frozen=True)
class Measures:
    """Of rows: distances, what grows with their doubt (None where nothing tells it), and ids; each (n,)."""

    distance: np.ndarray
    doubt: np.ndarray | None
    ids: np.ndarray | None

    def by_id(self) -> Measures:
        """The means over the rows of each id, ascending; ``IdError`` for rows without ids."""
        if self.ids is None:
            raise IdError("these rows have no ids; expected those of their documents: Encoded(..., ids=...)")
        ids, at, rows = np.unique(self.ids, return_inverse=True, return_counts=True)
        doubt = None if self.doubt is None else np.bincount(at, self.doubt) / rows
        return Measures(np.bincount(at, self.distance) / rows, doubt, ids)


@dataclass(frozen=True, eq=False, repr=False)
class Familiarity:
    """Two p-values of each row, each beside the memory's own rows, answered without themselves.

    Of rows like those remembered a share of about p has a p-value of at most p. They say different things, which a sum
    would hide: what is far from the memory is *unfamiliar*, what lies between its classes is *unsure*.

    Attributes
    ----------
    unfamiliar : float64 array of shape (n,)
        ``(1 + #{d_i >= d}) / (1 + m)`` over `m` own rows: small where the k-th neighbour is further away than theirs.
    unsure : float64 array of shape (n,), or None
        The same of the reader's largest probability: small where it is smaller than theirs. Of a regression, of the
        neighbours' residuals: small where they are larger. None where the memory kept no logits.
    distance : float64 array of shape (n,)
        To the k-th neighbour, in the memory's own metric; inf without neighbours.
    ids : int64 array of shape (n,), or None
    k, m : int
    """

    unfamiliar: np.ndarray
    unsure: np.ndarray | None
    distance: np.ndarray
    ids: np.ndarray | None
    k: int
    m: int
    measured: tuple[Measures, Measures]

    @classmethod
    def between(cls, rows: Measures, own: Measures, k: int) -> Familiarity:
        """Of `rows`, beside a memory's `own`."""
        unsure = None if rows.doubt is None or own.doubt is None else _p_values(rows.doubt, own.doubt)
        far = _p_values(rows.distance, own.distance)
        return cls(far, unsure, rows.distance, rows.ids, k, len(own.distance), (rows, own))

    def documents(self) -> Familiarity:
        """The same of whole documents (of any rows that share an id), ascending by id: of the means over their rows,
        beside the means over the sampled rows of each remembered one. ``IdError`` for rows without ids."""
        rows, own = self.measured
        return Familiarity.between(rows.by_id(), own.by_id(), self.k)

    def to_frame(self) -> pandas.DataFrame:
        """A pandas data frame with one row per row: ``id`` (where they have one), ``distance``, ``unfamiliar``,
        ``unsure``. ``MissingDependencyError`` without pandas."""
        table = {"id": self.ids, "distance": self.distance, "unfamiliar": self.unfamiliar, "unsure": self.unsure}
        return data_frame({name: values for name, values in table.items() if values is not None}, {})

    def __len__(self) -> int:
        return len(self.unfamiliar)

    def __repr__(self) -> str:
        return f"Familiarity({self._said()})"

    def _repr_html_(self) -> str:
        return html.paragraph(self._said())

    def _said(self) -> str:
        found = {"unfamiliar": self.unfamiliar, "unsure": self.unsure}
        shares = [
            f"{100 * np.mean(p <= SHOWN):.1f} % {name}" for name, p in found.items() if p is not None and len(self)
        ]
        return ": ".join(filter(None, [count(len(self), "row"), ", ".join(shares)])) + f" at p = {SHOWN}"


def own_measures(reader: Reader) -> Measures:
    """Of a sample of the memory's own rows, each answered without itself; ``EmptyMemoryError`` without any."""
    if not len(reader.memory):
        raise EmptyMemoryError("the memory is empty: there is nothing that a row could be familiar to; add rows to it")
    return measured(reader, sampled_rows(reader.memory), "own", depth(reader))


def depth(reader: Reader) -> int:
    """Which neighbour's distance is looked at: k, or the 50th where that is further; there must be one without the row
    itself."""
    return max(1, min(max(reader.k, LEAST_K), len(reader.memory) - 1))


def measured(reader: Reader, data: Encoded | Iterable[Encoded], exclude: Exclude, k: int) -> Measures:
    """Distances to the k-th neighbours, and doubts: 1 - the largest probability, or the neighbours' residuals."""
    memory, reader = reader.memory, reader.searching_all()
    numbers, sizes = memory.task == "regression", None
    if numbers and memory.stored_logits is not None:
        sizes = residual_sizes(memory)
        sizes /= typical_size(sizes, memory)
    distances, doubts, ids = [np.empty(0)], [np.empty(0)], list[np.ndarray | None]()
    for part, prediction in reader.predictions(data, exclude=exclude, depth=k):
        distances.append(kth_distance(prediction.near.first(k)))
        if sizes is not None:
            doubts.append(near_sizes(sizes, prediction).mean(dim=1).cpu().numpy())
        elif not numbers and not isinstance(part.logits, AbsentLogits):
            doubts.append(1 - prediction.log_prob(prediction.argmax()).double().exp().cpu().numpy())
        ids.append(part.ids)
    found, doubt, named = np.concatenate(distances), np.concatenate(doubts), [one for one in ids if one is not None]
    whole = len(named) == len(ids) > 0
    return Measures(found, doubt if len(doubt) == len(found) else None, np.concatenate(named) if whole else None)


def kth_distance(near: Neighbours) -> np.ndarray:
    """The distance to the last neighbour of each query, float64 (q,); to the last found where there are fewer, inf
    where there is none."""
    far = near.distances.masked_fill(~near.found, -torch.inf).amax(dim=1)
    return far.masked_fill(far == -torch.inf, torch.inf).double().cpu().numpy()


def _p_values(rows: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The share of `own` values (and of each row's itself) that are at least as large."""
    return (1 + len(own) - np.searchsorted(np.sort(own), rows, side="left")) / (1 + len(own))
