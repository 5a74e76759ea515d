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


def agreement(rows: Mapping[str, np.ndarray], neighbours: str) -> dict[str, dict[str, float]]:
    """Rows of which label k-NN (its column `neighbours`) says what the model says, and the others: their share, and how
    many of them each is right about."""
    right = {
        "base": rows["base_prediction"] == rows["label"],
        "label_knn": rows[neighbours],
        "reader": rows["prediction"] == rows["label"],
    }
    found = {}
    for name, own in (("agree", rows[f"{neighbours}_agrees"]), ("disagree", ~rows[f"{neighbours}_agrees"])):
        means = {who: float(of[own].mean()) if own.any() else float("nan") for who, of in right.items()}
        found[name] = {"share": float(own.mean()), **means}
    return found


def by_superclass(rows: Mapping[str, np.ndarray], number: np.ndarray, names: Sequence[Any]) -> dict[str, np.ndarray]:
    """A row for each superclass with test rows, and one for all; `number` (L,) is that of each class."""
    truth, wrong = number[rows["label"]], rows["base_prediction"] != rows["label"]
    within = number[rows["base_prediction"]] == truth
    columns: dict[str, np.ndarray] = {}
    for prefix in SIDES:
        columns[f"{prefix}accuracy"] = rows[f"{prefix}prediction"] == rows["label"]
    for prefix in SIDES:
        columns[f"{prefix}superclass_accuracy"] = number[rows[f"{prefix}prediction"]] == truth
    columns["base_errors_within"] = np.where(wrong, within, np.nan)
    columns["corrected_within"] = np.where(rows["gain"] > 0, within, np.nan)
    groups = [("all", np.ones(len(truth), bool))]
    groups = [(name, truth == i) for i, name in enumerate(names) if (truth == i).any()] + groups
    table: dict[str, list[Any]] = {"superclass": [name for name, _ in groups]}
    table["support"] = [int(own.sum()) for _, own in groups]
    for name, values in columns.items():
        known = [values[own][~np.isnan(values[own].astype(float))] for _, own in groups]
        table[name] = [float(some.mean()) if len(some) else float("nan") for some in known]
    return {name: np.asarray(values) for name, values in table.items()}
