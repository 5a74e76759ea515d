"""Rows of the test data that the memory mended, and broke, beside the memories that did it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from residua.core import Encoded, batches
from residua.core.naming import class_name
from residua.drawing import Images, Look, picture_of
from residua.drawing.look import facts_of
from residua.evaluation import Evaluation
from residua.explanation import Explanation, explain
from residua.explanation.explanation import Decoder
from residua.explanation.picture import decisive, said, swing
from residua.readers import Reader
from residua.readers.reader import Exclude

BEFORE = 32  # tokens shown before one


@dataclass(frozen=True)
class Moved:
    """A memory beside an example: what it is, and by how much it moved the answer.

    Attributes
    ----------
    look : Look
    id : int or None
        To ``forget`` it by; None where it is another source's, such as the text's own past.
    label : str
    to : list of (str, str)
        What it added to which score.
    distance : float
    helped : bool or None
        Whether it moved the answer towards the truth; None where it cannot be said, or it hardly moved it.
    """

    look: Look
    id: int | None
    label: str
    to: list[tuple[str, str]]
    distance: float
    helped: bool | None


@dataclass(frozen=True)
class Example:
    """A row of the test data.

    Attributes
    ----------
    row : int
    look : Look
    truth, base, now : str
        The truth, and what is said by the model alone and with the memory.
    base_sure, sure : str
        How probable each thinks its own answer; of a regression its squared error.
    memories : list of Moved
        Those that moved the answer most; empty where the reader cannot be taken apart.
    """

    row: int
    look: Look
    truth: str
    base: str
    now: str
    base_sure: str
    sure: str
    memories: list[Moved]


def choose(result: Evaluation, mended: bool, most: int) -> list[int]:
    """Rows that the memory mended, or broke: of classes the clearest of each confusion, the most frequent confusions
    first, then the next clearest; else those that changed most."""
    rows, sign = result.per_row, 1 if mended else -1
    moved = np.flatnonzero(sign * rows["gain"] > 0)
    if result.task != "classification":
        return moved[np.argsort(-sign * rows["gain"][moved], kind="stable")][:most].tolist()
    clear = sign * (rows["log_prob"][moved] - rows["base_log_prob"][moved])
    moved = moved[np.argsort(-clear, kind="stable")]
    wrong = rows["base_prediction" if mended else "prediction"]
    of_pair: dict[tuple[int, int], list[int]] = {}
    for row in moved.tolist():
        of_pair.setdefault((int(rows["label"][row]), int(wrong[row])), []).append(row)
    pairs = sorted(of_pair.values(), key=len, reverse=True)
    first = [found[0] for found in pairs]
    rest = [row for row in moved.tolist() if row not in set(first)] if len(first) < most else []
    return (first + rest)[:most]


def examples(
    reader: Reader,
    test: Encoded | Iterable[Encoded],
    result: Evaluation,
    rows: Sequence[int],
    *,
    exclude: Exclude,
    images: Images | None,
    remembered: Images | None,
    tokenizer: Decoder | None,
    memories: int,
) -> list[Example]:
    """These rows, in their order, taken apart by the part of `reader` that answers a row by itself."""
    taken = picked(test, rows)
    apart = answers_alone(reader)
    found = []
    for row in rows:
        look, why = _look(result, row, taken[row], images, tokenizer), None
        if apart is not None:
            own = exclude[row : row + 1] if isinstance(exclude, np.ndarray) else exclude
            why = explain(apart, taken[row], exclude=own, context=BEFORE, tokenizer=tokenizer)
            why = replace(why, classes=result.classes)
        near = [] if why is None else decisive(why)[:memories]
        found.append(
            Example(
                row=row,
                look=look,
                truth=_shown(result, "label", row, tokenizer),
                base=_shown(result, "base_prediction", row, tokenizer),
                now=_shown(result, "prediction", row, tokenizer),
                base_sure=_sure(result, "base_", row),
                sure=_sure(result, "", row),
                memories=[] if why is None else [_moved(why, one, remembered) for one in near],
            )
        )
    return found


def answers_alone(reader: Reader) -> Reader | None:
    """The reader, or what it is over, that answers each row by itself, as explaining one takes it; None without."""
    one: Reader | None = reader
    while one is not None and one.start() is not None:
        one = getattr(one, "over", None)
    return one if one is None or one.has_neighbours else None


def picked(data: Encoded | Iterable[Encoded], rows: Sequence[int]) -> dict[int, Encoded]:
    """Some rows of `data` by their numbers; what streams by is read no farther than the last of them."""
    wanted, found, first = sorted(set(rows)), dict[int, Encoded](), 0
    if not wanted:
        return found
    for batch in batches(data):
        found |= {row: batch[row - first] for row in wanted if first <= row < first + len(batch)}
        first += len(batch)
        if first > wanted[-1]:
            break
    return found


def before(result: Evaluation, row: int, most: int = BEFORE) -> np.ndarray:
    """The tokens before a row of a text, oldest first: labels of the rows before it, without gaps, of its document."""
    rows, offsets = result.per_row, result.columns.get("offset")
    if offsets is None or "id" not in rows:
        return np.empty(0, np.int64)
    first = max(0, row - most)
    same = (rows["id"][first:row] == rows["id"][row]) & (
        offsets[first:row] == offsets[row] - np.arange(row - first, 0, -1)
    )
    gap = np.flatnonzero(~same)
    return rows["label"][first + (int(gap[-1]) + 1 if len(gap) else 0) : row]


def _look(result: Evaluation, row: int, query: Encoded, images: Images | None, tokenizer: Decoder | None) -> Look:
    names = result.per_row.get("name")
    name = None if names is None else str(names[row])
    if result.objective == "log_loss" and "offset" in result.columns:
        document = "" if "id" not in result.per_row else result.names.get(int(result.per_row["id"][row]), "")
        where = f"token {int(result.columns['offset'][row]):,}"
        text = tokens_as_text(before(result, row), tokenizer), _shown(result, "label", row, tokenizer)
        return Look(f"{document}, {where}" if document else where, None, text)
    picture = picture_of(images, row, name)
    return Look(f"row {row}" if name is None else name, picture, None, facts_of(query.columns, 0))


def tokens_as_text(tokens: Any, tokenizer: Decoder | None) -> str:
    """Tokens as text, on one line; their numbers without a tokenizer."""
    numbers = [int(token) for token in np.atleast_1d(tokens)]
    return " ".join(map(str, numbers)) if tokenizer is None else repr(tokenizer.decode(numbers))[1:-1]


def _shown(result: Evaluation, what: str, row: int, tokenizer: Decoder | None) -> str:
    value = result.per_row[what][row]
    if result.task == "classification":
        text = result.objective == "log_loss" and result.classes is None
        return tokens_as_text(value, tokenizer) if text else class_name(result.classes, int(value))
    if result.task == "multi-label":
        names = [class_name(result.classes, place) for place in np.flatnonzero(value > 0).tolist()]
        return ", ".join(names[:8]) + (" …" if len(names) > 8 else "") or "none"
    numbers = np.atleast_1d(value)
    return ", ".join(f"{number:.4g}" for number in numbers[:4].tolist()) + (" …" if len(numbers) > 4 else "")


def _sure(result: Evaluation, side: str, row: int) -> str:
    rows = result.per_row
    if result.task == "regression":
        return f"squared error {rows[f'{side}squared_error'][row]:.4g}"
    if result.task == "multi-label":
        right = (rows[f"{side}prediction"][row] == rows["label"][row]).sum()
        return f"{right} of {len(rows['label'][row])} labels right"
    return f"{100 * rows[f'{side}confidence'][row]:.0f} % sure"


def _moved(why: Explanation, near: int, remembered: Images | None) -> Moved:
    look, added = why.look(near, remembered), why.contributions[near]
    if why.task == "classification":
        told = dict.fromkeys(int(one) for one in (why.prediction, why.base_prediction, why.label) if one is not None)
        to = [(said(why, one), float(added[np.searchsorted(why.outputs, one)])) for one in told]
    else:
        most = np.argsort(-np.abs(added), kind="stable")[:3].tolist()
        to = [
            (class_name(why.classes, int(why.outputs[place])) if len(added) > 1 else "", float(added[place]))
            for place in most
        ]
    own = why.sources[near] == "memory"
    return Moved(
        look=look if own else replace(look, picture=None),
        id=int(why.ids[near]) if own else None,
        label=said(why, why.labels[near]),
        to=[(name, f"{value:+.3g}") for name, value in to],
        distance=float(why.distances[near]),
        helped=_helped(why, near),
    )


def _helped(why: Explanation, near: int) -> bool | None:
    """Whether a memory moved the answer towards the truth: the true class against the other one that is said; of a
    regression's number, in its direction."""
    if why.label is None:
        return None
    added = why.contributions[near]
    if why.task == "classification":
        truth = int(why.label)
        other = next((int(one) for one in (why.prediction, why.base_prediction) if one != truth), None)
        places = [int(np.searchsorted(why.outputs, one)) for one in (truth, other) if one is not None]
        gain = float(added[places[0]] - (added[places[1]] if len(places) > 1 else 0.0))
        most = float(np.abs(swing(why)).max(initial=0))
    elif why.task == "regression":
        error = np.atleast_1d(np.asarray(why.label, np.float64)) - why.base
        gain, most = float((np.sign(error) * added).sum()), float(np.abs(why.contributions).sum(axis=1).max(initial=0))
    else:
        towards = np.where(np.asarray(why.label) > 0, 1.0, -1.0)
        gain, most = float((towards * added).sum()), float(np.abs(why.contributions).sum(axis=1).max(initial=0))
    return None if not math.isfinite(gain) or abs(gain) < 0.01 * most or most == 0 else gain > 0
