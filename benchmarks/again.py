"""Run benchmarks once more, and print their ratios beside the committed ones: ``python -m benchmarks.again [name …]``.

Ratios are of ways that took turns in one process, and so mean something on another machine; seconds do not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from benchmarks.run import RESULTS, names, run

WORDS = ("ratio", "times_", "speedup", "percent")
USUAL = ("peers",)  # what takes minutes, and has every small path in it


def leaves(results: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """The numbers under names that speak of a ratio, each with its path."""
    if isinstance(results, dict):
        for name, value in results.items():
            yield from leaves(value, (*path, str(name)))
    elif isinstance(results, (int, float)) and any(word in part for part in path for word in WORDS):
        yield " / ".join(path), float(results)


def beside(committed: dict, now: dict) -> list[str]:
    """A line for each ratio that both have."""
    then, found = dict(leaves(committed)), dict(leaves(now))
    lines = [f"{'committed':>10} {'now':>10} {'now/then':>9}"]
    for name in then:
        if name in found:
            change = f"{found[name] / then[name]:9.2f}" if then[name] else " " * 9
            lines.append(f"{then[name]:10.3f} {found[name]:10.3f} {change}  {name}")
    return lines


def main(arguments: list[str]) -> None:
    """Run the chosen benchmarks, or the usual ones; nothing is written."""
    chosen = arguments or list(USUAL)
    if unknown := sorted(set(chosen) - set(names())):
        raise SystemExit(f"no benchmark called {', '.join(unknown)}; there are: {', '.join(names())}")
    for name in chosen:
        record = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        print(f"{name}: committed on {record['machine']['cpu']}, {record['machine']['cores']} cores")
        print("\n".join(beside(record["results"], run(name)["results"])), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
