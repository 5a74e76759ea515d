"""Detectors of others, fitted on the same keys and logits: Mahalanobis, and pytorch-ood's where it is installed."""

import importlib.util
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from residua.core import Encoded, Head

Score = Callable[[Encoded], np.ndarray]


def detectors(remembered: Encoded) -> dict[str, Score]:
    """A score of rows by each detector's name, higher for rows from elsewhere."""
    found: dict[str, Score] = {"mahalanobis": mahalanobis(remembered)}
    if importlib.util.find_spec("pytorch_ood") is None:
        return found
    from pytorch_ood import detector as ood

    keys, labels = torch.from_numpy(remembered.keys).float(), torch.from_numpy(remembered.labels)
    kinds = {
        "KNN": ood.KNN(None, k=50),
        "Mahalanobis": ood.Mahalanobis(None),
        "RMD": ood.RMD(None),
    }
    if remembered.head is not None:
        weight, bias = _parts(remembered.head)
        head = nn.Linear(weight.shape[1], weight.shape[0])
        head.load_state_dict({"weight": weight, "bias": bias})
        kinds |= {"ViM": ood.ViM(None, d=weight.shape[1] // 2, w=weight, b=bias), "NNGuide": ood.NNGuide(None, head)}
    for name, kind in kinds.items():
        kind.fit_features(keys, labels)
        found[name] = _of_keys(kind)
    for name, kind in {"MaxSoftmax": ood.MaxSoftmax, "EnergyBased": ood.EnergyBased, "GEN": ood.GEN}.items():
        found[name] = _of_logits(kind)
    return found


def mahalanobis(remembered: Encoded) -> Score:
    """The squared distance to the nearest class's mean, in the classes' common covariance (Lee et al. 2018)."""
    keys, labels = remembered.keys.astype(np.float64), remembered.labels
    means = np.stack([keys[labels == label].mean(axis=0) for label in np.unique(labels)])
    within = keys - means[np.searchsorted(np.unique(labels), labels)]
    values, vectors = np.linalg.eigh(within.T @ within / len(within))
    whiten = vectors / np.sqrt(np.maximum(values, 1e-9 * values[-1]))
    centres = means @ whiten

    def score(rows: Encoded) -> np.ndarray:
        asked = rows.keys @ whiten
        squared = (asked**2).sum(axis=1)[:, None] - 2 * asked @ centres.T + (centres**2).sum(axis=1)
        return squared.min(axis=1)

    return score


def _of_keys(kind) -> Score:
    return lambda rows: kind.predict_features(torch.from_numpy(rows.keys).float()).detach().numpy()


def _of_logits(kind) -> Score:
    return lambda rows: kind.score(rows.logits.dense().cpu()).numpy()


def _parts(head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    weight = head.weight.float().cpu()
    return weight, torch.zeros(len(weight)) if head.bias is None else head.bias.float().cpu()
