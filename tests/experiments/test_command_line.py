"""``python -m experiments``: options come from ``measure``, and mistakes are one line."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from experiments import NAMES, theorem33
from experiments.__main__ import main
from experiments.runner import defaults

TINY = ["--dims", "1,2", "--sizes", "16,32,64,128", "--seeds", "2", "--test-points", "50"]


def call(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_the_list_names_every_experiment_and_imports_none():
    code = """
import sys
from click.testing import CliRunner
from experiments.__main__ import main
for arguments in (["--list"], []):
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    print(found.output)
assert not {"torch", "sklearn", "matplotlib", "experiments.theorem33"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert done.stdout.count(f"{name} ") >= 2


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_every_option_with_words_of_its_own(name):
    done = call(name, "--help")
    assert done.exit_code == 0, done.output
    for option in defaults(__import__(f"experiments.{name}", fromlist=["measure"])):
        assert f"--{option.replace('_', '-')} " in done.output


def test_help_comes_from_the_signature_and_the_docstring():
    words = " ".join(call("theorem33", "--help").output.split())
    assert "--dims INT[,INT...] Dimensions d. [default: 1,2,3,4,5]" in words
    assert "--seeds INTEGER Draws of each size, at least 2. [default: 40]" in words
    assert defaults(theorem33)["seeds"] == 40


def test_a_run_prints_its_tables_and_what_it_wrote(tmp_path):
    done = call("theorem33", *TINY, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "theorem33.json").read_text(encoding="utf-8"))
    assert record["command"] == "python -m experiments theorem33 " + " ".join(TINY)
    assert record["results"]["seeds"] == 2
    for table in theorem33.tables(record["results"]).values():
        assert str(table) in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonesuch"], "No such command 'nonesuch'"),
        (["theorem33", "--dims", "one"], "'one' is not a list of int values"),
        (["theorem33", "--radii", "1.5"], "expected d >= 1 and 0 < L < 1"),
        (["tabular", "--data", "wine,nonesuch"], "expected some of digits"),
    ],
)
def test_mistakes_are_said_in_one_line_and_leave_nothing(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.exit_code != 0
    assert words in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_says_that_it_can_go_on(tmp_path, monkeypatch):
    def stop(*_, **__):
        error = KeyboardInterrupt()
        error.add_note("the same command goes on from there")
        raise error

    monkeypatch.setattr("experiments.runner.run", stop)
    done = call("theorem33", "--out", tmp_path)
    assert done.exit_code == 130
    assert "the same command goes on from there" in done.output
