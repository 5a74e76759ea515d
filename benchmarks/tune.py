"""``tune`` on its full grid, and against ``GridSearchCV`` on a smaller one that both can afford."""

from __future__ import annotations

import time

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.neighbors import KNeighborsRegressor

import residua as rs
from benchmarks._cifar import encoded, halves, threads

SMALL = {"k": [5, 10, 25, 53, 100, 200], "sigma": [0.2, 0.4, 0.7, 1.0, 1.4], "temperature": [0.7, 1.0, 1.4, 2.0]}


class PlainResMem(ClassifierMixin, BaseEstimator):
    """ResMem as one would write it on scikit-learn: X is keys and logits side by side."""

    def __init__(self, k=53, sigma=0.7, temperature=1.4, dim=64):
        self.k, self.sigma, self.temperature, self.dim = k, sigma, temperature, dim

    def fit(self, X, y):
        self.classes_ = np.arange(X.shape[1] - self.dim)
        residuals = np.eye(len(self.classes_), dtype=np.float32)[y] - self._base(X)
        self.neighbours_ = KNeighborsRegressor(
            self.k, weights=lambda d: np.exp(-d / self.sigma), algorithm="brute"
        ).fit(X[:, : self.dim], residuals)
        return self

    def _base(self, X):
        return torch.softmax(torch.from_numpy(X[:, self.dim :]) / self.temperature, dim=1).numpy()

    def predict(self, X):
        return (self._base(X) + self.neighbours_.predict(X[:, : self.dim])).argmax(axis=1)


def main() -> dict:
    """50 000 remembered rows, 5 000 validation rows, 64 dims, 100 classes."""
    train, (val, _) = encoded("train"), halves(encoded("test"))
    memory = rs.Memory(train)
    typical = memory.median_nn_distance()
    full = {
        "k": np.unique(np.geomspace(1, 500, 22).round().astype(int))[-20:],
        "sigma": typical * 2.0 ** np.arange(-4, 3.5, 0.5),
        "temperature": np.geomspace(0.25, 5, 12),
    }
    start = time.perf_counter()
    best = rs.tune(rs.ResMem(memory), val, full, objective="accuracy", evidence=None, progress=False)
    full_s = time.perf_counter() - start

    start = time.perf_counter()
    ours = rs.tune(rs.ResMem(memory), val, SMALL, objective="accuracy", evidence=None, progress=False)
    small_s = time.perf_counter() - start

    X = np.hstack([np.vstack([train.keys, val.keys]), np.vstack([np.asarray(train.logits), np.asarray(val.logits)])])
    y = np.concatenate([train.labels, val.labels])
    split = PredefinedSplit(np.r_[np.full(len(train), -1), np.zeros(len(val), int)])
    start = time.perf_counter()
    peer = GridSearchCV(PlainResMem(), SMALL, cv=split, refit=False, n_jobs=1).fit(X, y)
    peer_s = time.perf_counter() - start
    return {
        "threads": threads(),
        "full_grid": {name: len(values) for name, values in full.items()},
        "full_grid_settings": int(np.prod([len(values) for values in full.values()])),
        "full_grid_s": round(full_s, 2),
        "full_grid_target_s": 30,
        "best": {**best.best_params_, "accuracy": best.best_score_},
        "small_grid_settings": int(np.prod([len(values) for values in SMALL.values()])),
        "small_grid_s": {"residua": round(small_s, 3), "GridSearchCV": round(peer_s, 1)},
        "small_grid_speedup": round(peer_s / small_s, 1),
        "small_grid_target": 100,
        "same_best_accuracy": [round(float(ours.best_score_), 6), round(float(peer.best_score_), 6)],
    }
