"""What a memory costs as it grows from 10^5 to 10^7 rows of 256 float16: building, opening, searching, editing, saving.

Keys are clusters: 1000 centres in 256 dimensions, 16 directions of variation within each (one of 64 sets of them) and
a little noise in all; block b of 65 536 rows is drawn with seed b, queries with another. The index is the same at every
size. Each size is built in one process and used in another, whose keys are mapped and whose address space, mapped files
included, is limited to 8 GiB. ``python -m benchmarks.growth`` draws what ``benchmarks.run growth`` measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROWS = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
DIM, CLUSTERS, INNER, SETS, CLASSES, BLOCK = 256, 1000, 16, 64, 1000, 65_536
INDEX: dict[str, Any] = {"index": "IVF1024,PQ64x4fs", "index_params": {"nprobe": 32}, "overfetch": 16}
QUERIES, K, ALONE, CHECKED = 1000, 50, 200, 100
ADDED, EDITED, LIMIT = 1000, 10, 8 * 2**30


class Keys:
    """The keys' clusters, the same in every process."""

    def __init__(self) -> None:
        rng = np.random.default_rng(2026)
        self.centres = rng.standard_normal((CLUSTERS, DIM), dtype=np.float32)
        self.inner = rng.standard_normal((SETS, INNER, DIM), dtype=np.float32) / np.float32(2 * INNER**0.5)

    def __call__(self, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys float32 (count, d), and the class of each."""
        rng = np.random.default_rng([7, seed])
        cluster = np.sort(rng.integers(CLUSTERS, size=count))
        keys = self.centres[cluster] + 0.1 * rng.standard_normal((count, DIM), dtype=np.float32)
        along = rng.standard_normal((count, INNER), dtype=np.float32)
        for which in range(SETS):
            mine = cluster % SETS == which
            keys[mine] += along[mine] @ self.inner[which]
        order = rng.permutation(count)
        return keys[order], (cluster % CLASSES)[order]


@dataclass
class Rows:
    """A batch as ``residua.memory.build`` takes it."""

    number: int
    labels: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def batches(n: int) -> Iterator[Rows]:
    keys = Keys()
    for number, start in enumerate(range(0, n, BLOCK)):
        found, classes = keys(number, min(BLOCK, n - start))
        yield Rows(number, classes, np.arange(start, start + len(found)), np.zeros(len(found), np.int64), found)


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `work` gives, and its wall-clock and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, {
        "wall_s": round(time.perf_counter() - wall, 4),
        "cpu_s": round(time.process_time() - cpu, 4),
    }


def resident() -> dict[str, int]:
    """MB of this process: at most until now, now of its own, now of files, and its address space."""
    names = {"VmHWM": "peak_mb", "RssAnon": "own_mb", "RssFile": "files_mb", "VmSize": "address_space_mb"}
    lines = (line.split() for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    return {names[line[0][:-1]]: int(line[1]) // 1024 for line in lines if line[0][:-1] in names}


def build(path: Path, n: int) -> dict:
    """Stream `n` rows into the folder `path`."""
    from residua.core import AbsentLogits, Encoded
    from residua.memory.build import build as streamed

    def encode(batch: Rows) -> Encoded:
        said = AbsentLogits(len(batch), CLASSES)
        return Encoded(batch.keys, said, batch.labels, ids=batch.ids, columns={"offset": batch.offsets})

    memory, took = timed(
        lambda: streamed(
            batches(n), encode, path, **INDEX, key_dtype="float16", shard_rows=2 * BLOCK, progress=False, total=n
        )
    )
    size = sum(file.stat().st_size for file in path.iterdir())
    return {"build": took | resident(), "folder_mb": size // 2**20, "recall_stated": str(memory.recall)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("work", nargs="?", choices=["build", "use"])
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("rows", nargs="?", type=int)
    given = parser.parse_args()
    if given.work == "build":
        print(json.dumps(build(given.path, given.rows)))
