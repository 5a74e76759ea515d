"""``-q`` prints results only, ``-v`` what was decided, too; before a verb or after it."""

import json
import logging

import pytest


@pytest.mark.parametrize("place", [lambda verb, flag: [flag, *verb], lambda verb, flag: [*verb, flag]])
def test_before_and_after_the_verb_are_the_same(run, mem, place):
    verb = ["add", "mem", "val.npz"]
    done = run(*place(verb, "-q"))
    assert done.stderr == "" and done.stdout.startswith("mem: 30 rows added")
    assert "next: residua tune mem VALIDATION.npz" in run("info", "mem").stderr
    stderr = run(*place(["info", "mem"], "-v")).stderr
    assert "next: " in stderr and stderr.rstrip().endswith("seconds")


def test_verbose_says_sources_reader_key_and_index(run, here):
    run("encode", "net:both", "-o", "a.npz")
    run("build", "a.npz", "-o", "own")
    stderr = run("tune", "own", "a.npz", "--evidence", -1, "-v").stderr
    assert "index='exact'" in stderr and "keys from 2:input of Sequential" in stderr
    assert "data a.npz: Encoded(60 rows" in stderr
    assert "reader: ResMem(k=" in run("evaluate", "own", "a.npz", "-v").stderr
    assert "the key is '2:input'" in run("encode", "net:both", "-o", "a.npz", "--verbose").stderr


def test_errors_are_said_to_the_quiet_too(run):
    assert run("info", "nowhere", "-q", code=1).stderr.startswith("Error: nowhere is not a memory")


def test_both_at_once_are_refused(run, mem):
    for words in (["-q", "info", "mem", "-v"], ["info", "mem", "-q", "-v"], ["-v", "-q", "info", "mem"]):
        assert "-q and -v exclude each other" in run(*words, code=2).stderr


def test_results_for_machines_come_without_hints(run, mem):
    done = run("info", "mem", "--json")
    assert json.loads(done.stdout)["rows"] == 60 and done.stderr == ""


def test_the_log_is_left_as_it_was(run, mem):
    log = logging.getLogger("residua")
    before = log.level, list(log.handlers)
    run("-v", "info", "mem", "-v")
    run("-v", "info", "nowhere", code=1)
    assert (log.level, list(log.handlers)) == before
