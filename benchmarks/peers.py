"""One query, and many, beside what people use: the same keys, interleaved in one process, as ratios.

The 25th percentile of a thread's CPU time: what a quiet machine needs. All have one thread. ``image`` is a trained
ResNet-8 that answers one image, alone and attached to a memory under each reader.
"""

from __future__ import annotations

import numpy as np
import torch

import residua as rs
from benchmarks._cifar import encoded, loader, model
from benchmarks._timing import one_thread, quartile
from residua.hooks.correction import Correction

K = 53
PAPER = {"k": K, "sigma": 0.7, "temperature": 1.4}
QUERIES = (1, 8, 64, 1000)


def ratios(found: dict[str, float], to: str) -> dict[str, float]:
    """Each over that of `to`."""
    return {name: round(value / found[to], 3) for name, value in found.items()}


def searches(train: rs.Encoded, queries: np.ndarray) -> dict:
    """k nearest of 50 000 keys of 64 numbers."""
    import faiss
    from sklearn.neighbors import NearestNeighbors
    from usearch.index import search as usearch_exact

    memory, keys = rs.Memory(train), np.ascontiguousarray(train.keys, np.float32)
    flat = faiss.IndexFlatL2(keys.shape[1])
    flat.add(keys)
    brute = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(keys)
    table, norms = torch.from_numpy(keys), torch.from_numpy((keys**2).sum(axis=1))

    def by_torch(some: np.ndarray) -> object:
        return torch.addmm(norms, torch.from_numpy(some), table.T, alpha=-2).topk(K, largest=False)

    ways = {
        "residua": lambda some: memory.search(some, K),
        "FAISS IndexFlatL2": lambda some: flat.search(some, K),
        "torch addmm, topk": by_torch,
        "usearch exact": lambda some: usearch_exact(keys, some, K, "l2sq", exact=True, threads=1),
        "scikit-learn brute": lambda some: brute.kneighbors(some),
    }
    out = {}
    for count in QUERIES:
        # usearch takes over a second for a thousand.
        parts = [queries[at * count % 4000 :][:count] for at in range(64)]
        works = {
            name: lambda call, way=way, parts=parts: way(parts[call % 64])
            for name, way in ways.items()
            if count < 1000 or name != "usearch exact"
        }
        found = quartile(works, *((12, 30) if count < 64 else (5, 4) if count < 1000 else (3, 1)))
        out[f"{count} queries"] = {"us": found, "ratio to FAISS": ratios(found, "FAISS IndexFlatL2")}
    return out


def one_image(train: rs.Encoded) -> dict:
    """A network alone, with hooks that change nothing, and attached."""
    exact, codes = rs.Memory(train), rs.Memory(train, index="PQ32x4fs", overfetch=8)
    pooled = rs.Pooled(exact).fit(progress=False, evidence=None)
    readers = {
        "ResMem, exact": rs.ResMem(exact, **PAPER),
        "ResMem, PQ32x4fs": rs.ResMem(codes, **PAPER),
        "label k-NN share, exact": rs.KNNLM(exact, k=K),
        "Pooled, exact": pooled,
        "Pooled, PQ32x4fs": rs.Pooled(codes, **pooled.params),
    }
    images = torch.cat([batch for batch, _ in loader("test", rows=1000)])
    nets = {"network": model(), "hooks alone": model()}
    rs.attach(nets["hooks alone"], readers["ResMem, exact"])
    Correction.of(nets["hooks alone"]).corrected = lambda keys, logits, mask=None: logits
    for name, reader in readers.items():
        nets[name] = model()
        rs.attach(nets[name], reader)
    with torch.inference_mode():
        works = {name: lambda call, net=net: net(images[call % 1000 :][:1]) for name, net in nets.items()}
        found = quartile(works, 14, 30)
    return {"us": found, "ratio to the network": ratios(found, "network")}


def main() -> dict:
    """50 000 remembered images of CIFAR-100 through a ResNet-8."""
    train, test = encoded("train"), encoded("test")
    with one_thread():
        return {"threads": 1, "search": searches(train, test.keys.astype(np.float32)), "image": one_image(train)}
