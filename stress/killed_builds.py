"""Builds of a memory that are killed with SIGKILL, and called again, until they end: each is the memory it was to be.

    python -m stress.killed_builds --kills 2400 --out stress/results/killed_builds.json

First a build is killed before every change on the disk in turn; then many, at random moments or before a random change,
again and again. The finished folder is compared byte by byte with one that nobody disturbed (but for names, which are
random), and nothing may be left over. One process imports everything once and every build is a fork of it, because
importing takes longer than building.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from residua import Encoded, Memory
from residua.core import AbsentLogits
from residua.memory import manifest as files
from residua.memory.build import build
from stress.left_over import left_over
from stress.report import write

ROWS, EACH, DIM, CLASSES = 400, 50, 8, 11


class Batch:
    def __init__(self, rows: np.ndarray):
        self.labels, self.ids, self.offsets = rows * 7 % CLASSES, rows // 64, rows % 64

    def __len__(self) -> int:
        return len(self.labels)


def encode(batch: Batch) -> Encoded:
    rows = batch.ids * 64 + batch.offsets
    keys = np.random.default_rng(0).normal(size=(ROWS, DIM))[rows] + 5 * (rows % 5)[:, None]
    columns = {"offset": batch.offsets}
    return Encoded(keys, AbsentLogits(len(batch), CLASSES), batch.labels, batch.ids, columns=columns)


def run(path: Path, keep: bool, pause: float = 0.0, checkpoint_every: float = 60.0, together: bool = False) -> None:
    """Build, or go on with it; with a `pause` at every batch."""

    def slowly(batch: Batch) -> Encoded:
        time.sleep(pause)
        return encode(batch)

    names: dict[int, str] = {}

    def batches() -> Iterator[Batch]:
        for start in range(0, ROWS, EACH):
            batch = Batch(np.arange(start, start + EACH))
            names.update({int(id): f"document {id}" for id in batch.ids})
            yield batch

    build(
        batches,
        slowly,
        path,
        index="IVF8,PQ4x4fs",
        overfetch=20,
        keep_keys=keep,
        key_dtype="float16",
        about={"a": 1},
        names=names,
        shard_rows=150,
        train_rows=150,
        checkpoint_every=checkpoint_every,
        progress=False,
        together=together,
    )


def forked(work: Callable[[], None], kill_after: float | None = None) -> bool:
    """Whether `work` ended well in a fork, which is killed after some seconds."""
    child = os.fork()
    if not child:
        status = 3
        try:
            work()
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a build failed")
    return os.WIFEXITED(status)


def dying(work: Callable[[], None], step: int) -> Callable[[], None]:
    """`work`, killed just before its `step`-th change on the disk."""
    left = [step]

    def deadly(place: Any, name: str) -> None:
        real = getattr(place, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(place, name, wrapped)

    def run_it() -> None:
        import faiss

        for place, name in ((os, "replace"), (files, "save_file"), (Path, "unlink"), (faiss, "write_index")):
            deadly(place, name)
        work()

    return run_it


def content(path: Path) -> dict[str, bytes]:
    """Everything a finished folder says, as bytes; names of files apart, which are random."""
    memory = Memory.load(path)
    names = ("label", "id", *memory.schema.columns)
    found = {name: memory.column(name)[:].contiguous().numpy().tobytes() for name in names}
    found["keys"] = memory.keys.tobytes() if memory.keys is not None else b""
    manifest = json.loads((path / "manifest.json").read_text())
    for name in ("generation", "crc32", "shards", "index", "names", "edits", "truth"):
        found[f"rest.{name}"] = manifest.pop(name, None) and b""
    found["manifest"] = json.dumps(manifest, sort_keys=True).encode()
    found["truth"] = b"".join(file.read_bytes() for file in path.glob("truth-*"))
    found["names"] = json.dumps(memory.names, sort_keys=True).encode()
    found["about"] = repr(memory.index.to_json() | {"file": None}).encode()
    found["index"] = next(path.glob("index-*.faiss")).read_bytes()
    return found


class Attack:
    """Builds that keep their keys, or drop them, beside one that nobody disturbs."""

    def __init__(self, folder: Path, keep: bool):
        self.folder, self.keep, self.kills, self.builds = folder, keep, 0, 0
        self.different: list[str] = []
        self.left: list[str] = []
        run(folder / "first", keep)  # here, so that no fork has to import what is imported late
        began = time.monotonic()
        assert forked(lambda: run(folder / "whole", keep))
        self.seconds = time.monotonic() - began
        self.reference = content(folder / "whole")

    def check(self, path: Path, what: str) -> None:
        found = content(path)
        self.different += [f"{what}: {name}" for name in self.reference if found[name] != self.reference[name]]
        self.left += [f"{what}: {name}" for name in left_over(path)]
        self.builds += 1
        shutil.rmtree(path)

    def at_each_step(self) -> None:
        """Kill a build before its first change on the disk, then let it end; another before its second; and so on."""
        for step in range(10**6):
            path = self.folder / f"step {step}"
            ended = forked(dying(lambda: run(path, self.keep), step))  # noqa: B023 (called at once)
            if ended:
                return
            self.kills += 1
            assert forked(lambda: run(path, self.keep))  # noqa: B023
            self.check(path, f"step {step}")

    def at_random(self, rng: random.Random) -> None:
        """Kill one build again and again, and let it end at last."""
        path, every, pause = self.folder / "random", rng.choice([1e-9, 60.0]), rng.choice([0.0, 0.01])
        whole, lives = self.seconds + pause * ROWS / EACH, rng.randint(1, 12)

        def work() -> None:
            run(path, self.keep, pause, every)

        for _ in range(lives):
            if rng.random() < 0.5:
                ended = forked(dying(work, rng.randrange(25)))
            else:
                ended = forked(work, rng.uniform(0.02, 0.6) * whole)
            if ended:
                break
            self.kills += 1
            if (path / "manifest.json").exists() and not (path / "build.json").exists():
                break  # killed between its end and its exit
        else:
            assert forked(work)
        self.check(path, f"build {self.builds}")


def main(how: list[str], keys: list[str], kills: int, seed: int = 0, out: Path | None = None) -> dict[str, Any]:
    """What came of at least so many `kills` at random moments, and of one before each step."""
    torch.set_num_threads(1)  # so that it can fork
    os.environ.setdefault("RESIDUA_SECRET", "of the killed builds alone")
    began, rng = time.monotonic(), random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        attacks = [Attack(Path(place) / kept, kept == "keep") for kept in keys]
        for attack in attacks if "each" in how else ():
            attack.at_each_step()
        each = sum(attack.kills for attack in attacks)
        while "random" in how and sum(attack.kills for attack in attacks) < each + kills:
            rng.choice(attacks).at_random(rng)
    report: dict[str, Any] = {"machine": platform.platform(), "cores": os.cpu_count(), "seed": seed}
    report |= {"minutes": round((time.monotonic() - began) / 60, 1), "builds": sum(one.builds for one in attacks)}
    report |= {"kills before each step": each, "kills at random": sum(one.kills for one in attacks) - each}
    report["different"] = [what for attack in attacks for what in attack.different]
    report["left"] = [what for attack in attacks for what in attack.left]
    write(report, out)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Builds that are killed and called again.")
    parser.add_argument("--how", action="append", choices=["each", "random"])
    parser.add_argument("--keys", action="append", choices=["keep", "drop"])
    parser.add_argument("--kills", type=int, default=2400, help="at random, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = main(given.how or ["each", "random"], given.keys or ["keep", "drop"], given.kills, given.seed, given.out)
    print(json.dumps(found))
    sys.exit(bool(found["different"] or found["left"]))
