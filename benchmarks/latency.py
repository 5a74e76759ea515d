"""What the memory adds to the model's own latency: ResNet-8, one image and a thousand at a time."""

from __future__ import annotations

import time

import numpy as np
import torch

import residua as rs
from benchmarks._cifar import encoded, loader, model, threads

PAPER = {"k": 53, "sigma": 0.7, "temperature": 1.4}
INDEXES = {
    "exact": {"index": "exact"},
    "recall >= 0.99": {"index": "PQ32x4fs", "overfetch": 8},
    "IVF512,PQ32x4fs, nprobe 32": {"index": "IVF512,PQ32x4fs", "index_params": {"nprobe": 32}, "overfetch": 8},
}


def percentiles(works: dict, images: torch.Tensor, batch: int, repeat: int) -> dict[str, dict[str, float]]:
    """Milliseconds per call of each way, in turn over the same batches: median and 99th percentile."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    with torch.inference_mode():
        for round_ in range(repeat + 3):
            part = images[(round_ * batch) % (len(images) - batch) :][:batch]
            for name, work in works.items():
                start = time.perf_counter()
                work(part)
                if round_ >= 3:
                    taken[name].append(1000 * (time.perf_counter() - start))
    return {
        name: {"p50_ms": round(float(np.median(t)), 3), "p99_ms": round(float(np.percentile(t, 99)), 3)}
        for name, t in taken.items()
    }


def main() -> dict:
    """The same network alone and attached to memories of 50 000 images, over exact and approximate indexes."""
    train, test = encoded("train"), encoded("test")
    images = torch.cat([batch for batch, _ in loader("test", rows=4000)])
    truth = rs.Memory(train).search(test.keys[:2000], 53).rows.numpy()
    works, recalls, handles = {"base": model()}, {}, []
    for name, arguments in INDEXES.items():
        memory = rs.Memory(train, **arguments)
        found = memory.search(test.keys[:2000], 53).rows.numpy()
        recalls[name] = round(float(np.mean([len(np.intersect1d(a, b)) / 53 for a, b in zip(found, truth)])), 4)
        net = model()
        handles.append(rs.attach(net, rs.ResMem(memory, **PAPER)))
        works[name] = net
    out = {"threads": threads(), "recall_at_53": recalls, "paper": "4.8 ms added to 15.9 ms (+30 %) on its CPU"}
    for batch, repeat in ((1, 400), (1000, 10)):
        times = percentiles(works, images, batch, repeat)
        base = times["base"]["p50_ms"]
        for name in INDEXES:
            times[name]["added_ms"] = round(times[name]["p50_ms"] - base, 3)
            times[name]["added_percent"] = round(100 * (times[name]["p50_ms"] / base - 1), 1)
        out[f"batch {batch}"] = times
    # One query reads every key once when the search is exact.
    out["exact_bytes_per_query"] = int(train.keys.nbytes)
    return out
