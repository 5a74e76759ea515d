"""An index on a Milvus server, and one in PostgreSQL, beside the exact one and FAISS's HNSW: searches, edits, recall.

``RESIDUA_MILVUS`` and ``RESIDUA_POSTGRESQL`` are the addresses of the servers, such as
``milvus://127.0.0.1:19530/bench`` and ``postgresql://postgres@127.0.0.1/postgres/bench``. 100 000 keys of 64 numbers in
1 000 clusters, 16 directions wide, and queries from the same. Client and servers share the machine.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import residua as rs
from benchmarks._timing import in_turn
from residua.errors import ParameterError

SERVERS = {"milvus HNSW": "RESIDUA_MILVUS", "postgresql HNSW": "RESIDUA_POSTGRESQL"}
N, DIM, ASKED, EDITS = 100_000, 64, 500, 12


def data(rng: np.random.Generator, n: int, centres: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Points of clusters whose sizes differ as Zipf's."""
    sizes = 1 / np.arange(1, len(centres) + 1)
    which = rng.choice(len(centres), n, p=sizes / sizes.sum())
    return (centres[which] + rng.normal(size=(n, 16)) @ spread + 0.1 * rng.normal(size=(n, DIM))).astype(np.float32)


def main() -> dict:
    if missing := [variable for variable in SERVERS.values() if variable not in os.environ]:
        raise ParameterError(f"no server: set {' and '.join(missing)} to its address, milvus:// or postgresql://…")
    servers = {name: os.environ[variable] for name, variable in SERVERS.items()}
    rng = np.random.default_rng(0)
    centres, spread = rng.normal(size=(1000, DIM)), 0.4 * rng.normal(size=(16, DIM))
    keys, queries = (data(rng, n, centres, spread) for n in (N + 5000, ASKED))
    labels = rng.integers(10, size=len(keys))
    rows = lambda a, b: rs.Encoded(keys[a:b], np.zeros((b - a, 10), np.float32), labels[a:b])  # noqa: E731
    built, memories = dict[str, float](), dict[str, Any]()
    for name, index in ({"exact": "exact", "faiss HNSW16": "HNSW16"} | servers).items():
        start = time.perf_counter()
        memories[name] = rs.Memory(rows(0, N), index=index)
        built[name] = round(time.perf_counter() - start, 2)
    found = {name: memory.search(queries, 50).rows for name, memory in memories.items()}
    share = lambda rows: np.mean([len(np.intersect1d(a, b)) / 50 for a, b in zip(rows, found["exact"])])  # noqa: E731
    one = in_turn({name: lambda m=m: [m.search(q[None], 50) for q in queries[:50]] for name, m in memories.items()}, 3)
    many = in_turn({name: lambda m=m: m.search(queries, 50) for name, m in memories.items()}, 3)
    far = in_turn({name: lambda m=m: m.search(queries[:50], 1024) for name, m in memories.items()}, 3)
    return {
        "rows": N,
        "seconds_to_build": built,
        "recall_at_50": {name: round(float(share(rows)), 4) for name, rows in found.items()},
        "recall_it_says": {name: m.recall and round(m.recall.value, 4) for name, m in memories.items()},
        "queries_per_second": {
            "one by one, k=50": {name: round(50 / seconds) for name, seconds in one.items()},
            f"{ASKED} at once, k=50": {name: round(ASKED / seconds) for name, seconds in many.items()},
            "50 at once, k=1024": {name: round(50 / seconds) for name, seconds in far.items()},
        },
        "edits": {name: edited(memory, rows, servers.get(name)) for name, memory in memories.items()},
    }


def edited(memory: rs.Memory, rows: Any, address: str | None) -> dict[str, float]:
    """Milliseconds of edits of the memory, live in a folder; its index is at `address`."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "memory"
        where = {} if address is None else {"index": address}
        memory.save(folder)
        live, taken = rs.Memory.open(folder, **where), {"add": [], "search": [], "forget": [], "load": []}
        for at in range(N, N + EDITS):
            for name, work in {
                "add": lambda at=at: live.add(rows(at, at + 1)),
                "search": lambda at=at: live.search(rows(at, at + 1).keys, 1).rows.item() == at or missed(at),
                "forget": lambda at=at: live.forget([at - N]),
                "load": lambda: rs.Memory.load(folder, **where),
            }.items():
                start = time.perf_counter()
                work()
                taken[name].append(1000 * (time.perf_counter() - start))
        if address is not None:
            live.index.drop()
    return {name: round(statistics.median(times), 1) for name, times in taken.items()}


def missed(row: int) -> None:
    raise AssertionError(f"row {row} was added and is not its own neighbour")
