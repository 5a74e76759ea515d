"""Right and wrong answers: what is kept of each row, and what they amount to."""

import math
from typing import Any

import numpy as np

from residua.core import Encoded, Prediction, as_tensor
from residua.core.probabilities import TINY
from residua.evaluation.breakdown import reliability
from residua.evaluation.label_knn import truth_of, votes_by_k
from residua.readers import KNNLM

BINS = 15
# What is measured, as a frame shows it.
COLUMNS = (
    *("label", "base_prediction", "prediction", "gain"),
    *("base_confidence", "confidence", "base_log_prob", "log_prob"),
)
SMALLEST: float = math.log(TINY)  # one saturated row must not turn the mean of all others into infinity


def measure(part: Encoded, prediction: Prediction, base: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Of each row: what they say of it, how sure they are, and what they give the truth; each (q,). `base`: what
    ``of_base`` gave, where it is known."""
    base, truth, best = of_base(part, prediction) if base is None else base, truth_of(part), prediction.argmax()
    right, was = best.cpu() == truth, as_tensor(base["base_prediction"]) == truth
    measured = {
        "prediction": best.int(),
        "gain": right.double() - was.double(),
        "confidence": prediction.log_prob(best).exp(),
        "log_prob": prediction.log_prob(truth).clamp_min(SMALLEST),
    }
    found = base | {name: values.cpu().numpy() for name, values in measured.items()}
    return {name: found[name] for name in COLUMNS}


def of_base(part: Encoded, prediction: Prediction) -> dict[str, np.ndarray]:
    """The truth, and the same of the model as it is, whatever T the reader was tuned to."""
    truth, base = truth_of(part), prediction.softmax.at(1.0)
    said = base.argmax()
    measured = {
        "label": truth.int(),
        "base_prediction": said.int(),
        "base_confidence": base.confidence().exp(),
        "base_log_prob": base.log_prob(truth.to(said.device)).clamp_min(SMALLEST),
    }
    return {name: values.cpu().numpy() for name, values in measured.items()}


def vote(
    name: str, voter: KNNLM, part: Encoded, prediction: Prediction, measured: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Whether label k-NN is right about each row, and whether it says what the model alone says, bool (q,)."""
    base, truth = (as_tensor(measured[name]).long().to(voter.memory.device) for name in ("base_prediction", "label"))
    (votes,) = votes_by_k(voter, part, prediction, base)
    return {name: (votes == truth).cpu().numpy(), f"{name}_agrees": (votes == base).cpu().numpy()}


def summary(rows: dict[str, np.ndarray], n_outputs: int) -> dict[str, Any]:
    """What is reported of the rows, by its name in ``Evaluation``."""
    base, right = (rows[said] == rows["label"] for said in ("base_prediction", "prediction"))
    support = np.bincount(rows["label"], minlength=n_outputs)
    per_class = np.bincount(rows["label"], weights=rows["gain"], minlength=n_outputs)
    by_class: dict[str, float] = {}
    for prefix, said in (("base_", "base_prediction"), ("", "prediction")):
        balanced, f1 = class_means(rows["label"], rows[said], n_outputs)
        by_class |= {f"{prefix}balanced_accuracy": balanced, f"{prefix}f1_macro": f1}
    tpr, fpr = float((right & ~base).mean()), float((base & ~right).mean())
    return {
        "accuracy": float(right.mean()),
        "base_accuracy": float(base.mean()),
        "log_loss": -float(rows["log_prob"].mean(dtype=np.float64)),
        "base_log_loss": -float(rows["base_log_prob"].mean(dtype=np.float64)),
        "ece": expected_calibration_error(rows["confidence"], right),
        "base_ece": expected_calibration_error(rows["base_confidence"], base),
        **by_class,
        "tpr": tpr,
        "fpr": fpr,
        "gain": tpr - fpr,
        "per_class_gain": np.where(support > 0, per_class / np.maximum(support, 1), np.nan),
        "support": support,
    }


def class_means(truth: np.ndarray, said: np.ndarray, n_outputs: int) -> tuple[float, float]:
    """Balanced accuracy and macro F1 of answers (n,): means over the classes that are true, and that are true or said.

    >>> class_means(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 3)
    (0.8333333333333333, 0.7333333333333334)
    """
    right = np.bincount(truth[truth == said], minlength=n_outputs)
    support, given = (np.bincount(classes, minlength=n_outputs) for classes in (truth, said))
    there, both = support > 0, support + given
    return float((right[there] / support[there]).mean()), float((2 * right[both > 0] / both[both > 0]).mean())


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """How far confidence is from accuracy, averaged over bins of equal width (Guo et al. 2017, eq. 5).

    `confidence` (n,) is the probability of the predicted class, `right` bool (n,) whether that is true. The bins cover
    (0, 1], each with its upper edge.

    >>> expected_calibration_error(np.array([0.75, 0.75]), np.array([True, False]))
    0.25
    """
    return reliability(confidence, right, bins).error
