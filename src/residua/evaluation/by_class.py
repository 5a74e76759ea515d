"""What an evaluation says of each class, and of the rare ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SIDES = ("base_", "")  # of the model alone, and with the memory


def recall_and_precision(
    rows: Mapping[str, np.ndarray],
    support: np.ndarray,
    names: Sequence[Any],
    remembered: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """A column for each measure, a row for each class that is true or said; `support` (L,): the rows of each."""
    width, label = len(support), rows["label"]
    table: dict[str, Any] = {"class": list(names), "support": support}
    if remembered is not None:
        table["remembered"] = remembered
    there = support > 0
    for prefix in SIDES:
        said = rows[f"{prefix}prediction"]
        hits, given = np.bincount(label[said == label], minlength=width), np.bincount(said, minlength=width)
        table[f"{prefix}recall"] = np.where(support > 0, hits / np.maximum(support, 1), np.nan)
        table[f"{prefix}precision"] = np.where(given > 0, hits / np.maximum(given, 1), np.nan)
        there = there | (given > 0)
    table["gain"] = table["recall"] - table["base_recall"]
    return {name: np.asarray(values)[there] for name, values in table.items()}


def by_rarity(
    rows: Mapping[str, np.ndarray], support: np.ndarray, remembered: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Accuracy of the base and of the reader among rows of the rare, the middle and the frequent classes: thirds of
    those with rows, by how many of each are `remembered` (L,)."""
    there = np.flatnonzero(support)
    counts = remembered[there]
    if len(there) < 3 or counts.max() < 2 * counts.min():
        return {}
    thirds = np.array_split(there[np.argsort(counts, kind="stable")], 3)
    found, label = {}, rows["label"]
    for name, third in zip(("rarest third of classes", "middle third", "most frequent third"), thirds):
        own = np.isin(label, third)
        base, now = (float((rows[f"{prefix}prediction"][own] == label[own]).mean()) for prefix in SIDES)
        found[name] = base, now
    return found
