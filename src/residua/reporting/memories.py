"""What an audit found, as lists to act on: memories that helped and harmed, and what is there twice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from residua.core.naming import class_name
from residua.drawing import Images, Look
from residua.review import Audit


@dataclass(frozen=True)
class Judged:
    """A remembered row: its id, what it looks like, its label and what its neighbours say, and what it is worth.

    Attributes
    ----------
    id : int
    look : Look
    label, suggested : str
    doubtful : bool
        Whether the reader, without the row, says another label.
    value : str
        Its influence, in a list of duplicates the distance to the other one.
    other : int or None
        The id of its near-duplicate.
    """

    id: int
    look: Look
    label: str
    suggested: str
    doubtful: bool
    value: str
    other: int | None = None


@dataclass(frozen=True)
class Review:
    """The parts of an audit that are shown.

    Attributes
    ----------
    rows, doubtful, duplicates, test_duplicates : int or None
        How many rows, how many of doubtful label, and with a near-duplicate in the memory, and among the utility rows.
    on : str
        Whose rows the memories helped and harmed.
    helped, harmed, twice, doubted : list of Judged
    """

    rows: int
    doubtful: int
    duplicates: int
    test_duplicates: int | None
    on: str
    helped: list[Judged]
    harmed: list[Judged]
    twice: list[Judged]
    doubted: list[Judged]


def review_of(found: Audit, remembered: Images | None, most: int) -> Review:
    """The `most` telling rows of an audit."""
    order = np.argsort(-found.influence, kind="stable")
    helped = [at for at in order[:most].tolist() if found.influence[at] > 0]
    harmed = [at for at in order[::-1][:most].tolist() if found.influence[at] < 0]
    # Of two that are alike the later one; of many, all but the first.
    later = found.duplicate & (found.nearest >= 0) & (found.nearest < np.arange(len(found)))
    twice = np.flatnonzero(later)
    twice = twice[np.argsort(found.nearest_distance[twice], kind="stable")][:most]
    doubted = [at for at in found.order[:most].tolist() if found.margin[at] < 0]
    said = found.to_dict()
    return Review(
        rows=len(found),
        doubtful=said["doubtful"],
        duplicates=said["duplicates"],
        test_duplicates=said["test_duplicates"],
        on=f"{found.n_utility:,} {'rows of the memory itself' if found.nearest_test is None else 'test rows'}",
        helped=[_judged(found, at, remembered, f"{found.influence[at]:+.2e}") for at in helped],
        harmed=[_judged(found, at, remembered, f"{found.influence[at]:+.2e}") for at in harmed],
        twice=[_twin(found, at, remembered) for at in twice.tolist()],
        doubted=[_judged(found, at, remembered, f"margin {found.margin[at]:.2f}") for at in doubted],
    )


def _judged(found: Audit, at: int, remembered: Images | None, value: str) -> Judged:
    label, suggested = (class_name(found.classes, int(of[at])) for of in (found.labels, found.suggested))
    doubtful = bool(found.margin[at] < 0)
    return Judged(int(found.ids[at]), found.look(at, remembered), label, suggested, doubtful, value)


def _twin(found: Audit, at: int, remembered: Images | None) -> Judged:
    distance = float(found.nearest_distance[at])
    one = _judged(found, at, remembered, f"{distance:.3g} apart" if math.isfinite(distance) else "")
    return Judged(
        one.id, one.look, one.label, one.suggested, one.doubtful, one.value, int(found.ids[found.nearest[at]])
    )
