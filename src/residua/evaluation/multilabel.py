"""Labels that do not exclude each other: what is kept of each row, and what it amounts to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded, Prediction, Sigmoid
from residua.evaluation.classification import SMALLEST, expected_calibration_error
from residua.evaluation.label_knn import truth_of, votes_by_k
from residua.readers import KNNLM


def measure(part: Encoded, prediction: Prediction) -> dict[str, np.ndarray]:
    """Of each row its labels, what is said of them and with what probability, (q, L); and (q,) the share of its labels
    that is mended less the share that is broken, and the mean of the labels' log-probabilities."""
    truth = truth_of(part).bool()
    base = Sigmoid(prediction.root.logits).table().to(truth.device)  # as it is, whatever T the reader was tuned to
    has, said = prediction.probabilities.to(truth.device), prediction.argmax().to(truth.device).bool()
    measured = {
        "label": truth,
        "base_prediction": base > 0.5,
        "prediction": said,
        "gain": ((said == truth).double() - ((base > 0.5) == truth).double()).mean(dim=1),
        "base_probability": base,
        "probability": has,
        "base_log_prob": _log_prob(base, truth),
        "log_prob": _log_prob(has, truth),
    }
    found = {name: values.cpu().numpy() for name, values in measured.items()}
    return {name: values.astype(np.int8) if values.dtype == bool else values for name, values in found.items()}


def _log_prob(has: Tensor, truth: Tensor) -> Tensor:
    return torch.where(truth, has, 1 - has).log().clamp_min(SMALLEST).mean(dim=1)


def vote(
    name: str, voter: KNNLM, part: Encoded, prediction: Prediction, measured: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The share of each row's labels that label k-NN is right about, float64 (q,)."""
    (votes,) = votes_by_k(voter, part, prediction, prediction.start)
    return {name: ((votes.cpu().numpy() > 0.5) == (measured["label"] > 0)).mean(axis=1)}


def summary(rows: dict[str, np.ndarray], n_outputs: int) -> dict[str, Any]:
    """What is reported of the rows, by its name in ``Evaluation``."""
    label = rows["label"] > 0
    found: dict[str, Any] = {"support": label.sum(axis=0)}
    for prefix in ("base_", ""):
        said, has = rows[f"{prefix}prediction"] > 0, rows[f"{prefix}probability"]
        right = said == label
        micro, macro = f1_scores(said, label)
        confidence = np.where(said, has, 1 - has)
        found |= {
            f"{prefix}accuracy": float(right.mean()),
            f"{prefix}log_loss": -float(rows[f"{prefix}log_prob"].mean(dtype=np.float64)),
            f"{prefix}ece": expected_calibration_error(confidence.ravel(), right.ravel()),
            f"{prefix}f1_micro": micro,
            f"{prefix}f1_macro": macro,
            f"{prefix}mean_average_precision": mean_average_precision(has, label),
        }
    now, before = ((rows[said] > 0) == label for said in ("prediction", "base_prediction"))
    tpr, fpr = float((now & ~before).mean()), float((before & ~now).mean())
    per_class = (now.astype(float) - before).mean(axis=0)
    return found | {"tpr": tpr, "fpr": fpr, "gain": tpr - fpr, "per_class_gain": per_class}


def f1_scores(said: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """F1 over all labels of all rows (micro), and the mean of each label's own (macro): 0 of one that is never said and
    never true; bool (n, L) each.

    >>> f1_scores(np.array([[True, False], [True, True]]), np.array([[True, False], [False, True]]))
    (0.8, 0.8333333333333333)
    """
    hits, either = (said & label).sum(axis=0), said.sum(axis=0) + label.sum(axis=0)
    each = 2 * hits / np.maximum(either, 1)
    return float(2 * hits.sum() / max(either.sum(), 1)), float(each.mean())


def mean_average_precision(scores: np.ndarray, label: np.ndarray) -> float:
    """The mean of each label's average precision, sum over distinct scores of (recall gained) * precision, over the
    labels that any row has; nan without one. Scores (n, L), labels bool (n, L).

    >>> mean_average_precision(np.array([[0.9], [0.8], [0.1]]), np.array([[True], [False], [True]]))
    0.8333333333333333
    """
    found = []
    for score, true in zip(scores.T, label.T):
        if not true.any():
            continue
        order = np.argsort(-score, kind="stable")
        last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # of each run of equal scores
        hits = np.cumsum(true[order])[last]
        found.append(float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / true.sum()))
    return float(np.mean(found)) if found else float("nan")
