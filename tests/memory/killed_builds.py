"""Forks builds of a memory and kills them with SIGKILL; prints what came of it as JSON. Run by test_build.py.

One process imports everything once and every build is a fork of it, because importing takes longer than building.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch

from residua import Encoded, Memory
from residua.core import AbsentLogits
from residua.memory import manifest as files
from residua.memory.build import build

ROWS, EACH, DIM, CLASSES = 400, 50, 8, 11
torch.set_num_threads(1)


class Batch:
    def __init__(self, rows):
        self.labels, self.ids, self.offsets = rows * 7 % CLASSES, rows // 64, rows % 64

    def __len__(self):
        return len(self.labels)


def encode(batch):
    rows = batch.ids * 64 + batch.offsets
    keys = np.random.default_rng(0).normal(size=(ROWS, DIM))[rows] + 5 * (rows % 5)[:, None]
    columns = {"offset": batch.offsets}
    return Encoded(keys, AbsentLogits(len(batch), CLASSES), batch.labels, batch.ids, columns=columns)


def run(path, keep, pause=0.0):
    def slowly(batch):
        time.sleep(pause)
        return encode(batch)

    names = {}

    def batches():
        for start in range(0, ROWS, EACH):
            batch = Batch(np.arange(start, start + EACH))
            names.update({int(id): f"document {id}" for id in batch.ids})
            yield batch

    build(
        batches(),
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
        progress=False,
    )


def forked(work, kill_after=None):
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


def dying(work, step):
    """`work`, killed just before its `step`-th change on the disk."""
    left = [step]

    def deadly(place, name):
        real = getattr(place, name)

        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(place, name, wrapped)

    def run_it():
        import faiss

        for place, name in ((os, "replace"), (files, "save_file"), (Path, "unlink"), (faiss, "write_index")):
            deadly(place, name)
        work()

    return run_it


def content(path):
    """Everything a finished folder says, as bytes; names of files apart, which are random."""
    memory = Memory.load(path)
    names = ("label", "id", *memory.schema.columns)
    found = {name: memory.column(name)[:].contiguous().numpy().tobytes() for name in names}
    found["keys"] = memory.keys.tobytes() if memory.keys_kept else b""
    manifest = json.loads((path / "manifest.json").read_text())
    for name in ("generation", "crc32", "shards", "index", "names", "edits", "truth"):
        found[f"rest.{name}"] = manifest.pop(name, None) and b""
    found["manifest"] = json.dumps(manifest, sort_keys=True).encode()
    found["truth"] = b"".join(file.read_bytes() for file in path.glob("truth-*"))
    found["names"] = json.dumps(memory.names, sort_keys=True).encode()
    found["about"] = repr(memory.index.to_json() | {"file": None}).encode()
    found["index"] = next(path.glob("index-*.faiss")).read_bytes()
    return found


def left_over(path):
    manifest = json.loads((path / "manifest.json").read_text())
    named = {"manifest.json", "lock", manifest["names"]["file"], manifest.get("truth", manifest["names"])["file"]}
    named |= {one["file"] for one in (*manifest["shards"], *manifest["index"]["files"], *manifest["edits"])}
    return sorted({file.name for file in path.iterdir()} - named)


def main(folder, how, keep):
    folder, keep = Path(folder), keep == "keep"
    run(folder / "first", keep)  # here, so that no fork has to import what is imported late
    started = time.monotonic()
    assert forked(lambda: run(folder / "whole", keep))
    seconds = time.monotonic() - started
    reference, kills, different, left = content(folder / "whole"), 0, [], []

    def check(path, what):
        found = content(path)
        different.extend(f"{what}: {name}" for name in reference if found[name] != reference[name])
        left.extend(f"{what}: {name}" for name in left_over(path))

    if how == "each":
        step = 0
        while not forked(dying(lambda: run(folder / f"{step}", keep), step)):  # noqa: B023  (called at once)
            kills += 1
            assert forked(lambda: run(folder / f"{step}", keep))  # noqa: B023
            check(folder / f"{step}", f"step {step}")
            step += 1
    else:
        pause, moments = 0.01, random.Random(0)
        for trial in range(2):
            path = folder / f"random{trial}"
            whole = seconds + pause * ROWS / EACH
            for _ in range(4):
                if forked(lambda: run(path, keep, pause), moments.uniform(0.05, 0.6) * whole):  # noqa: B023
                    break
                kills += 1
                if not (path / "build.json").exists():  # killed between its end and its exit
                    break
            else:
                assert forked(lambda: run(path, keep, pause))  # noqa: B023
            check(path, f"trial {trial}")
    sys.stdout.write(json.dumps({"kills": kills, "different": different, "left": left}))


if __name__ == "__main__":
    main(*sys.argv[1:])
