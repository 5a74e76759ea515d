"""A memory of ten million rows, on one machine: built, searched, edited while others read it, killed, served.

    python -m benchmarks.generated rows/
    python -m benchmarks.large all rows/ mem/ --index IVF4096,PQ32x4fs --param nprobe=16 --param train_on=262144

The same with ``--index milvus://…`` or ``postgresql://…`` has its index on that server. Each step is a command of the
library's or a process of its own, as it would be in earnest. Answers go to ``mem-answers.npz`` beside the memory, so
that those of two indexes can be compared.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.generated import APART, CLASSES, DIM, QUERIES, Rows
from experiments.machine import machine

ROOT = Path(__file__).resolve().parents[1]
K, SEARCHED, CHECKED = 50, 1000, 200
KILLS, BETWEEN = 5, (4.0, 8.0)  # of the writer; seconds
EACH = 8  # rows of an edit


def command(*words: object) -> dict[str, Any]:
    """One of the library's commands, what it says by ``--json``, and what it took."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "residua", *map(str, words)], stdout=subprocess.PIPE, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"said": {name: value for name, value in json.loads(done.stdout).items() if name != "output"}} | {
        "wall_s": round(time.perf_counter() - begun, 2),
        "cpu_s": round(cpu, 2),
        "peak_mb": after.ru_maxrss // 1024,  # of the largest so far
    }


def where(index: str) -> dict[str, str]:
    """What whoever loads the memory has to say of its index."""
    return {"index": index} if "://" in index else {}


def searched(rows: Path, memory: Path, index: str) -> dict[str, Any]:
    """Load it, ask what is in no row, and compare with a scan of all keys."""
    import torch

    import residua as rs
    from benchmarks.growth import recall

    queries, begun = rs.Encoded.load(rows / "queries.npz"), time.perf_counter()
    loaded = rs.Memory.load(memory, mmap=True, **where(index))
    taken = time.perf_counter() - begun
    keys = queries.keys[:SEARCHED]
    loaded.search(keys[:10], K)
    begun = time.perf_counter()
    near = loaded.search(keys, K)
    together = (time.perf_counter() - begun) / len(keys)
    alone = []
    for key in keys[:CHECKED]:
        begun = time.perf_counter()
        loaded.search(key[None], K)
        alone.append(time.perf_counter() - begun)
    found = near.rows.numpy()
    np.savez(
        memory.with_name(f"{memory.name}-answers.npz"), ids=loaded.column("id")[near.rows], distances=near.distances
    )
    centred = torch.from_numpy(keys[:CHECKED])
    evaluated = rs.evaluate(rs.ResMem(loaded, k=K), queries[:SEARCHED])
    return {
        "rows": len(loaded),
        "load_s": round(taken, 2),
        "recall_stated": str(loaded.recall),
        "recall": round(recall(loaded, centred, found[:CHECKED]), 4),
        "ms_per_query": round(1000 * together, 3),
        "alone_p50_ms": round(1000 * float(np.median(alone)), 2),
        "alone_p99_ms": round(1000 * float(np.percentile(alone, 99)), 2),
        "base_accuracy": round(evaluated.base_accuracy, 4),
        "accuracy": round(evaluated.accuracy, 4),
    }


# --- edited while it is read, and killed --------------------------------------------------------------------------


def writing(memory: Path, index: str, diary: Path) -> None:
    """Add and forget rows for ever; each edit is in the diary before it begins, and once it is done."""
    import residua as rs

    live, draw = rs.Memory.open(memory, **where(index)), Rows()
    number = sum(line.startswith("begin add") for line in diary.read_text().splitlines()) if diary.exists() else 0
    with open(diary, "a", encoding="utf-8") as said:

        def tell(what: str) -> None:
            said.write(f"{what} {time.time()}\n")
            said.flush()

        tell("open -")
        while True:
            ids = np.arange(number * EACH, (number + 1) * EACH) + 10**9
            new = draw(APART + 1 + number, EACH)
            tell(f"begin add {number}")
            live.add(rs.Encoded(new.keys, new.logits, new.labels, ids))
            tell(f"done add {number}")
            if number % 2:
                tell(f"begin forget {number}")
                live.forget(ids)
                tell(f"done forget {number}")
            number += 1


def told(diary: Path) -> tuple[set[int], set[int], set[int]]:
    """The numbers of the batches that must be there, must not, and may."""
    lines = [line.split() for line in (diary.read_text().splitlines() if diary.exists() else [])]
    there, gone, unsure = set[int](), set[int](), set[int]()
    for when, what, number, *_ in (line for line in lines if line[0] != "open"):
        (unsure.add if when == "begin" else unsure.discard)(int(number))
        if when == "done":
            (there.add if what == "add" else there.discard)(int(number))
            gone |= {int(number)} if what == "forget" else set()
    return there - unsure, gone - unsure, unsure


def reading(memory: Path, index: str, diary: Path, stop: Path) -> dict[str, Any]:
    """Search all the while: what was done when a refresh began is found, and what was forgotten is not."""
    import residua as rs

    held, draw, rng = rs.Memory.load(memory, mmap=True, **where(index)), Rows(), random.Random(0)
    queries, found = draw(APART, QUERIES).keys, {"searches": 0, "looked_for": 0, "wrong": list[str]()}
    seconds = list[float]()
    while not stop.exists():
        there, gone, _ = told(diary)
        held.refresh()
        for number, wanted in [(rng.choice(sorted(some)), some is there) for some in (there, gone) if some]:
            near = held.search(draw(APART + 1 + number, EACH).keys, 3)
            ids = held.column("id")[near.rows].numpy()
            mine = np.arange(number * EACH, (number + 1) * EACH) + 10**9
            right = (ids == mine[:, None]).any(axis=1).all() if wanted else not np.isin(ids, mine).any()
            found["looked_for"] += 1
            if not right:
                found["wrong"].append(f"batch {number} is {'not found' if wanted else 'found, and was forgotten'}")
        for _ in range(5):
            begun = time.perf_counter()
            assert held.search(queries[rng.randrange(QUERIES)][None], K).found.all()
            seconds.append(time.perf_counter() - begun)
    found["searches"] = len(seconds)
    return found | {"p50_ms": round(1000 * float(np.median(seconds)), 2), "p99_ms": _p99(seconds)}


def _p99(seconds: list[float]) -> float:
    return round(1000 * float(np.percentile(seconds, 99)), 2)


def child(step: str, *words: object) -> subprocess.Popen:
    """One of the steps in a process of its own."""
    words = (sys.executable, "-m", "benchmarks.large", step, *map(str, words))
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL if step == "write" else subprocess.PIPE)


def edited(memory: Path, index: str, kills: int) -> dict[str, Any]:
    """A writer, killed again and again, beside a reader; then what the folder holds, opened anew."""
    import residua as rs

    diary, stop, rng = (
        memory.with_name(f"{memory.name}.diary"),
        memory.with_name(f"{memory.name}.stop"),
        random.Random(0),
    )
    diary.unlink(missing_ok=True), stop.unlink(missing_ok=True)
    before = len(rs.Memory.load(memory, mmap=True, **where(index)))
    reader = child("read", memory, "--index", index, "--diary", diary, "--stop", stop)
    for _ in range(kills):
        writer, opened = child("write", memory, "--index", index, "--diary", diary), _count(diary, "open")
        while _count(diary, "open") == opened:
            time.sleep(0.1)
            assert writer.poll() is None, "the writer failed"
        time.sleep(rng.uniform(*BETWEEN))
        assert writer.poll() is None, "the writer failed"
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    stop.touch()
    read = json.loads(reader.communicate()[0])
    begun = time.perf_counter()
    again = rs.Memory.load(memory, mmap=True, **where(index))
    taken, (there, gone, unsure) = time.perf_counter() - begun, told(diary)
    ids = set(again.ids[again.ids >= 10**9].tolist())
    of = lambda number: set(range(10**9 + number * EACH, 10**9 + (number + 1) * EACH))  # noqa: E731
    lines = [line.split() for line in diary.read_text().splitlines()]
    return {
        "kills": kills,
        "edits_done": sum(line[0] == "done" for line in lines),
        "edit_p50_ms": _between(lines),
        "lost": sum(not of(number) <= ids for number in there),
        "come_back": sum(bool(of(number) & ids) for number in gone),
        "half": sum(0 < len(of(number) & ids) < EACH for number in unsure),
        "others_lost": before - (len(again) - len(ids)),
        "reader": read,
        "load_s": round(taken, 2),
        "damaged": list(rs.Memory.verify(memory).damaged),
    }


def _count(diary: Path, what: str) -> int:
    return sum(line.startswith(what) for line in diary.read_text().splitlines()) if diary.exists() else 0


def _between(lines: list[list[str]]) -> float:
    times = [float(b[-1]) - float(a[-1]) for a, b in itertools.pairwise(lines) if a[0] == "begin" and b[0] == "done"]
    return round(1000 * float(np.median(times)), 1)


# --- served -------------------------------------------------------------------------------------------------------


@contextmanager
def served(memory: Path, index: str) -> Any:
    """The address of ``residua serve``."""
    options = [word for name, value in where(index).items() for word in (f"--{name}", value)]
    words = [sys.executable, "-m", "residua", "serve", memory, "--port", "0", *options]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(list(map(str, words)), **quiet) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def asked(rows: Path, memory: Path, index: str) -> dict[str, Any]:
    """What the server answers is what the library does, and an added row counts in the next answer."""
    import residua as rs

    reader = rs.ResMem(rs.Memory.load(memory, mmap=True, **where(index)), k=K)
    reader.save(memory)
    queries = rs.Encoded.load(rows / "queries.npz")[:CHECKED]
    wanted = reader.predict(queries).tolist()
    far = {"key": (np.full(DIM, 40.0)).tolist(), "logits": np.eye(CLASSES)[3].tolist()}

    with served(memory, index) as url:

        def ask(path: str, **body: Any) -> Any:
            request = urllib.request.Request(
                url + path, json.dumps(body).encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)

        seconds, same = list[float](), 0
        for key, logits, expected in zip(queries.keys, queries.logits.dense().numpy(), wanted):
            row, begun = {"key": key.tolist(), "logits": logits.tolist()}, time.perf_counter()
            same += ask("/predict", rows=[row])["predictions"][0]["prediction"] == expected
            seconds.append(time.perf_counter() - begun)
        ids = list(range(2 * 10**9, 2 * 10**9 + K))
        begun = time.perf_counter()
        ask("/add", rows=[far | {"label": 5, "id": id} for id in ids])
        adding = time.perf_counter() - begun
        learned = ask("/predict", rows=[far])["predictions"][0]["prediction"]
        ask("/forget", ids=ids)
        forgot = ask("/predict", rows=[far])["predictions"][0]["prediction"]
    return {
        "same": f"{same} of {len(wanted)}",
        "p50_ms": round(1000 * float(np.median(seconds)), 2),
        "p99_ms": _p99(seconds),
        "add_ms": round(1000 * adding, 1),
        "learned": learned == 5,
        "forgot": forgot != 5,
    }


STEPS = {"search": searched, "serve": asked}


def main(rows: Path, memory: Path, index: str, params: list[str], kills: int) -> dict[str, Any]:
    """All steps, of the rows that lie in folder `rows`."""
    options = [word for param in params for word in ("--index-param", param)]
    made = ["-o", memory, "--index", index, *options, "--overfetch", 16, "--key-dtype", "float16", "--json"]
    report: dict[str, Any] = {"index": index.partition("?")[0], "params": params}
    begun = time.perf_counter()

    def step(name: str, found: dict[str, Any]) -> None:
        report[name] = found
        print(name, json.dumps(found, indent=1), flush=True)

    def alone(name: str) -> dict[str, Any]:
        done = child(name, rows, memory, "--index", index)
        return json.loads(done.communicate()[0])

    step("build", command("build", *sorted(rows.glob("rows-*.npz")), *made))
    step("search", alone("search"))
    step("edit", edited(memory, index, kills))
    step("serve", alone("serve"))
    return report | {"seconds": round(time.perf_counter() - begun)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A large memory, from the first row to the server.")
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("all", *STEPS, "read", "write"):
        one = steps.add_parser(name)
        if name in ("all", *STEPS):
            one.add_argument("rows", type=Path, help="the folder that benchmarks.generated wrote")
        one.add_argument("memory", type=Path)
        one.add_argument("--index", default="exact")
        if name == "all":
            one.add_argument("--param", action="append", default=[], metavar="NAME=VALUE")
            one.add_argument("--kills", type=int, default=KILLS)
            one.add_argument("--out", type=Path, help="a record, to be written or to be added to")
        elif name not in STEPS:
            one.add_argument("--diary", type=Path, required=True)
            one.add_argument("--stop", type=Path)
    given = parser.parse_args()
    if given.step in STEPS:
        print(json.dumps(STEPS[given.step](given.rows, given.memory, given.index)))
    elif given.step == "read":
        print(json.dumps(reading(given.memory, given.index, given.diary, given.stop)))
    elif given.step == "write":
        writing(given.memory, given.index, given.diary)
    else:
        found = main(given.rows, given.memory, given.index, given.param, given.kills)
        if given.out is not None:
            before = json.loads(given.out.read_text("utf-8"))["results"] if given.out.exists() else {}
            results = before | {given.index.partition("://")[0]: found}
            record = {"benchmark": "large", "command": "python -m benchmarks.large all", "machine": machine()}
            record["seconds"] = sum(one["seconds"] for one in results.values())
            given.out.write_text(json.dumps(record | {"results": results}, indent=2) + "\n", encoding="utf-8")
