"""Two installations of residua at the same work, in turn: ``python -m benchmarks.compare --old PYTHON --new PYTHON``.

Each PYTHON is an interpreter whose environment has one of the two versions installed, with the extras faiss, sklearn,
lm and plot (which brings Pillow), and the same libraries otherwise. In each round both run a workload, which are those
of ``benchmarks/workloads.py``, in processes of their own. The two take turns, never running at once: each measure is
taken a few times, every time by one and a moment later by the other, who goes first changing, so that a machine whose
speed drifts is fair to both. Ratios are new over old: below 1, the new one is faster. What counts is CPU seconds around
the work itself, after a warm-up and after everything is loaded; wall-clock seconds stand beside them. The measures
called "base" run the model alone: what their ratios differ from 1 by is the machine's doing.

What the workloads load (arrays, texts, memory folders) is made once, by the old version, in ``--cache``.

This file needs the standard library alone: the interpreter that runs it may have either version, or none.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments import machine

HERE = Path(__file__).resolve().parent
NAMES = ("scores", "latency", "tune", "lm_score", "lm_read", "lm_decode")
OUT = HERE / "results" / "compare-0.1.json"
CACHE = Path(tempfile.gettempdir()) / "residua-compare"
CLOSE = 1e-3  # relative: what two versions compute may differ by rounding; whole numbers may not


class Worker:
    """One workload in a process of its own, stopped before each measure until it is told to go on."""

    def __init__(self, interpreter: Path, name: str, options: argparse.Namespace):
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(options.threads))
        # A PYTHONPATH could put one version in front of both; threads that spin while they wait would count as work.
        environment = {variable: value for variable, value in os.environ.items() if variable != "PYTHONPATH"}
        environment |= threads | {
            "OMP_WAIT_POLICY": "passive",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        # -P: the folder of the script holds modules called tune and scores, which are not to be found by those names.
        command = [str(interpreter), "-P", str(HERE / "workloads.py"), name, "--turns", "--cache", str(options.cache)]
        command += ["--shared", str(options.shared)] if options.shared else []
        self.what, self.result = f"{name} under {interpreter}", None
        # Not a pipe, which stops the process when nobody empties it.
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the process)
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=options.cache,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )

    def go_on(self) -> None:
        """Up to just before the next measure, or to the end."""
        with contextlib.suppress(BrokenPipeError):  # it failed; its output ends, and says so below
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        self.wait()

    def wait(self) -> None:
        """Until it is ready, or has a result."""
        last = ""
        for line in self._process.stdout:
            if line.strip() == "ready":
                return
            last = line
        if self._process.wait():
            self._complaints.seek(0)
            raise SystemExit(f"{self.what} failed:\n{self._complaints.read()[-3000:]}")
        self.result = json.loads(last)
        self.close()

    def close(self) -> None:
        """No process is left behind, whatever happened."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._complaints):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def installed_in(interpreter: Path, folder: Path) -> dict:
    """Versions, and the commit where residua is imported from a checkout; no PYTHONPATH, as in the workloads."""
    environment = {variable: value for variable, value in os.environ.items() if variable != "PYTHONPATH"}
    command = [str(interpreter), "-P", machine.__file__]
    done = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def in_turn(name: str, interpreters: dict[str, Path], options: argparse.Namespace, first: str) -> dict[str, dict]:
    """What each version gives for a workload: ``{"old": {...}, "new": {...}}``. Only one of them runs at a time."""
    workers: dict[str, Worker] = {}
    order = sorted(interpreters, key=lambda side: side != first)
    try:
        for side in order:
            workers[side] = Worker(interpreters[side], name, options)
            workers[side].wait()
        while any(one.result is None for one in workers.values()):
            for side in order:
                if workers[side].result is None:
                    workers[side].go_on()
            order.reverse()
    finally:
        for one in workers.values():
            one.close()
    return {side: one.result for side, one in workers.items()}


def summary(rounds: list[dict[str, dict]]) -> dict:
    """Seconds and ratios of each measure that both versions took, and whether they computed the same."""
    measures = {}
    last = {side: rounds[-1][side]["computed"] for side in ("old", "new")}
    for name in rounds[0]["old"]["measures"]:
        if name in rounds[0]["new"]["measures"]:
            taken = [{side: one[side]["measures"][name] for side in ("old", "new")} for one in rounds]
            measures[name] = {
                kind: compared(*([one[side][kind] for one in taken] for side in ("old", "new")))
                for kind in ("cpu_s", "wall_s")
            }
    return {
        "measures": measures,
        "computed": last,
        "differs": sorted(differing(last["old"], last["new"])),
        "steady": all(one[side]["computed"] == last[side] for one in rounds for side in last),
        "peak_mib": {side: statistics.median(one[side]["peak_mib"] for one in rounds) for side in last},
    }


def compared(old: list[list[float]], new: list[list[float]]) -> dict:
    """Of seconds by round and time: median, least and most of each side; new over old.

    ``ratio`` is of the medians, ``ratio_of_min`` of the least; ``pair_ratios`` has one number for each round, the
    median of the ratios of times that followed one another, and ``pair_ratio`` is the median over all such pairs.
    """
    pairs = [[b / a for a, b in zip(*round_)] for round_ in zip(old, new)]
    old, new = ([seconds for round_ in side for seconds in round_] for side in (old, new))
    return {
        "old": spread(old),
        "new": spread(new),
        "ratio": round(statistics.median(new) / statistics.median(old), 4),
        "ratio_of_min": round(min(new) / min(old), 4),
        "pair_ratio": round(statistics.median(ratio for round_ in pairs for ratio in round_), 4),
        "pair_ratios": [round(statistics.median(round_), 4) for round_ in pairs],
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most, in seconds."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 4) for name, value in found.items()}


def differing(old: dict, new: dict) -> set[str]:
    """Names of what was not computed alike, or by one version only."""
    found = set(old) ^ set(new)
    for name in set(old) & set(new):
        room = 0 if isinstance(old[name], int) else CLOSE * abs(old[name])
        if not abs(old[name] - new[name]) <= room:
            found.add(name)
    return found


def earlier(out: Path, same: dict) -> dict:
    """Results of other workloads that `out` holds already, where they are of the same machine and installations."""
    try:
        record = json.loads(out.read_text(encoding="utf-8"))
        return record["results"] if all(record[name] == value for name, value in same.items()) else {}
    except (OSError, ValueError, KeyError):
        return {}


def shown(name: str, found: dict) -> str:
    """One workload as lines of text."""
    lines = [f"{name}: " + ("computed alike" if not found["differs"] else f"DIFFERS in {', '.join(found['differs'])}")]
    for measure, both in found["measures"].items():
        cpu, wall = both["cpu_s"], both["wall_s"]
        pairs = f"{min(cpu['pair_ratios']):.3f} to {max(cpu['pair_ratios']):.3f}"
        lines.append(
            f"  {measure:24s} old {cpu['old']['median']:8.3f} s  new {cpu['new']['median']:8.3f} s  "
            f"ratio {cpu['pair_ratio']:.3f} (rounds {pairs}; of medians {cpu['ratio']:.3f}, of least "
            f"{cpu['ratio_of_min']:.3f}; wall {wall['pair_ratio']:.3f})"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Run the chosen workloads and write what was measured, after each, keeping earlier results of the others."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description="Two installations of residua at the same work, in turn."
    )
    parser.add_argument("--old", type=Path, required=True, metavar="PYTHON", help="interpreter of the one version")
    parser.add_argument("--new", type=Path, required=True, metavar="PYTHON", help="interpreter of the other")
    parser.add_argument("--runs", type=int, default=7, help="rounds; in each, both run every workload once (7)")
    parser.add_argument("--names", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help="workloads")
    parser.add_argument("--threads", type=int, default=1, help="of torch and FAISS (1: CPU seconds are steadiest)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of what is made once (300 MB)")
    parser.add_argument("--shared", type=Path, help="folder of data and trained models (as the other benchmarks')")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    if options.runs < 1 or options.threads < 1:
        parser.error("--runs and --threads are at least 1")
    interpreters = {side: Path(os.path.abspath(getattr(options, side))) for side in ("old", "new")}
    options.cache = options.cache.absolute()
    options.cache.mkdir(parents=True, exist_ok=True)

    installed = {side: installed_in(interpreter, options.cache) for side, interpreter in interpreters.items()}
    same = {"machine": machine.hardware() | {"threads": options.threads}, "installed": installed}
    Worker(interpreters["old"], "prepare", options).wait()
    results = earlier(options.out, same)
    for name in options.names:
        start = time.perf_counter()
        print(name, flush=True)
        rounds = []
        for number in range(options.runs):
            rounds.append(in_turn(name, interpreters, options, first=("old", "new")[number % 2]))
            print(f"  round {number + 1} of {options.runs}", flush=True)
        found = summary(rounds)
        print(shown(name, found), flush=True)
        seconds = round(time.perf_counter() - start, 1)
        results[name] = {"runs": options.runs, "seconds": seconds, **found}
        record = {
            "benchmark": "compare",
            "command": "python -m benchmarks.compare --old OLD --new NEW",
            "seconds": round(sum(one["seconds"] for one in results.values()), 1),
            **same,
            "results": {known: results[known] for known in NAMES if known in results},
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
