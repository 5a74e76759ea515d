"""One memory, and threads that add, forget, relabel, undo, save, rebuild and search it at the same time.

    python -m stress.threads --minutes 10 --out stress/results/threads.json

Every row's key is a point of its own, and its label is told by it, or by a relabelling that the row's own thread made;
each editing thread has ids of its own, and keeps what it did. An answer is right where each neighbour is at its true
distance from the query, bears the label that its key says, and was remembered at some moment of the search; and where
two searches under ``memory.reading()`` agree. At the end the memory, and the folder, hold exactly what the threads
know they left.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

import residua as rs
from stress.report import write

DIM, CLASSES = 8, 7
CENTRES = np.random.default_rng(9).normal(size=(64, DIM))


def key_of(ids: np.ndarray) -> np.ndarray:
    """The key of each id, (n, d): told by it alone."""
    noise = np.sin(np.outer(ids, np.arange(1, DIM + 1)) * 0.7371)
    return (CENTRES[ids % len(CENTRES)] + 0.3 * noise).astype(np.float32)


def rows(ids: np.ndarray) -> rs.Encoded:
    """Rows of these ids, labelled as their keys say."""
    return rs.Encoded(key_of(ids), np.zeros((len(ids), CLASSES)), ids % CLASSES, ids)


class Run:
    """A memory, and what threads do to it until the time is over."""

    def __init__(self, index: str, seconds: float, seed: int, folder: Path):
        self.memory = rs.Memory(rows(np.arange(2000)), index=index)
        self.reader = rs.KNNLM(self.memory, k=8, lmbda=1.0, sigma=1.0)
        self.until, self.folder, self.seed = time.monotonic() + seconds, folder, seed
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.own: dict[int, dict[int, int]] = {}  # of each editor: id -> label

    def guarded(self, work: Any, number: int) -> None:
        rng = np.random.default_rng([self.seed, number])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                while time.monotonic() < self.until and not self.faults:
                    work(rng, number)
        except Exception:  # noqa: BLE001 (whatever it is, it is a fault of the memory)
            self.faults.append(traceback.format_exc(limit=6))

    def edit(self, rng: np.random.Generator, number: int) -> None:
        held, first = self.own.setdefault(number, {}), (number + 1) * 10**9
        what = rng.choice(["add", "add", "forget", "relabel", "replace", "group"])
        some = rng.choice(list(held), min(len(held), 20), replace=False) if held else np.empty(0, np.int64)
        if what == "add":
            new = first + self.counts[f"rows {number}"] + np.arange(rng.integers(1, 60))
            self.counts[f"rows {number}"] += len(new)
            self.memory.add(rows(new))
            held |= dict(zip(new.tolist(), (new % CLASSES).tolist(), strict=True))
        elif what == "forget" and len(some):
            self.memory.forget(some)
            for id in some.tolist():
                del held[id]
        elif what == "relabel" and len(some):
            labels = rng.integers(0, CLASSES, len(some))
            self.memory.relabel(some, labels)
            held |= dict(zip(some.tolist(), labels.tolist(), strict=True))
        elif what == "replace" and len(some):
            self.memory.add(rows(some), replace=True)
            held |= dict(zip(some.tolist(), (some % CLASSES).tolist(), strict=True))
        elif what == "group" and len(some) > 1:
            gone, kept = some[: len(some) // 2], some[len(some) // 2 :]
            with self.memory.editing("group") as draft:
                draft.forget(gone)
                draft.relabel(kept, 0)
            for id in gone.tolist():
                del held[id]
            held |= dict.fromkeys(kept.tolist(), 0)
        self.counts["edits"] += 1

    def search(self, rng: np.random.Generator, number: int) -> None:
        ids = rng.integers(0, 2000, rng.integers(1, 9))
        queries, k = key_of(ids) + rng.normal(0, 0.05, (len(ids), DIM)).astype(np.float32), int(rng.integers(1, 12))
        with self.memory.reading():
            found = self.memory.search(queries, k)
            again = self.memory.search(queries, k)
            at = found.rows.clamp_min(0)
            bear, labels = self.memory.column("id")[at].numpy(), self.memory.column("label")[at].numpy()
            active = self.memory.active_rows
            known = torch.isin(found.rows[found.found], active).all()
        keys = key_of(bear.ravel()).reshape(*bear.shape, DIM)
        apart = np.linalg.norm(queries[:, None].astype(np.float64) - keys, axis=2)
        right = found.found.numpy()
        if not bool(known):
            self.faults.append("a forgotten row was found")
        if not torch.equal(found.rows, again.rows):
            self.faults.append("two searches of one moment differ")
        if not np.allclose(found.distances.numpy()[right], apart[right], atol=1e-4):
            self.faults.append("a distance is not the one to the row's own key")
        base = right & (bear < 2000)
        if (labels[base] != bear[base] % CLASSES).any():
            self.faults.append("a row has another row's label")
        self.counts["searches"] += 1

    def predict(self, rng: np.random.Generator, number: int) -> None:
        ids = rng.integers(0, 2000, 20)
        said = self.reader.predict_proba(rs.Encoded(key_of(ids), np.zeros((20, CLASSES))))
        if not np.allclose(said.sum(axis=1), 1, atol=1e-4):
            self.faults.append("probabilities do not sum to 1")
        self.counts["predictions"] += 1

    def save(self, rng: np.random.Generator, number: int) -> None:
        self.memory.save(self.folder)
        loaded = rs.Memory.load(self.folder)
        ids, labels = loaded.ids, loaded.labels
        base = ids < 2000
        if len(np.unique(ids)) != len(ids) or (labels[base] != ids[base] % CLASSES).any():
            self.faults.append("a saved state was never there")
        self.counts["saves"] += 1
        time.sleep(0.2)

    def rebuild(self, rng: np.random.Generator, number: int) -> None:
        self.memory.rebuild()
        self.counts["rebuilds"] += 1
        time.sleep(1.0)

    def go(self) -> None:
        work = [self.edit] * 3 + [self.search] * 4 + [self.predict, self.save, self.rebuild]
        threads = [threading.Thread(target=self.guarded, args=(one, n), daemon=True) for n, one in enumerate(work)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=max(self.until - time.monotonic(), 0) + 120)
            if thread.is_alive():
                self.faults.append("a thread hangs")
        expected = {id: id % CLASSES for id in range(2000)}
        for own in self.own.values():
            expected |= own
        self.memory.save(self.folder)
        for memory in (self.memory, rs.Memory.load(self.folder)):
            held = dict(zip(memory.ids.tolist(), memory.labels.tolist(), strict=True))
            self.counts["rows lost"] += len(expected.keys() - held.keys())
            self.counts["rows too many"] += len(held.keys() - expected.keys())
            self.counts["labels wrong"] += sum(held[id] != label for id, label in expected.items() if id in held)
            keys = memory.keys
            if keys is None or not np.allclose(keys, key_of(memory.ids), atol=1e-5):
                self.faults.append("a row has another row's key")


def main(minutes: float, indexes: list[str], out: Path | None, seed: int = 0) -> int:
    sys.setswitchinterval(1e-4)
    torch.set_num_threads(1)
    report: dict[str, Any] = {"minutes": minutes, "seed": seed, "machine": platform.platform(), "threads": 10}
    report |= {"runs": {}}
    for index in indexes:
        with tempfile.TemporaryDirectory() as folder:
            run = Run(index, 60 * minutes / len(indexes), seed, Path(folder) / "memory")
            run.go()
        counts = {name: n for name, n in sorted(run.counts.items()) if not name.startswith("rows ") or n < 10**6}
        counts = {name: n for name, n in counts.items() if not name[5:].isdigit()}
        report["runs"][index] = counts | {"faults": run.faults[:5]}
        print(index, json.dumps(report["runs"][index]), flush=True)
    wrong = ("rows lost", "rows too many", "labels wrong", "faults")
    bad = sum(bool(one[name]) for one in report["runs"].values() for name in wrong)
    write(report, out)
    return bad


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Threads on one memory, every answer checked.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--index", action="append")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.exit(main(given.minutes, given.index or ["exact", "IVF16,Flat", "HNSW8"], given.out, given.seed))
