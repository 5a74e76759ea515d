"""Run benchmarks and write what they measured: ``python -m benchmarks.run [name ...]``, without names all.

Those of language models keep their memories in ``out``, or in the folder that ``--memory`` names.

A benchmark is a module of this folder with ``main() -> dict`` of JSON types; its answer goes to
``benchmarks/results/<name>.json`` beside the machine and the command.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import pkgutil
import sys
import time
from pathlib import Path

from experiments.machine import machine

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


APART = (
    "again",
    "compare",
    "generated",
    "gpu",
    "large",
    "native",
    "remote",
    "run",
    "workloads",
)  # compare measures two installations, by workloads; large takes the folder that generated wrote
NEEDING = {"gpu", "native", "remote"}  # what not every machine has: run where they are named


def names() -> list[str]:
    """The benchmarks there are: every module here but those ``APART`` and private ones."""
    found = (module.name for module in pkgutil.iter_modules([str(HERE)]))
    return sorted(name for name in found if name not in APART and not name.startswith("_"))


def run(name: str, **options) -> dict:
    """Run one benchmark, with those of the options that it takes, and return the record to write."""
    start = time.perf_counter()
    work = importlib.import_module(f"benchmarks.{name}").main
    taken = inspect.signature(work).parameters
    results = work(**{option: value for option, value in options.items() if option in taken})
    return {
        "benchmark": name,
        "command": f"python -m benchmarks.run {name}",
        "seconds": round(time.perf_counter() - start, 1),
        "machine": machine(),
        "results": results,
    }


def main(arguments: list[str]) -> None:
    """Run the chosen benchmarks, or all; an unknown name ends the program with the list of known ones."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run")
    parser.add_argument("names", nargs="*", metavar="name")
    parser.add_argument(
        "--memory", type=Path, default=argparse.SUPPRESS, help="folder of the language models' memories"
    )
    options = vars(parser.parse_args(arguments))
    known, chosen = names(), options.pop("names")
    unknown = sorted(set(chosen) - {*known, *NEEDING})
    if unknown:
        raise SystemExit(f"no benchmark called {', '.join(unknown)}; there are: {', '.join(known)}")
    RESULTS.mkdir(exist_ok=True)
    for name in chosen or known:
        record = run(name, **options)
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")
        print(f"{name}: {record['seconds']} s")
        print(json.dumps(record["results"], indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
