"""``ResMem.scores`` at CIFAR-100's shape against scikit-learn's ``KNeighborsRegressor`` on the same residuals."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.neighbors import KNeighborsRegressor

import residua as rs
from benchmarks._cifar import encoded, threads
from benchmarks._timing import in_turn, seconds
from residua.core import Queries

K, SIGMA, T = 53, 0.7, 1.4
RUNGS = [
    ("PQ32x4fs", {}, 4),
    ("PQ32x4fs", {}, 10),
    ("IVF512,PQ32x4fs", {"nprobe": 32}, 4),
    ("IVF512,PQ32x4fs", {"nprobe": 128}, 10),
    ("IVF512,Flat", {"nprobe": 64}, 1),
]


def softmax(logits: np.ndarray) -> np.ndarray:
    """softmax(logits / T), rows of float32."""
    return torch.softmax(torch.from_numpy(np.asarray(logits)) / T, dim=1).numpy()


def main() -> dict:
    """50 000 x 64 keys, 10 000 queries, 100 classes, k = 53."""
    train, test = encoded("train"), encoded("test")
    memory = rs.Memory(train)
    reader = rs.ResMem(memory, k=K, sigma=SIGMA, temperature=T)
    residuals = np.eye(100, dtype=np.float32)[train.labels] - softmax(train.logits)
    peer = KNeighborsRegressor(K, weights=lambda d: np.exp(-d / SIGMA), algorithm="brute").fit(train.keys, residuals)
    base = softmax(test.logits)

    whole = in_turn(
        {"residua": lambda: reader.scores(test), "scikit-learn": lambda: base + peer.predict(test.keys)}, repeat=3
    )
    # Equal but where two rows tie for the last place: then each takes another one.
    differ = np.abs(reader.scores(test) - base - peer.predict(test.keys)).max(axis=1) > 1e-4

    # The read alone: both are given the neighbours.
    neighbours = memory.search(test.keys, K)
    given = neighbours.distances.numpy().astype(np.float64), neighbours.rows.numpy()
    peer.kneighbors = lambda *_, **__: given  # its predict() then does the weighted mean alone
    asked = Queries(torch.as_tensor(test.keys), reader.base(test.logits))
    alone = in_turn(
        {
            "residua": lambda: reader.change(neighbours, asked).apply(asked.base.table()),
            "scikit-learn": lambda: base + peer.predict(test.keys),
        },
        repeat=3,
    )
    # What the hardware must move: each query's k residual rows once, and its scores.
    bytes_moved = 4 * len(test) * 100 * (K + 1)
    exact_accuracy = float((reader.predict(test) == test.labels).mean())
    rungs = []
    for name, params, overfetch in RUNGS:
        approximate = rs.Memory(train, index=name, index_params=params, overfetch=overfetch)
        found = approximate.search(test.keys, K).rows.numpy()
        recall = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, given[1])])
        read = rs.ResMem(approximate, k=K, sigma=SIGMA, temperature=T)
        rungs.append(
            {
                "index": name,
                **params,
                "overfetch": overfetch,
                "recall_at_53": round(float(recall), 4),
                "scores_s": round(seconds(lambda read=read: read.scores(test), repeat=3), 3),
                "accuracy": float((read.predict(test) == test.labels).mean()),
            }
        )
    return {
        "threads": threads(),
        "whole_s": {name: round(value, 3) for name, value in whole.items()},
        "whole_speedup": round(whole["scikit-learn"] / whole["residua"], 2),
        "whole_target": 2,
        "queries_that_differ_by_1e-4": int(differ.sum()),
        "read_alone_s": {name: round(value, 4) for name, value in alone.items()},
        "read_alone_speedup": round(alone["scikit-learn"] / alone["residua"], 1),
        "read_alone_target": 15,
        "read_alone_gb_per_s": round(bytes_moved / alone["residua"] / 1e9, 2),
        "exact_accuracy": exact_accuracy,
        "faiss": rungs,
    }
