"""What a person is shown, in JSON types: labels in words, an explanation, an example, a remembered row, the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from residua.core import Task
from residua.core.naming import class_name
from residua.drawing.look import facts_of, named
from residua.explanation import Explanation
from residua.explanation.explanation import Decoder
from residua.explanation.picture import swing
from residua.inspector.remembered import bearers
from residua.inspector.sliders import Slider
from residua.memory import Memory
from residua.printable import plain

OUTPUTS = 8  # scores of one example
NEIGHBOURS = 60
TOKENS = 12  # before one
LABELS = 6  # of a row that has several
LONGEST = 300  # characters of a name, a label or a text

# Of each task, what is compared: its name in an Evaluation, what it is called, and whether more is better.
FIGURES: dict[str, tuple[tuple[str, str, bool], ...]] = {
    "classification": (
        ("accuracy", "accuracy", True),
        ("balanced_accuracy", "balanced accuracy", True),
        ("f1_macro", "macro F1", True),
        ("log_loss", "log-loss", False),
        ("ece", "calibration error", False),
    ),
    "multi-label": (
        ("accuracy", "labels right", True),
        ("f1_micro", "micro F1", True),
        ("f1_macro", "macro F1", True),
        ("mean_average_precision", "mean average precision", True),
        ("log_loss", "log-loss", False),
        ("ece", "calibration error", False),
    ),
    "regression": (("mse", "mean squared error", False), ("r2", "R²", True)),
}
CHANGES: dict[str, tuple[tuple[str, str], ...]] = {
    "classification": (("gain", "gain"), ("tpr", "fixed (TPR)"), ("fpr", "broken (FPR)")),
    "multi-label": (("gain", "gain"), ("tpr", "fixed (TPR)"), ("fpr", "broken (FPR)")),
    "regression": (("gain", "gain (less squared error)"), ("improved", "improved"), ("worsened", "worsened")),
}


def clipped(text: str) -> str:
    """Text of no more than some hundred characters: names and labels may be of any length."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


class Words:
    """What labels are called: classes by their names, tokens by their text, numbers in few digits."""

    task: Task
    classes: Sequence[str] | None
    is_text: bool
    tokenizer: Decoder | None

    def __init__(self, task: Task, classes: Sequence[str] | None, is_text: bool, tokenizer: Decoder | None):
        self.task, self.classes, self.is_text, self.tokenizer = task, classes, is_text, tokenizer

    def __call__(self, label: Any) -> str:
        if self.is_text:
            return self.tokens([int(label)])
        if self.task == "classification":
            return self.output(int(label))
        values = np.asarray(label).reshape(-1)
        if self.task == "regression":
            more = " …" if len(values) > LABELS else ""
            return ", ".join(f"{value:.4g}" for value in values[:LABELS].tolist()) + more
        own = np.flatnonzero(values > 0)
        more = f" and {len(own) - LABELS} more" if len(own) > LABELS else ""
        return ", ".join(self.output(place) for place in own[:LABELS].tolist()) + more or "none"

    def tokens(self, tokens: Sequence[int] | np.ndarray) -> str:
        """Tokens as text, on one line; their numbers without a tokenizer."""
        numbers = [int(token) for token in tokens]
        said = " ".join(map(str, numbers)) if self.tokenizer is None else self.tokenizer.decode(numbers)
        return repr(said[-LONGEST:])[1:-1]

    def output(self, place: int) -> str:
        """What an output is called."""
        if self.is_text:
            return self.tokens([place])
        number = "output " if self.task == "regression" and self.classes is None else ""
        return clipped(number + class_name(self.classes, place))


def explained(why: Explanation, words: Words, pictures: bool) -> dict[str, Any]:
    """An explanation: predictions, scores, and the neighbours that moved the answer most."""
    added = why.contributions.sum(axis=0)
    largest = np.argsort(-np.maximum(np.abs(why.scores), np.abs(why.scale * why.base)), kind="stable")
    spoken = [int(np.searchsorted(why.outputs, one)) for one in _spoken(why)]
    places = list(dict.fromkeys([*spoken, *largest.tolist()]))[:OUTPUTS]
    moved = spoken or places[:3]
    order = np.argsort(-np.abs(swing(why)), kind="stable")[:NEIGHBOURS].tolist()
    rest = np.setdiff1d(np.arange(len(why)), order)
    return plain(
        {
            "prediction": words(why.prediction),
            "base": words(why.base_prediction),
            "label": None if why.label is None else words(why.label),
            "right": _right(why, why.prediction),
            "base_right": _right(why, why.base_prediction),
            "scale": why.scale,
            "space": why.space,
            "shared": why.shared,
            "scores": [
                {
                    "name": words.output(int(why.outputs[at])),
                    "base": why.base[at],
                    "added": added[at],
                    "score": why.scores[at],
                }
                for at in places
            ],
            "more_outputs": why.n_outputs - len(places),
            "columns": [words.output(int(why.outputs[place])) for place in moved],
            "neighbours": [_neighbour(why, at, words, moved, pictures) for at in order],
            "rest": {"count": len(rest), "weight": why.weights[rest].sum(dtype=np.float64)},
        }
    )


def _spoken(why: Explanation) -> list[int]:
    """The outputs that are shown whatever their scores."""
    if why.task != "classification":
        return []
    told = (why.prediction, why.base_prediction, why.label)
    return list(dict.fromkeys(int(one) for one in told if one is not None))


def _right(why: Explanation, said: Any) -> bool | None:
    if why.label is None or why.task == "regression":
        return None
    return bool(np.array_equal(np.asarray(said) > 0, np.asarray(why.label) > 0) if np.ndim(said) else said == why.label)


def _neighbour(why: Explanation, at: int, words: Words, moved: Sequence[int], pictures: bool) -> dict[str, Any]:
    look, id, own = why.look(at, {}), int(why.ids[at]), why.sources[at] == "memory"
    return {
        "id": str(id) if own else None,
        "name": clipped(look.name),
        "label": words(why.labels[at]),
        "distance": why.distances[at],
        "weight": why.weights[at],
        "moved": why.contributions[at, list(moved)],
        "picture": f"picture/memory/{id}" if own and pictures else None,
        "text": None if why.contexts is None else [words.tokens(why.contexts[at]), words(why.labels[at])],
        "facts": look.facts,
    }


def remembered(memory: Memory, rows: np.ndarray, words: Words, pictures: bool) -> list[dict[str, Any]]:
    """Remembered rows, by their numbers in `memory`, as it is now."""
    at = torch.from_numpy(rows).to(memory.device)
    ids = memory.column("id")[at].cpu().numpy()
    labels = memory.column("label")[at].cpu()
    if memory.task == "regression":
        labels = memory.schema.targets(labels)
    columns = {name: memory.column(name)[at].cpu().numpy() for name in memory.schema.columns}
    said, sharing = _said(memory, at, words), bearers(memory, ids.tolist())
    found = list[dict[str, Any]]()
    for place, (row, id, label) in enumerate(zip(rows.tolist(), ids.tolist(), labels.numpy())):
        text = None
        if memory.schema.is_text:
            text = [words.tokens(memory.context(row, TOKENS)), words(label)]
        found.append(
            {
                "id": str(id),  # a page's numbers have no more than 53 bits
                "name": clipped(named(memory.names.get(id), f"id {id}")),
                "also": len(memory.names.all(id)) - 1 if id in memory.names else 0,
                "label": words(label),
                "base": said[place],
                "bearers": sharing.get(id, 0),
                "picture": f"picture/memory/{id}" if pictures else None,
                "text": text,
                "facts": facts_of(columns, place),
            }
        )
    return plain(found)


def _said(memory: Memory, rows: torch.Tensor, words: Words) -> Sequence[str | None]:
    """What the model says at remembered rows, where that was kept."""
    logits = memory.stored_logits
    if logits is None or not len(rows):
        return [None] * len(rows)
    if memory.task == "classification":
        return [words(one) for one in logits.argmax(rows).tolist()]
    values = logits.dense(rows)
    return [words(one) for one in (memory.schema.targets(values) if memory.task == "regression" else values).numpy()]


def compared(task: Task, figures: Mapping[str, Any], n: int) -> dict[str, Any]:
    """What base and memory amount to, side by side, and what changed."""
    rows = [
        {"name": called, "base": figures[f"base_{name}"], "memory": figures[name], "more_is_better": more}
        for name, called, more in FIGURES[task]
    ]
    changes = [{"name": called, "key": name, "value": figures[name]} for name, called in CHANGES[task]]
    return plain({"rows": n, "measures": rows, "changes": changes})


def slid(sliders: Sequence[Slider]) -> list[dict[str, Any]]:
    """Sliders, as the page makes them."""
    return plain([asdict(one) for one in sliders])
