"""Squared errors: what is kept of each row, and what they amount to."""

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded, Prediction, as_tensor
from residua.evaluation.label_knn import votes_by_k
from residua.readers import KNNLM


def measure(part: Encoded, prediction: Prediction) -> dict[str, np.ndarray]:
    """Each row's target, and everybody's squared error, the mean over outputs; float64 (q, L) and (q,)."""
    base, error = _errors(prediction.start, part), _errors(prediction.scores, part)
    target = as_tensor(part.labels).reshape(prediction.scores.shape).double().numpy()
    return {"target": target, "base_error": base, "error": error, "gained": base - error}


def vote(voter: KNNLM, part: Encoded, prediction: Prediction, measured: dict[str, np.ndarray]) -> np.ndarray:
    """Label k-NN's squared error at each row."""
    (votes,) = votes_by_k(voter, part, prediction, prediction.start)
    return _errors(votes, part)


def _errors(answers: Tensor, part: Encoded) -> np.ndarray:
    targets = torch.as_tensor(part.labels, dtype=torch.float64, device=answers.device)
    return (answers.double() - targets.reshape(answers.shape)).square().mean(dim=1).cpu().numpy()


def summary(rows: dict[str, np.ndarray], n_outputs: int) -> dict:
    """What is reported of the rows, by its name in ``Evaluation``."""
    base, error = rows["base_error"], rows["error"]
    spread = rows["target"].var(axis=0).mean()
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
