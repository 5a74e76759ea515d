"""The attack by processes that are killed: a short one finds nothing, and what it looks for it finds."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import residua as rs
from residua.errors import MemoryFileError
from residua.folder import read_manifest
from residua.memory.lock import locked
from stress.kills import Fault, Run, Writer

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_short_attack_finds_nothing(tmp_path):
    """``stress/results/kills.json`` is of twenty minutes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    options = ["--minutes", "0.05", "--audit", "2", "--index", "exact", "--out", tmp_path / "report.json"]
    command = [sys.executable, "-m", "stress.kills", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    report = json.loads((tmp_path / "report.json").read_text())["runs"]["exact"]
    assert done.returncode == 0 and report["faults"] == [] and report["rows lost"] == 0, done.stdout + done.stderr
    assert report["audits"] >= 1 and report["processes"] > 12 and report["loads"]


@pytest.fixture
def run(tmp_path):
    """A folder that two writers edited, live and by saves."""
    run = Run(tmp_path, "exact", 0)
    writers, live = [Writer(tmp_path, run.folder, n, seed=n) for n in range(2)], rs.Memory.open(run.folder)
    for _ in range(6):
        writers[0].edit(live)
        writers[1].session()
    run.audit()
    assert len(run.diaries.done) >= 12 and run.counts["rows lost"] == 0
    return run


def lost(run):
    """The folder goes back by one edit."""
    shutil.copytree(run.folder, run.place / "before")
    Writer(run.place, run.folder, 0, seed=5).edit(rs.Memory.open(run.folder))
    shutil.rmtree(run.folder)
    (run.place / "before").rename(run.folder)


def forgotten(run):
    """Rows go, and the log does not say so."""
    rs.Memory.open(run.folder).forget([10**12, 10**12 + 1])


def damaged(run):
    file = run.folder / read_manifest(run.folder)["shards"][0]["file"]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def strewn(run):
    (run.folder / "stray.part").write_bytes(b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lost, "1 edits that had returned are not there"),
        (forgotten, "2 are missing"),
        (damaged, "damaged"),
        (strewn, "left over after a save"),
    ],
)
def test_the_attack_finds_what_it_looks_for(run, harm, said):
    harm(run)
    with pytest.raises(Fault, match=said):
        run.audit()


def test_a_lock_that_is_held_is_found(tmp_path):
    run = Run(tmp_path, "exact", 0)
    with locked(run.folder), pytest.raises(MemoryFileError, match="another process"):
        run.audit()
