import json
import re
import subprocess
import sys
import threading
import urllib.request

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the inspector's server: pip install residua[inspect]")

import residua as rs
from residua.inspector import Inspector


@pytest.fixture
def looked(run, monkeypatch):
    """``looked(*words)``: what the page of ``residua inspect`` answered, by path, and what the command printed."""

    def look(*words, paths=("about", "status"), **options):
        told = {}

        def wait(page):
            for path in paths:
                with urllib.request.urlopen(page.url + path, timeout=30) as response:
                    told[path] = json.load(response)

        monkeypatch.setattr(Inspector, "wait", wait)
        return told, run("inspect", *words, **options)

    return look


def test_the_page_is_of_the_saved_reader_and_the_encoded_data(looked, mem, encoded):
    rs.ResMem(rs.Memory.load(mem), k=5, sigma=0.8, temperature=1.5).save(mem)
    told, done = looked("mem", "test.npz", "--data", "val.npz", paths=("about", "figures"))
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{40,}/\n", done.stdout)
    assert told["about"]["data"] == {"rows": 60, "total": 60, "labels": True}
    expected = rs.evaluate(rs.load(mem), [encoded["test"], encoded["val"]], label_knn=False)
    assert told["figures"]["measures"][0]["memory"] == expected.accuracy


def test_without_a_tuned_reader_one_is_shown(looked, mem):
    told, done = looked("mem")
    assert told["about"]["reader"] == "ResMem" and "no tuned reader" in done.stderr
    told, _ = looked("mem", "--reader", "knnlm", "--k", 3, "--lmbda", 0.5)
    assert {one["name"]: one["value"] for one in told["about"]["sliders"]}["lmbda"] == 0.5


def test_data_that_are_not_encoded_need_the_model(looked, run, here, encoded):
    run("encode", "net:both", "-o", "train.npz")
    run("build", "train.npz", "-o", "own")
    assert "--model" in looked("own", "--data", "net:test", code=1)[1].stderr
    told, _ = looked("own", "--data", "net:test", "--model", "net:model", paths=("about", "figures"))
    assert told["about"]["uploads"] == ["vector"] and told["about"]["data"]["rows"] == 30


def test_pictures_out_of_a_file(looked, mem):
    np.savez("pictures.npz", x=np.zeros((60, 4, 4), np.uint8))
    told, _ = looked("mem", "--remembered", "pictures.npz", paths=("memories",))
    assert told["memories"]["rows"][0]["picture"] == "picture/memory/0"


def test_edits_that_are_not_kept_are_said(run, mem, monkeypatch):
    monkeypatch.setattr(Inspector, "wait", lambda page: page.session.forget([0]))
    assert "1 edit was not kept" in run("inspect", "mem").stderr
    assert len(rs.Memory.load(mem)) == 60
    monkeypatch.setattr(Inspector, "wait", lambda page: (page.session.forget([0]), page.session.keep()))
    assert "not kept" not in run("inspect", "mem").stderr
    assert len(rs.Memory.load(mem)) == 59


@pytest.mark.slow
def test_it_ends_by_an_interrupt(mem):
    listens = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"  # tests may run unheard
    code = f"{listens}; from residua.cli.main import main; sys.argv = ['residua', 'inspect', 'mem']; main()"
    started = subprocess.Popen(
        [sys.executable, "-c", code], cwd=mem.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    late = threading.Timer(180, started.kill)
    late.start()
    try:
        url = started.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}status", timeout=60) as response:
            assert json.load(response)["rows"] == 60
        started.send_signal(2)
        assert "Interrupted." in started.communicate(timeout=120)[1] and started.returncode == 130
    finally:
        late.cancel()
        started.kill()
        started.communicate()
