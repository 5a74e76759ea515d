"""What a memory of any size costs: constants measured at 10^5 to 3·10^6 rows, and what they say of 10^7 beside a run.

One thread; index ``IVF{√n},PQ{d/2}x4fs``, keys in float16, k = 50 of 16 times as many candidates. ``docs/scale.md`` has
the tables that ``python -m benchmarks.scale tables`` prints of the record.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.growth import child, recall, resident

HERE = Path(__file__).resolve().parent
K, OVERFETCH, PROBES = 50, 16, 16
QUERIES, ALONE = 500, 200
BLOCK = 100_000
MEASURED = ((100_000, 64), (100_000, 256), (300_000, 64), (1_000_000, 64), (1_000_000, 256), (3_000_000, 64))
PREDICTED = (10_000_000, 64)
TRAINED, LOGITS = 2**18, 16  # rows that an index learns from, at least; outputs of the model
DIMS = (64, 256, 768, 4096)
GIB = 2**30


class Size(NamedTuple):
    """A memory, as far as its cost goes."""

    n: int
    dim: int
    probes: int = PROBES
    candidates: int = K * OVERFETCH

    @property
    def lists(self) -> int:
        return 2 ** round(math.log2(self.n) / 2)

    @property
    def trained(self) -> int:
        return min(self.n, max(TRAINED, 64 * self.lists))

    def build(self) -> list[float]:
        """What its build is made of: rows; their numbers; learning the lists; finding each row's list."""
        return [self.n, self.n * self.dim, self.trained * self.lists * self.dim, self.n * self.lists * self.dim]

    def search(self) -> list[float]:
        """What one query is made of: itself; looking at all lists; codes of those that are read; candidates, and
        the numbers of their keys."""
        codes = self.n * self.probes / self.lists * self.dim
        return [1, self.lists * self.dim, codes, self.candidates, self.candidates * self.dim]

    def disk(self) -> list[float]:
        """Bytes of the folder: exactly known but for the files' headers."""
        keys, codes = 2 * self.dim, self.dim / 4 + 8  # float16; four bits for two numbers, and a row number
        return [self.n * (keys + codes + 4 * LOGITS + 1) + 4 * self.lists * self.dim]

    def ram(self) -> list[float]:
        """Bytes of a process that has its keys and logits in their files: what any has; codes; labels, flags."""
        return [1, self.n * (self.dim / 4 + 8), self.n]


COSTS = {
    "build_cpu_s": Size.build,
    "search_cpu_ms": Size.search,
    "alone_ms": Size.search,
    "disk_bytes": Size.disk,
    "ram_bytes": Size.ram,
}


def build(folder: Path, size: Size) -> dict[str, float]:
    """Build it in `folder`."""
    import residua as rs
    from benchmarks.generated import Rows

    made, drawing = Rows(size.dim), [0.0]

    def blocks() -> Iterator[rs.Encoded]:
        for number, first in enumerate(range(0, size.n, BLOCK)):
            begun = time.process_time()
            block = made(number, min(BLOCK, size.n - first))
            drawing[0] += time.process_time() - begun
            yield block

    params = {"nprobe": size.probes, "train_on": size.trained}
    index = {"index": f"IVF{size.lists},PQ{size.dim // 2}x4fs", "index_params": params, "overfetch": OVERFETCH}
    begun = time.process_time()
    rs.Memory(blocks(), **index, key_dtype="float16").save(folder)
    taken = time.process_time() - begun - drawing[0]
    return {"build_cpu_s": taken, "disk_bytes": sum(file.stat().st_size for file in folder.iterdir())}


def use(folder: Path, size: Size) -> dict[str, float]:
    """Open what lies in `folder`, and search it."""
    import faiss  # noqa: F401 (so that what it needs by itself is not the memory's)
    import torch

    import residua as rs
    from benchmarks.generated import APART, Rows

    made, before = Rows(size.dim), resident()["own_mb"]
    queries = made(APART, QUERIES).keys
    memory = rs.Memory.load(folder, mmap=True)
    found = {"ram_bytes": (resident()["own_mb"] - before) * 2**20}

    near, together, alone = memory.search(queries, K), list[float](), list[float]()
    for _ in range(5):
        begun = time.process_time()
        memory.search(queries, K)
        together.append(1000 * (time.process_time() - begun) / len(queries))
    for query in queries[:ALONE]:
        begun = time.perf_counter()
        memory.search(query[None], K)
        alone.append(1000 * (time.perf_counter() - begun))
    found |= {"search_cpu_ms": float(np.median(together)), "alone_ms": float(np.median(alone))}
    return found | {"recall": recall(memory, torch.from_numpy(queries[:100]), near.rows[:100].numpy())}


def fitted(sizes: list[tuple[Size, dict[str, float]]], what: str) -> list[float]:
    """The constants of a cost, none below 0, whose relative errors are least."""
    from scipy.optimize import nnls

    parts, costs = np.array([COSTS[what](size) for size, _ in sizes]), np.array([one[what] for _, one in sizes])
    scale = parts.max(axis=0)
    return (nnls(parts / scale / costs[:, None], np.ones(len(costs)))[0] / scale).tolist()


def predicted(constants: dict[str, list[float]], size: Size) -> dict[str, float]:
    """Every cost of a memory."""
    return {what: float(np.dot(constants[what], parts(size))) for what, parts in COSTS.items()}


def measured(size: Size) -> dict[str, float]:
    """The costs of one size: built by a process, and used by another."""
    with tempfile.TemporaryDirectory(prefix="residua-scale-") as folder:
        steps = [child(what, folder, size.n, size.dim, module="benchmarks.scale") for what in ("build", "use")]
    return steps[0] | steps[1]


def main() -> dict[str, Any]:
    """Constants, and how far the prediction of the largest size is from its run."""
    sizes = [(Size(*one), measured(Size(*one))) for one in MEASURED]
    constants = {what: fitted(sizes, what) for what in COSTS}
    size = Size(*PREDICTED)
    said, run = predicted(constants, size), measured(size)
    return {
        "measured": [{"n": size.n, "dim": size.dim, "lists": size.lists} | one for size, one in sizes],
        "constants": constants,
        "largest": {"n": size.n, "dim": size.dim, "lists": size.lists, "predicted": said, "run": run},
        "predicted_over_run": {what: round(said[what] / run[what], 3) for what in said},
    }


def one_machine(constants: dict[str, list[float]]) -> str:
    """What one thread, and one machine, bears: a table of sizes."""
    lines = [
        "| rows | numbers a key | disk | RAM | build, one thread | ms a query, CPU | ms, alone |",
        "|---|---|---|---|---|---|---|",
    ]
    for n in (10**6, 10**7, 10**8, 10**9):
        for dim in DIMS:
            cost = predicted(constants, Size(n, dim))
            size = f"{_bytes(cost['disk_bytes'])} | {_bytes(cost['ram_bytes'])} | {_time(cost['build_cpu_s'])}"
            lines.append(f"| {_power(n)} | {dim} | {size} | {cost['search_cpu_ms']:.2f} | {cost['alone_ms']:.2f} |")
    return "\n".join(lines)


def machines(constants: dict[str, list[float]], ram: float = 256 * GIB, threads: int = 32) -> str:
    """Machines of so much RAM, three quarters of it for codes, each with its part of the rows: a table of sizes."""
    lines = ["| rows | numbers a key | machines | rows each | disk each | build | queries/s | ms, alone |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for n in (10**9, 10**10, 10**11, 10**12):
        for dim in DIMS:
            each = predicted(constants, Size(n, dim))["ram_bytes"] / n
            count = math.ceil(n * each / (0.75 * ram))
            cost = predicted(constants, Size(n // count, dim))
            what = f"{_power(n)} | {dim} | {count:,} | {_power(n // count)} | {_bytes(cost['disk_bytes'])}"
            lines.append(
                f"| {what} | {_time(cost['build_cpu_s'] / threads)} | {1000 * threads / cost['search_cpu_ms']:,.0f} "
                f"| {cost['alone_ms']:.1f} |"
            )
    return "\n".join(lines)


def _bytes(value: float) -> str:
    unit = min(int(math.log10(max(value, 1)) // 3), 5)
    return f"{value / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[unit]}"


def _time(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def _power(n: int) -> str:
    exponent = int(math.log10(n))
    share = f"{n / 10**exponent:.2g}·" if n != 10**exponent else ""
    return f"{share}10{str(exponent).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["build", "use", "tables"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("n", type=int, nargs="?")
    parser.add_argument("dim", type=int, nargs="?")
    given = parser.parse_args()
    if given.work == "tables":
        constants = json.loads((HERE / "results" / "scale.json").read_text("utf-8"))["results"]["constants"]
        print(one_machine(constants), machines(constants), sep="\n\n")
    else:
        work = {"build": build, "use": use}[given.work]
        print(json.dumps(work(given.folder, Size(given.n, given.dim))))
