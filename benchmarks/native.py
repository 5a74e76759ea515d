"""What native kernels save: the same searches, scores and corrected images with and without them, in turn."""

from __future__ import annotations

import time

import numpy as np
import torch

import residua as rs
from benchmarks._cifar import encoded, loader, model, threads
from residua.index.nearest import require_faiss
from residua.native import LEVELS, kernels

PAPER = {"k": 53, "sigma": 0.7, "temperature": 1.4}
BLOCK = 20  # calls of one way before the next one's turn: the caches are then its own


def in_blocks(works: dict, repeat: int) -> dict[str, float]:
    """Microseconds of CPU time of this thread per call of each, lower quartile; work is called with a number."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    with torch.inference_mode():
        for round_ in range(repeat):
            for name, work in works.items():
                for i in range(BLOCK):
                    start = time.thread_time_ns()
                    work(BLOCK * round_ + i)
                    if i >= 3:
                        taken[name].append((time.thread_time_ns() - start) / 1e3)
    return {name: round(float(np.percentile(values, 25)), 1) for name, values in taken.items()}


def main() -> dict:
    """50 000 x 64 keys of CIFAR-100, k = 53, one thread."""
    native = kernels()
    if native is None:
        raise SystemExit("residua-native is not installed: make native")
    torch.set_num_threads(1)
    faiss = require_faiss()
    faiss.omp_set_num_threads(1)
    train, test = encoded("train"), encoded("test")
    memories = {"native": rs.Memory(train), "without": rs.Memory(train, index_params={"backend": "faiss"})}
    found, wanted = (memory.search(test.keys[:2000], 53) for memory in memories.values())
    flat, keys = faiss.IndexFlatL2(train.dim), np.ascontiguousarray(test.keys, np.float32)
    flat.add(np.ascontiguousarray(train.keys, np.float32))

    searches = {}
    for q in (1, 8, 1000):
        works = {name: lambda i, m=m, q=q: m.search(keys[i : i + q], 53) for name, m in memories.items()}
        works["bare IndexFlatL2"] = lambda i, q=q: flat.search(keys[i : i + q], 53)
        searches[f"batch {q}"] = in_blocks(works, 10 if q < 100 else 1)

    images = torch.cat([batch for batch, _ in loader("test", rows=1000)])
    nets = {"base": model()} | {name: model() for name in memories}
    for name, memory in memories.items():
        rs.attach(nets[name], rs.ResMem(memory, **PAPER))
    image = in_blocks({name: lambda i, net=net: net(images[i : i + 1]) for name, net in nets.items()}, 20)
    added = {f"{name}_added_percent": round(100 * (image[name] / image["base"] - 1), 1) for name in memories}
    return {
        "threads": threads(),
        "level": LEVELS[native.level],
        "same_rows_and_distances": torch.equal(found.rows, wanted.rows)
        and torch.equal(found.distances, wanted.distances),
        "search_us_per_call": searches,
        "one_image_us": image | added,
        "codes_bytes_per_row": memories["native"].index.coded_bytes / len(train),
    }
