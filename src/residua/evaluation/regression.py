"""Squared errors: what is kept of each row, and what they amount to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded, Prediction
from residua.evaluation.label_knn import truth_of, votes_by_k
from residua.readers import KNNLM


def measure(part: Encoded, prediction: Prediction) -> dict[str, np.ndarray]:
    """Each row's target and what they predict, (q, L); their squared errors, the mean over outputs, float64 (q,)."""
    start, scores = prediction.start, prediction.scores
    base, error = _errors(start, part), _errors(scores, part)
    return {
        "label": truth_of(part).reshape(scores.shape).double().numpy(),
        "base_prediction": start.cpu().numpy(),
        "prediction": scores.cpu().numpy(),
        "gain": base - error,
        "base_squared_error": base,
        "squared_error": error,
    }


def vote(
    name: str, voter: KNNLM, part: Encoded, prediction: Prediction, measured: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Label k-NN's squared error at each row."""
    (votes,) = votes_by_k(voter, part, prediction, prediction.start)
    return {name: _errors(votes, part)}


def _errors(answers: Tensor, part: Encoded) -> np.ndarray:
    targets = truth_of(part).to(answers.device, torch.float64)
    return (answers.double() - targets.reshape(answers.shape)).square().mean(dim=1).cpu().numpy()


def summary(rows: dict[str, np.ndarray], n_outputs: int) -> dict[str, Any]:
    """What is reported of the rows, by its name in ``Evaluation``."""
    base, error = rows["base_squared_error"], rows["squared_error"]
    spread = rows["label"].var(axis=0).mean()
    r2, base_r2 = (float(1 - errors.mean() / spread) if spread > 0 else np.nan for errors in (error, base))
    return {
        "mse": float(error.mean()),
        "base_mse": float(base.mean()),
        "r2": r2,
        "base_r2": base_r2,
        "gain": float(base.mean() - error.mean()),
        "improved": float((error < base).mean()),
        "worsened": float((error > base).mean()),
    }
