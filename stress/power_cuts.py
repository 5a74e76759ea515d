"""Power cuts at every moment of whatever writes a memory: what strict POSIX may leave is the old memory or the new one.

    python -m stress.power_cuts --states 10000 --out stress/results/power_cuts.json

Each call is recorded, and every state that a cut may leave is laid out in a folder and read (``stress.disk`` makes
them: all subsets of up to twelve operations that are not flushed; of more all prefixes, and random subsets). It has to
be the whole old memory or the whole new one, with its log, names and reader, and the new one where the call had
returned; every file of it, and of the generations before it, is as it was written; now and then it is saved on, and
then no file is left over. Rounds differ in index, storage, and how soon small files are merged. A build that was cut is
called again, and has to become what it was to be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import residua as rs
from residua.errors import MemoryFileError
from residua.folder import MANIFEST, earlier_manifest, named_files, read_manifest
from residua.memory import manifest as files
from residua.memory import store
from stress import killed_builds
from stress.disk import Recording, State, lay_out
from stress.left_over import left_over

NONE, REFUSED = "no memory", "refused"
RAM = Path("/dev/shm")  # where states are laid out, if there is such a place
KINDS = [("exact", "full", 1024), ("exact", "none", 3), ("HNSW4", "full", 3), ("exact", "top-m", 1024)]


def rows(n: int, rng: np.random.Generator, outputs: int = 2, **more: Any) -> rs.Encoded:
    return rs.Encoded(rng.normal(size=(n, 2)), rng.normal(size=(n, outputs)), rng.integers(0, outputs, n), **more)


def content(folder: Path) -> Any:
    """All that a folder holds."""
    if not (folder / MANIFEST).exists():
        return NONE
    try:
        memory, reader = rs.Memory.load(folder), read_manifest(folder).get("reader")
    except MemoryFileError:
        return REFUSED
    generation = read_manifest(folder)["generation"]
    told = [(one.what, one.note, one.added, one.forgotten, one.relabelled, one.undoes) for one in memory.log()]
    logits = None if memory.logits is None else memory.logits.dense().tolist()
    keys = None if memory.keys is None else memory.keys.tolist()
    near = memory.search(np.zeros((1, 2)), 3)
    found = near.rows.tolist(), near.distances.tolist()
    held = memory.ids.tolist(), memory.labels.tolist(), keys, logits, memory.names.to_json(), told, reader, found
    return generation, held


def chosen(recording: Recording, limit: int | None, seed: int, most: int, samples: int) -> list[tuple[State, bool]]:
    """The states that a cut may leave; of more than `limit` some."""
    states = list(recording.states(most, samples, seed))
    return states if limit is None or len(states) <= limit else random.Random(seed).sample(states, limit)


def attack(root: Path, folder: str, call: Callable[[], Any], limit: int | None = None, seed: int = 0) -> int:
    """Record a call and read every state that a power cut may leave of it, or `limit` of them; how many these were.

    ``AssertionError`` where one is neither the old memory nor the new one. Every tenth is saved on.
    """
    old = content(root / folder)
    with Recording(root) as recording:
        call()
    new = content(root / folder)
    assert new not in (old, NONE, REFUSED)
    states = chosen(recording, limit, seed, most=12, samples=40)
    for number, (state, returned) in enumerate(states):
        with laid_out(root, state) as cut:
            found = content(cut / folder)
            # A live purge saves twice: what is in between holds the same as the end.
            assert found == new or (not returned and (found == old or found[1] == new[1])), sorted(state)
            if found not in (NONE, REFUSED):
                check_files(cut / folder)
                if number % 10 == 0:
                    rs.Memory.load(cut / folder).save(cut / folder)
                    assert content(cut / folder)[1] == found[1] and not left_over(cut / folder), sorted(state)
    return len(states)


@contextlib.contextmanager
def laid_out(root: Path, state: State) -> Iterator[Path]:
    """A folder in that state, beside `root`."""
    cut = root.with_name("cut")
    try:
        lay_out(state, cut)
        yield cut
    finally:
        shutil.rmtree(cut)


def check_files(folder: Path) -> None:
    """``MemoryFileError`` where a file is not whole, those of the generations before, too."""
    for name in (MANIFEST, *map(earlier_manifest, read_manifest(folder)["earlier"])):
        for about in named_files(read_manifest(folder, name)):
            files.verify(folder, about)


def calls(folder: Path, index: str, storage: Any, rng: np.random.Generator) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is attacked, in words, and as a call, which is made before the next is asked for."""
    memory = rs.Memory(rows(int(rng.integers(6, 30)), rng), index=index, storage=storage, m=1, names={0: "zero"})

    def more(n: int) -> rs.Encoded:
        return rows(n, rng, memory.n_outputs)

    def some(n: int) -> np.ndarray:
        return np.sort(rng.choice(memory.ids, n, replace=False))

    def other(ids: np.ndarray) -> np.ndarray:
        return (memory.labels[np.isin(memory.ids, ids)] + 1) % 2  # ids ascend

    def save() -> None:
        memory.save(folder)

    yield "first save", save
    memory.add(more(int(rng.integers(1, 5))))
    yield "add", save
    memory.forget(some(2))
    yield "forget", save
    ids = some(3)
    memory.relabel(ids, other(ids))
    memory.rename({int(memory.ids[0]): ("one", "first")})
    yield "relabel and rename", save
    yield "save with a reader", lambda: rs.KNNLM(memory, k=2, lmbda=0.5, sigma=1.0).save(folder)
    for n in (1, 1, 2):
        memory.add(more(n))
        yield "merge of shards", save
    memory.undo()
    memory.add(more(1), note="again")
    yield "undo and add", save
    before = content(folder)[1]
    yield "compact", lambda: rs.Memory.compact(folder)
    assert content(folder)[1] == before
    memory = rs.Memory.load(folder)
    memory.forget(some(2))
    yield "purge", lambda: memory.purge(folder, progress=False)
    if storage != "top-m":
        memory.add(rs.Encoded(np.ones((1, 2)), np.zeros((1, 2)), [2], new_classes=True), new_classes=True)
        yield "new classes", save
    memory = rs.Memory.open(folder)
    yield "live add", lambda: memory.add(more(3))
    yield "live forget", lambda: memory.forget(some(1))
    ids = some(2)
    yield "live relabel", lambda: memory.relabel(ids, other(ids))

    def group() -> None:
        with memory.editing("merge") as draft:
            draft.forget(some(1))
            draft.add(more(2))

    yield "live, several as one", group
    yield "live undo", memory.undo
    yield "live rebuild", memory.rebuild
    memory.add(more(1))
    memory.forget(some(1))
    (folder / read_manifest(folder)["edits"][-1]["file"]).write_bytes(b"half")
    yield "repair", lambda: rs.Memory.verify(folder, repair=True)


def calls_without_keys(folder: Path, rng: np.random.Generator) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The same for a memory whose keys were discarded: those of new rows go into files of their own, until there are so
    many that the index is written anew."""
    memory = rs.Memory(rows(40, rng), index="SQ8")
    memory.save(folder)
    memory.discard_keys()
    yield "discard keys", lambda: memory.save(folder)
    for n in (1, 3, 30):
        memory.add(rows(n, rng))
        yield "add without keys", lambda: memory.save(folder)
    live = rs.Memory.open(folder)
    yield "live add without keys", lambda: live.add(rows(2, rng))
    yield "purge without keys", lambda: live.purge(folder, progress=False)
    live.add(rows(1, rng))
    yield "live undo without keys", live.undo


def attack_build(root: Path, keep: bool, limit: int, seed: int) -> int:
    """Cut a build's power; called again, it becomes the memory it was to be. How many states were tried."""

    def run(root: Path) -> None:
        killed_builds.run(root / "build", keep, checkpoint_every=1e-9)

    with Recording(root) as recording:
        run(root)
    reference, states = killed_builds.content(root / "build"), chosen(recording, limit, seed, most=3, samples=3)
    for state, returned in states:
        with laid_out(root, state) as cut:
            if not returned:
                run(cut)
            assert killed_builds.content(cut / "build") == reference and not left_over(cut / "build"), sorted(state)
    return len(states)


def attack_round(number: int, limit: int | None, builds: int) -> Counter[str]:
    """All ``calls`` on one memory, and a build, with at most so many states of each; how many were tried."""
    index, storage, small = KINDS[number % len(KINDS)]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=RAM if RAM.is_dir() else None) as place:
        root = Path(place) / "disk"
        root.mkdir()
        with mock.patch.object(store, "_SMALL", small):
            rng = np.random.default_rng(number)
            for folder, made in (
                ("new/mem", calls(root / "new" / "mem", index, storage, rng)),
                ("codes", calls_without_keys(root / "codes", rng)),
            ):
                for what, call in made:
                    try:
                        counts[what] += attack(root, folder, call, limit, number)
                    except (AssertionError, MemoryFileError) as error:
                        raise AssertionError(f"round {number}, {what}: {error}") from error
        counts["build"] += attack_build(root, number % 2 == 0, builds, number)
    return counts


def main(states: int, out: Path | None) -> int:
    torch.set_num_threads(1)
    os.environ.setdefault("RESIDUA_SECRET", "of the power cuts alone")
    began, counts, rounds, faults = time.monotonic(), Counter[str](), 0, list[str]()
    while (counts.total() < states or rounds < len(KINDS)) and not faults:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                counts += attack_round(rounds, limit=None, builds=40)
        except Exception:  # noqa: BLE001 (whatever it is, it is a fault of the memory)
            faults.append(traceback.format_exc())
        rounds += 1
        print(rounds, counts.total(), f"{time.monotonic() - began:.0f} s", flush=True)
    report = {"machine": platform.platform(), "minutes": round((time.monotonic() - began) / 60, 1), "rounds": rounds}
    report |= {"states": counts.total(), "of each": dict(counts.most_common()), "faults": faults}
    print(json.dumps(report, indent=1))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n")
    return len(faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Power cuts at every moment of whatever writes a memory.")
    parser.add_argument("--states", type=int, default=10_000, help="at least")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    sys.exit(main(given.states, given.out))
