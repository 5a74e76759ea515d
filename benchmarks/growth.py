"""What a memory costs as it grows from 10^5 to 10^7 rows of 256 float16: building, opening, searching, editing, saving.

Keys are clusters: 1000 centres in 256 dimensions, 16 directions of variation within each (one of 64 sets of them) and
a little noise in all; block b of 65 536 rows is drawn with seed b, queries with another. The index is the same at every
size. Each size is built in one process and used in another, whose keys are mapped and whose address space, mapped files
included, is limited to 8 GiB. ``python -m benchmarks.growth`` draws what ``benchmarks.run growth`` measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROWS = (100_000, 1_000_000, 10_000_000)
DIM, CLUSTERS, INNER, SETS, CLASSES, BLOCK = 256, 1000, 16, 64, 1000, 65_536
INDEX: dict[str, Any] = {"index": "IVF1024,PQ64x4fs", "index_params": {"nprobe": 32}, "overfetch": 16}
QUERIES, K, ALONE, CHECKED = 1000, 50, 200, 100
ADDED, EDITED, LIMIT = 1000, 10, 8 * 2**30


class Keys:
    """The keys' clusters, the same in every process."""

    def __init__(self, dim: int = DIM) -> None:
        rng = np.random.default_rng(2026)
        self.centres = rng.standard_normal((CLUSTERS, dim), dtype=np.float32)
        self.inner = rng.standard_normal((SETS, INNER, dim), dtype=np.float32) / np.float32(2 * INNER**0.5)

    def __call__(self, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys float32 (count, d), and the class of each."""
        rng = np.random.default_rng([7, seed])
        cluster = np.sort(rng.integers(CLUSTERS, size=count))
        keys = self.centres[cluster] + 0.1 * rng.standard_normal((count, self.centres.shape[1]), dtype=np.float32)
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


def use(path: Path) -> dict:
    """Open the folder `path`, search, edit and save it, in little address space."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    import faiss  # noqa: F401 (so that opening is timed alone)
    import torch

    import residua as rs

    drop_cache(path)
    memory, cold = timed(lambda: rs.Memory.load(path, mmap=True))
    del memory
    memory, warm = timed(lambda: rs.Memory.load(path, mmap=True))
    found: dict[str, Any] = {"rows": len(memory), "open_cold": cold, "open": warm | resident()}
    draw = Keys()
    queries, _ = draw(10**6, QUERIES)
    near, first = timed(lambda: memory.search(queries, K).rows)
    _, again = timed(lambda: memory.search(queries, K))
    alone = [timed(lambda one=one: memory.search(one[None], K))[1]["wall_s"] for one in queries[:ALONE]]
    found["search"] = {
        "first_ms_per_query": round(first["wall_s"], 4),
        "ms_per_query": round(again["wall_s"], 4),
        "cpu_ms_per_query": round(again["cpu_s"], 4),
        "alone_p50_ms": round(1000 * float(np.median(alone)), 3),
        "alone_p99_ms": round(1000 * float(np.percentile(alone, 99)), 3),
        "recall": round(recall(memory, torch.from_numpy(queries[:CHECKED]), near[:CHECKED]), 4),
    } | resident()
    keys, classes = draw(10**6 + 1, ADDED)
    new = rs.Encoded(keys, np.zeros((ADDED, CLASSES), np.float32), classes, columns={"offset": np.zeros(ADDED, int)})
    ids, found["add"] = timed(lambda: memory.add(new))
    assert (memory.search(keys[:5], 1).rows[:, 0].numpy() == len(memory) - ADDED + np.arange(5)).all()
    _, found["save_after_add"] = timed(lambda: memory.save(path))
    _, found["forget"] = timed(lambda: memory.forget(ids[:EDITED]))
    _, found["relabel"] = timed(lambda: memory.relabel(ids[EDITED : 2 * EDITED], 1))
    _, found["save_after_edit"] = timed(lambda: memory.save(path))
    _, found["undo"] = timed(lambda: memory.undo())
    return found | {"at_the_end": resident(), "load_average": os.getloadavg()[0]}


def drop_cache(path: Path) -> None:
    """Let the system forget what it holds of the files in `path`."""
    for file in path.iterdir():
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def recall(memory: Any, queries: Any, found: Any) -> float:
    """Share of the true nearest rows of unseen queries that were found, by reading all keys."""
    import torch

    best = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, memory.n_rows, BLOCK):
        rows = np.arange(start, min(start + BLOCK, memory.n_rows))
        keys = memory.keys_at(rows)
        scores = torch.addmm(keys.square().sum(dim=1), queries, keys.T, alpha=-2)
        scores, at = scores.topk(min(K, len(rows)), largest=False)
        both = torch.cat([best[0], scores], dim=1), torch.cat([best[1], at + start], dim=1)
        least, at = both[0].topk(min(K, both[0].shape[1]), largest=False)
        best = least, both[1].gather(1, at)
    return float(np.mean([len(np.intersect1d(one, other)) / K for one, other in zip(found, best[1])]))


def child(*arguments: object, module: str = "benchmarks.growth") -> dict:
    """What another process, of one thread, measures."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(command, cwd=HERE.parent, env=os.environ | one, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(memory: Path | None = None) -> dict:
    """Every size, in folders that are removed; with `memory`, in its folders, and those built there stay."""
    out: dict[str, Any] = {"index": INDEX, "k": K, "address_space_limit_mb": LIMIT // 2**20, "sizes": {}}
    for n in ROWS:
        with tempfile.TemporaryDirectory(prefix="residua-growth-") as temporary:
            folder = Path(temporary if memory is None else memory)
            built = folder / f"{n}.json"
            if not built.exists():
                built.write_text(json.dumps(child("build", folder / str(n), n)), encoding="utf-8")
            out["sizes"][str(n)] = json.loads(built.read_text("utf-8")) | child("use", folder / str(n))
    return out


def draw_picture(record: dict, path: Path) -> None:
    """Four panels against the number of rows: what is built, opened, searched and held."""
    from experiments import figures

    sizes = record["results"]["sizes"]
    rows = [int(n) for n in sizes]
    figure, axes = figures.panels(2, 2, (9.5, 6.4))
    panels: list[tuple[str, dict[str, Callable[[dict], float]]]] = [
        ("CPU seconds to build, one thread", {"build": lambda one: one["build"]["cpu_s"]}),
        (
            "seconds to open and to change",
            {
                "open, files cached": lambda one: one["open"]["wall_s"],
                "open, files not cached": lambda one: one["open_cold"]["wall_s"],
                "add 1000 rows": lambda one: one["add"]["wall_s"],
                "save after 20 edits": lambda one: one["save_after_edit"]["wall_s"],
            },
        ),
        (
            "milliseconds a query, k = 50",
            {
                "a thousand at once": lambda one: one["search"]["ms_per_query"],
                "one alone, median": lambda one: one["search"]["alone_p50_ms"],
            },
        ),
        (
            "MB",
            {
                "the folder": lambda one: one["folder_mb"],
                "the process's own, at the end": lambda one: one["at_the_end"]["own_mb"],
                "all it ever had in RAM, mapped pages too": lambda one: one["at_the_end"]["peak_mb"],
            },
        ),
    ]
    colours = (figures.RESMEM, figures.DARK, figures.BASE, figures.MIXED)
    for axis, (what, lines) in zip(axes.flat, panels):
        for (name, of), colour in zip(lines.items(), colours):
            axis.plot(rows, [of(one) for one in sizes.values()], "o-", color=colour, label=name, ms=5)
        axis.set(xscale="log", yscale="log", xlabel="rows of 256 float16", ylabel=what)
        axis.margins(y=0.35)
        axis.legend(frameon=False, fontsize=8)
    for n, one in zip(rows, sizes.values()):
        text = f"recall\n{one['search']['recall']:.3f}"
        figures.beside(axes.flat[2], n, one["search"]["ms_per_query"], text, at=(0, -14))
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("work", nargs="?", choices=["build", "use"])
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("rows", nargs="?", type=int)
    given = parser.parse_args()
    if given.work == "build":
        print(json.dumps(build(given.path, given.rows)))
    elif given.work == "use":
        print(json.dumps(use(given.path)))
    else:
        results = HERE / "results"
        draw_picture(json.loads((results / "growth.json").read_text("utf-8")), results / "growth.png")
