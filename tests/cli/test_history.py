import json
import subprocess
import sys
import threading

import pytest

import residua as rs
from residua.memory.lock import locked


def test_log_and_undo(run, mem):
    run("forget", "mem", "--id", 3, "--id", 4, "--note", "asked\nfor")
    run("relabel", "mem", "--id", 5, "--label", 1, "--note", "seen")
    lines = run("log", "mem").stdout.splitlines()
    assert [line.partition("  ")[2] for line in lines][:2] == [
        "create: 60 rows added",
        "forget: 2 rows forgotten (asked\\nfor)",
    ]
    said = run("undo", "mem", "--note", "was right").stdout
    assert "relabel: 1 row relabelled (seen)' is undone; 58 rows now" in said
    data = json.loads(run("undo", "mem", "--json").stdout)
    assert (data["undone"]["what"], data["undo"]["restored"], data["rows"]) == ("forget", 2, 60)
    told = json.loads(run("log", "mem", "--json").stdout)["log"]
    assert [event["what"] for event in told] == ["create", "forget", "relabel", "undo", "undo"]
    assert told[3]["note"] == "was right" and told[3]["undoes"] == 2
    assert "there is no edit to undo" in run("undo", "mem", code=1).stderr
    assert "is not a memory" in run("log", "nowhere", code=1).stderr
    run("purge", "mem", "--note", "by law")
    assert len(rs.Memory.load(mem)) == 60


def test_one_edit_however_many_ways(run, mem):
    run("add", "mem", "val.npz", "--note", "more")
    run("forget", "mem", "--id", 3, "--rebuild", "--note", "for good")
    events = rs.Memory.load(mem).log()
    assert [(event.what, event.note) for event in events] == [
        ("create", ""),
        ("add", "more"),
        ("forget", "for good"),
        ("rebuild", "for good"),
    ]
    assert "dropped for good" in run("undo", "mem", code=1).stderr


def test_tuning_keeps_what_others_did_meanwhile(run, mem, monkeypatch):
    import residua.tuning

    choose = residua.tuning.tune

    def slowly(*args, **named):
        other = rs.Memory.load(mem)
        other.forget([0])
        other.save(mem)
        return choose(*args, **named)

    monkeypatch.setattr(residua.tuning, "tune", slowly)
    run("tune", "mem", "val.npz", "--k", 3)
    assert rs.load(mem).k in (0, 3) and len(rs.load(mem).memory) == 59


@pytest.mark.slow
def test_two_adds_at_once_both_count(run, mem):
    words = [sys.executable, "-c", "from residua.cli.main import main; main()", "add", "mem"]
    with locked(mem):  # both have to wait
        at_once = [subprocess.Popen([*words, f"{name}.npz"], cwd=mem.parent) for name in ("val", "test")]
        waited = threading.Event().wait(0.1)
    assert not waited and [one.wait(60) for one in at_once] == [0, 0]
    assert rs.Memory.load(mem).ids.tolist() == list(range(120))
