"""Bytes a row, said and measured, the accuracy that they buy, and how long a start takes, beside peers.

Accuracy: ResMem over ResNet-8 on CIFAR-100's test images, k 53, sigma 0.7, T 1.4, whatever is kept of the 50 000
training rows. Measured bytes: the growth of a fresh process's own memory (RssAnon, Linux) from before it loads a folder
of 500 000 such rows until it has answered 20 000 queries.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._timing import in_turn

K, SIGMA, TEMPERATURE = 53, 0.7, 1.4
ROWS, ASKED, AGAIN = 500_000, 20_000, 3
BIG, DIM, BATCH = 2_000_000, 64, 100_000
PEERS = ("numpy", "torch", "faiss", "sklearn.neighbors", "residua")
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "full, float16 keys": {"key_dtype": "float16"},
    "top-16": {"storage": "top-m", "m": 16, "temperature": TEMPERATURE},
    "head": {"storage": "head"},
    "head, SQ8 codes alone": {"storage": "head", "index": "SQ8", "discard": True},
    "head, PQ64x4fs codes alone": {"storage": "head", "index": "PQ64x4fs", "discard": True},
    "head, PQ32x4fs codes alone": {"storage": "head", "index": "PQ32x4fs", "discard": True},
    "labels alone": {"storage": "none"},
}


def remember(data: Any, discard: bool = False, **options: Any) -> Any:
    """A memory of `data`, without its keys if they are to be discarded."""
    import residua as rs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of recall, which is in the record
        memory = rs.Memory(data, **options)
        if discard:
            memory.discard_keys()
    return memory


def reader_of(memory: Any) -> Any:
    import residua as rs

    if memory.storage.name == "none":
        return rs.KNNLM(memory, k=K, sigma=SIGMA, lmbda=0.5, kernel="exponential")
    return rs.ResMem(memory, k=K, sigma=SIGMA, temperature=TEMPERATURE)


def many(data: Any, rows: int) -> Any:
    """So many rows like those of `data`: each several times, moved by a tenth of the keys' spread."""
    import torch

    import residua as rs

    rng = np.random.default_rng(0)
    which = rng.integers(0, len(data), rows)
    spread = data.keys.std(axis=0) / 10
    keys = (data.keys[which] + rng.standard_normal((rows, data.keys.shape[1]), dtype=np.float32) * spread).astype("f4")
    logits = data.head(torch.from_numpy(keys)).numpy()
    return rs.Encoded(keys, logits, data.labels[which], head=data.head)


def own_bytes() -> int:
    """What this process holds in RAM of its own, less what the allocator can give back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


def grown(folder: Path) -> dict[str, Any]:
    """Of a memory in `folder`, in a process that has done nothing else: bytes a row said, and measured."""
    import residua as rs
    from benchmarks._cifar import encoded

    test = encoded("test")
    few = remember(test[:1000], storage="head", index="SQ8")
    reader_of(few).predict(test[:100])  # what is loaded and kept for any memory is there already
    asked = [test[start : start + 5000] for start in range(0, ASKED // 2, 5000)] * 2
    before = own_bytes()
    memory = rs.Memory.load(folder, trust=True)
    reader = reader_of(memory)
    for part in asked:
        reader.predict(part)
    after, said = own_bytes(), reader.bytes_per_row
    return {"said": sum(said.values()), "of": said, "measured": round((after - before) / memory.n_rows, 1)}


def child(verb: str, *arguments: str) -> Any:
    """What a verb of this module prints in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.bytes", verb, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def kinds(rows: int) -> dict[str, Any]:
    """Every kind of memory: accuracy, and bytes a row."""
    from benchmarks._cifar import encoded

    train, test = encoded("train"), encoded("test")
    found: dict[str, Any] = {}
    base = test.logits.dense().argmax(dim=1).numpy() == test.labels
    large = many(train, rows)
    for name, options in KINDS.items():
        reader = reader_of(remember(train, **options))
        right = reader.predict(test) == test.labels
        with tempfile.TemporaryDirectory() as folder:
            remember(large, **options).save(folder)
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
            found[name] = {"accuracy": round(100 * float(right.mean()), 2), "recall": None, **child("grown", folder)}
        found[name] |= {"on_disk": round(size / rows, 1)}
        if reader.memory.recall is not None:
            found[name]["recall"] = round(reader.memory.recall.value, 3)
    return {"base_accuracy": round(100 * float(base.mean()), 2), "rows_measured": rows, "kinds": found}


def quietly(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def started(folder: Path) -> dict[str, Any]:
    """Milliseconds of whole processes: bare Python, imports, and the command line."""
    python = partial(partial, quietly, sys.executable)
    works = {"python": python("-c", "pass")} | {f"import {name}": python("-c", f"import {name}") for name in PEERS}
    works |= {"residua --help": python("-m", "residua", "--help")}
    works |= {"residua info": python("-m", "residua", "info", str(folder))}
    taken = in_turn(works, repeat=7)
    return {name: round(1000 * value, 1) for name, value in taken.items()}


def opened(folder: Path) -> dict[str, Any]:
    """Seconds to load the memory in `folder`, its files in the page cache."""
    import residua as rs

    rs.Memory.load(folder)
    works = {"loaded": lambda: rs.Memory.load(folder), "mapped": lambda: rs.Memory.load(folder, mmap=True)}
    return {name: round(value, 3) for name, value in in_turn(works, repeat=AGAIN).items()}


def starts(rows: int) -> dict[str, Any]:
    """A memory of so many rows of 64 float16: how long a start takes."""
    import residua as rs

    rng = np.random.default_rng(0)

    def batches():
        for start in range(0, rows, BATCH):
            count = min(BATCH, rows - start)
            keys, labels = rng.standard_normal((count, DIM), dtype=np.float32), rng.integers(0, 100, count)
            yield rs.Encoded(keys, np.zeros((count, 100), np.float32), labels)

    with tempfile.TemporaryDirectory() as folder:
        rs.Memory(batches(), storage="none", key_dtype="float16").save(folder)
        return {"milliseconds": started(Path(folder)), "rows": rows, "seconds": child("opened", folder)}


def main() -> dict:
    """Accuracy and bytes of every kind of memory, and times of a start."""
    return {"bytes": kinds(ROWS), "start": starts(BIG)}


if __name__ == "__main__":
    verb, folder = sys.argv[1:]
    print(json.dumps({"grown": grown, "opened": opened}[verb](Path(folder))))
