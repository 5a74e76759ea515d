"""Memories that several processes build together, some of them killed with SIGKILL: each is the one built alone.

    python -m stress.killed_workers --kills 300 --out stress/results/killed_workers.json

Three processes make the same call into one folder; each may be killed at a random moment, or before a random change on
the disk. Where all were killed, others come, until the memory is there. It is compared byte by byte with one that a
single process built, and nothing may be left over.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from residua.errors import MemoryFileError
from residua.folder import BUILD, MANIFEST
from residua.memory import blocks
from stress.killed_builds import EACH, ROWS, Attack, dying, run
from stress.report import write

WORKERS = 3


def at_once(works: list[Callable[[], None]], kill_after: list[float | None]) -> int:
    """How many of these were killed, of those that ran at once, each in a fork."""
    children: dict[int, float | None] = {}
    for work, moment in zip(works, kill_after):
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
        children[child] = moment
    began, killed = time.monotonic(), 0
    while children:
        for child, moment in list(children.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                killed += os.WIFSIGNALED(status)
                if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
                    raise SystemExit("a worker failed")
                del children[child]
            elif moment is not None and time.monotonic() - began > moment:
                os.kill(child, signal.SIGKILL)
                children[child] = None
        time.sleep(0.002)
    return killed


class Together(Attack):
    """Builds of several processes, beside one that one process made alone."""

    def attack(self, rng: random.Random) -> None:
        """Build one memory, and kill some of those that build it."""
        path, pause = self.folder / "together", rng.choice([0.0, 0.01])
        whole = self.seconds + pause * ROWS / EACH

        def work() -> None:
            try:
                run(path, self.keep, pause, together=True)
            except MemoryFileError as error:
                if "finished memory" not in str(error):  # which says that it came when all was done
                    raise

        while not (path / MANIFEST).exists() or (path / BUILD).exists() or blocks.folder_of(path).exists():
            works, moments = [], []
            for _ in range(WORKERS):
                how = rng.choice(["lives", "step", "moment"])
                works.append(dying(work, rng.randrange(40)) if how == "step" else work)
                moments.append(rng.uniform(0.02, 1.0) * whole if how == "moment" else None)
            self.kills += at_once(works, moments)
        self.left += [] if not blocks.folder_of(path).exists() else ["the folder of blocks"]
        self.check(path, f"build {self.builds}")


def main(keys: list[str], kills: int, seed: int = 0, out: Path | None = None) -> dict[str, Any]:
    """What came of at least so many kills."""
    torch.set_num_threads(1)  # so that it can fork
    os.environ.setdefault("RESIDUA_SECRET", "of the killed builds alone")
    blocks.EACH = 2  # batches, of 8
    tqdm.set_lock(threading.RLock())  # its own is shared by forks, and stays locked when one is killed that holds it
    began, rng = time.monotonic(), random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        attacks = [Together(Path(place) / kept, kept == "keep") for kept in keys]
        while sum(attack.kills for attack in attacks) < kills:
            rng.choice(attacks).attack(rng)
    report: dict[str, Any] = {"machine": platform.platform(), "cores": os.cpu_count(), "seed": seed}
    report |= {"minutes": round((time.monotonic() - began) / 60, 1), "workers": WORKERS}
    report |= {"builds": sum(one.builds for one in attacks), "kills": sum(one.kills for one in attacks)}
    report["different"] = [what for attack in attacks for what in attack.different]
    report["left"] = [what for attack in attacks for what in attack.left]
    write(report, out)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Memories built by several processes, some of them killed.")
    parser.add_argument("--keys", action="append", choices=["keep", "drop"])
    parser.add_argument("--kills", type=int, default=300, help="at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = main(given.keys or ["keep", "drop"], given.kills, given.seed, given.out)
    print(json.dumps(found))
    sys.exit(bool(found["different"] or found["left"]))
