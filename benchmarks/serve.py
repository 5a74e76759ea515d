"""A served memory beside the bare model behind the same server: alone, while it is edited, and while it is killed.

Every answer is looked at: what was acknowledged must be found by the very next request, and after each kill.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import residua as rs
from benchmarks._served import WIDTH, Client, examples, model

ROOT = Path(__file__).resolve().parents[1]
EACH = 4  # rows of an add


class Served:
    """``residua serve``, in a process of its own."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.process = folder, self.start(folder)

    def start(self, folder: Path) -> subprocess.Popen:
        """Start it, and wait until it answers; called again where it was killed."""
        command = ["residua", "serve", str(folder), "--model", "benchmarks._served:model", "--input-shape", str(WIDTH)]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(self.port)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return self.process
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise RuntimeError("the server did not start within two minutes")

    def kill(self) -> None:
        """As a power cut ends it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@dataclass
class Edits:
    """What was acknowledged, and what nobody knows because the server was killed."""

    first: int  # id
    present: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    adds: int = 0
    forgets: int = 0
    not_read: int = 0  # what the next request of somebody else did not find
    statuses: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.first)  # rows that were never added before


async def predicting(port: int, over: Callable[[], bool], memory: bool, seed: int, statuses: Counter) -> list[float]:
    """Milliseconds of one prediction after the other, on one connection."""
    client, taken, rng = Client(port), [], np.random.default_rng(seed)
    x, place = rng.normal(size=(256, WIDTH)).astype(np.float32).tolist(), 0
    while not over():
        begun = time.perf_counter()
        try:
            status, _ = await client.ask("/predict", {"rows": [{"input": x[place % 256]}], "memory": memory})
        except ConnectionError:
            statuses["no connection"] += 1
            await asyncio.sleep(0.05)
            continue
        place += 1
        statuses[status] += 1
        taken.append(1000 * (time.perf_counter() - begun))
    client.close()
    return taken


async def editing(port: int, over: Callable[[], bool], edits: Edits) -> None:
    """Adds rows, and forgets every second lot; after each, another connection looks whether it was read."""
    client, other = Client(port), Client(port)
    while not over():
        ids = list(range(edits.first + EACH * edits.adds, edits.first + EACH * (edits.adds + 1)))
        x = edits.rng.normal(size=(EACH, WIDTH)).astype(np.float32).tolist()
        rows = [{"input": one, "label": 1, "id": id} for one, id in zip(x, ids)]
        edits.adds += 1
        if not await _told(client, "/add", {"rows": rows}, edits, ids):
            continue
        edits.present |= set(ids)
        edits.not_read += await _nearest(other, x[0]) not in (ids[0], None)
        if edits.adds % 2:
            edits.present -= set(ids)
            if await _told(client, "/forget", {"ids": ids}, edits, ids):
                edits.forgets += 1
                edits.gone |= set(ids)
                edits.not_read += await _nearest(other, x[0]) in ids
    client.close()
    other.close()


async def _told(client: Client, path: str, body: dict[str, Any], edits: Edits, ids: list[int]) -> bool:
    """Whether an edit was acknowledged; of one that was not, nobody knows."""
    try:
        status, _ = await client.ask(path, body)
    except ConnectionError:
        edits.statuses["no connection"] += 1
        edits.unknown |= set(ids)
        await asyncio.sleep(0.05)
        return False
    edits.statuses[status] += 1
    edits.unknown |= set() if status == 200 else set(ids)
    return status == 200


async def _nearest(client: Client, x: list[float]) -> int | None:
    """The id of the nearest remembered row; None where nobody answers."""
    try:
        status, told = await client.ask("/explain", {"row": {"input": x}, "neighbours": 1})
    except ConnectionError:
        return None
    return told["neighbours"][0]["id"] if status == 200 else None


def _after(seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


def said(taken: list[float], seconds: float) -> dict[str, float]:
    """Percentiles and throughput."""
    found = {f"p{p}_ms": round(float(np.percentile(taken, p)), 2) for p in (50, 99)}
    return found | {"requests_per_second": round(len(taken) / seconds, 1), "requests": len(taken)}


async def measured(port: int, seconds: float, rounds: int, clients: int, edits: Edits | None) -> dict[str, Any]:
    """The bare model and the memory in turn, by so many connections at once."""
    taken: dict[str, list[float]] = {"bare": [], "memory": []}
    statuses: Counter = Counter()
    for round_ in range(rounds):
        for name, own in taken.items():
            over = _after(seconds)
            works = [predicting(port, over, name == "memory", 97 * round_ + n, statuses) for n in range(clients)]
            editor = [] if edits is None else [editing(port, over, edits)]
            for one in (await asyncio.gather(*works, *editor))[:clients]:
                own += one
    found: dict[str, Any] = {name: said(own, seconds * rounds) for name, own in taken.items()}
    found["memory_over_bare"] = {
        name: round(found["memory"][name] / found["bare"][name], 2)
        for name in ("p50_ms", "p99_ms", "requests_per_second")
    }
    return found | {"statuses": {str(status): count for status, count in statuses.items()}}


async def killed(served: Served, seconds: float, kills: int, clients: int) -> tuple[dict[str, Any], Edits]:
    """Load and edits all the while, and the server killed and started again in the middle."""
    edits, statuses, down = Edits(2 * 10**6), Counter(), []
    over = False

    async def trouble() -> None:
        nonlocal over
        for _ in range(kills):
            await asyncio.sleep(seconds)
            begun = time.monotonic()
            await asyncio.to_thread(served.kill)
            await asyncio.to_thread(served.start, served.folder)
            down.append(round(time.monotonic() - begun, 1))
        await asyncio.sleep(seconds)
        over = True

    works = [predicting(served.port, lambda: over, n % 2 == 0, n, statuses) for n in range(clients)]
    await asyncio.gather(trouble(), editing(served.port, lambda: over, edits), *works)
    return {"kills": kills, "seconds_down": down, "statuses": dict(statuses)}, edits


def lost(folder: Path, edits: Edits) -> dict[str, int]:
    """What the folder says of what was acknowledged."""
    held = set(rs.Memory.load(folder).ids.tolist())
    sure, gone = edits.present - edits.unknown, edits.gone - edits.unknown
    return {
        "adds_acknowledged": len(sure),
        "adds_lost": len(sure - held),
        "forgets_acknowledged": len(gone),
        "forgets_lost": len(gone & held),
        "not_read_by_the_next_request": edits.not_read,
    }


def main(seconds: float = 3.0, rounds: int = 4, rows: int = 20_000, clients: int = 8, kills: int = 3) -> dict:
    """Ratios of a served memory to the bare model; edits while it answers; nothing lost when it is killed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "mem"
        rs.ResMem(rs.Memory(rs.encode(model(), examples(rows), progress=False)), k=20, sigma=1.0).save(folder)
        served = Served(folder)
        try:
            asyncio.run(measured(served.port, seconds / 3, 1, clients, None))  # to warm up
            found: dict[str, Any] = {"rows": rows, "connections": clients}
            found["alone"] = asyncio.run(measured(served.port, seconds, rounds, clients, None))
            edits = Edits(10**6)
            found["while edited"] = asyncio.run(measured(served.port, seconds, rounds, clients, edits))
            span = 2 * seconds * rounds
            found["while edited"] |= {
                "adds_per_second": round(edits.adds / span, 1),
                "forgets_per_second": round(edits.forgets / span, 1),
                "statuses_of_edits": {str(status): count for status, count in edits.statuses.items()},
                **lost(folder, edits),
            }
            trouble, edits = asyncio.run(killed(served, seconds, kills, clients))
            trouble["statuses"] = {str(status): count for status, count in trouble["statuses"].items()}
            trouble["statuses_of_edits"] = {str(status): count for status, count in edits.statuses.items()}
            found["while killed"] = {**trouble, "unknown": len(edits.unknown), **lost(folder, edits)}
            found["verified"] = str(rs.Memory.verify(folder).damaged)
            return found
        finally:
            served.kill()
