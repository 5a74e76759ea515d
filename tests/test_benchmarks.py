"""What every results file carries, and the runner that writes it."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_unknown_benchmark_is_refused_by_name():
    done = python("-m", "benchmarks.run", "nonesuch")
    assert done.returncode != 0
    assert "no benchmark called nonesuch" in done.stderr


def test_committed_results_say_how_they_were_made():
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        stem = path.stem.partition("-")[0]
        runner = stem if stem in ("compare", "large") else f"run {stem}"
        assert record["command"].startswith(f"python -m benchmarks.{runner}")
        assert {"machine", "results", "seconds"} <= record.keys()
