"""What it takes in RAM to drop forgotten rows of a memory that lies in its files: rebuild, save and purge.

A million keys of 256 float16 (512 MB, the clusters of ``growth``) are mapped, and a tenth of them is forgotten. Each
index in a fresh process, whose own RAM (not the pages of mapped files, which the system takes back when it needs them)
is looked at every 5 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.growth import CLASSES, DIM, HERE, INDEX, Rows, batches, resident, timed

N, FORGOTTEN = 1_000_000, 100_000
INDEXES: dict[str, dict[str, Any]] = {"exact": {"index": "exact"}, INDEX["index"]: INDEX}


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """The most RAM of its own that this process has in the block, in MB."""
    found, done = {"own_peak_mb": 0}, threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            found["own_peak_mb"] = max(found["own_peak_mb"], resident()["own_mb"])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def build(path: Path, index: str) -> None:
    """Stream the rows into the folder `path`."""
    from residua.core import AbsentLogits, Encoded
    from residua.memory.build import build as streamed

    def encode(batch: Rows) -> Encoded:
        said = AbsentLogits(len(batch), CLASSES)
        return Encoded(batch.keys, said, batch.labels, ids=batch.ids, columns={"offset": batch.offsets})

    streamed(batches(N), encode, path, **INDEXES[index], key_dtype="float16", progress=False)


def use(path: Path) -> dict[str, Any]:
    """Forget, rebuild, save, and purge once more, after forgetting as many again."""
    import faiss  # noqa: F401

    import residua as rs

    memory = rs.Memory.load(path, mmap=True)
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"opened": resident()}

    def stage(name: str, work: Callable[[], Any]) -> Any:
        with watched() as peak:
            said, took = timed(work)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        found[name] = took | peak | {"own_after_mb": resident()["own_mb"], "resident_peak_mb": most}
        return said

    memory.forget(rng.choice(memory.ids, FORGOTTEN, replace=False))
    stage("rebuild", memory.rebuild)
    stage("save", lambda: memory.save(path))
    memory.forget(rng.choice(memory.ids, FORGOTTEN, replace=False))
    done = stage("purge", lambda: memory.purge(path, progress=False))
    assert (done.rows, len(memory)) == (FORGOTTEN, N - 2 * FORGOTTEN)
    return found | {"traces": done.traces}


def child(*arguments: object) -> str:
    """What another process, of one thread, says."""
    command = [sys.executable, "-m", "benchmarks.rebuild", *map(str, arguments)]
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return subprocess.run(
        command, cwd=HERE.parent, env=os.environ | one, stdout=subprocess.PIPE, check=True, text=True
    ).stdout


def main() -> dict[str, Any]:
    """Each index, in a folder that is removed."""
    out: dict[str, Any] = {"rows": N, "keys_mb": N * DIM * 2 // 2**20, "forgotten": FORGOTTEN, "indexes": {}}
    for index in INDEXES:
        with tempfile.TemporaryDirectory(prefix="residua-rebuild-") as folder:
            child("build", folder + "/memory", index)
            out["indexes"][index] = json.loads(child("use", folder + "/memory").splitlines()[-1])
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["build", "use"])
    parser.add_argument("path", type=Path)
    parser.add_argument("index", nargs="?")
    given = parser.parse_args()
    if given.work == "build":
        build(given.path, given.index)
    else:
        print(json.dumps(use(given.path)))
