"""The verb lists what there is without importing it, and its options are the reproduction's own."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from residua.cli.main import main
from residua.papers import theorem33
from residua.papers.registry import MODULES

TINY = ["--dims", "1,2", "--sizes", "16,32,64,128", "--seeds", "2", "--test-points", "50"]


def call(*arguments):
    return CliRunner().invoke(main, ["reproduce", *map(str, arguments)])


def test_list_names_every_reproduction_and_imports_none():
    code = """
import sys
from click.testing import CliRunner
from residua.cli.main import main
found = CliRunner().invoke(main, ["reproduce", "--help"])
assert found.exit_code == 0, found.output
print(found.output)
assert not {name for name in sys.modules if name in ("torch", "sklearn", "residua.papers.theorem33")}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, (_, help) in MODULES.items():
        assert name in done.stdout
        assert help[:30] in done.stdout


def test_help_shows_the_options_and_their_defaults():
    text = call("theorem33", "--help").output
    for name in theorem33.REPRODUCTION.options:
        assert f"--{name.replace('_', '-')}" in text
    assert "[default: 1,2,3,4,5]" in text


def test_run_prints_what_it_writes_and_the_page_follows(tmp_path):
    out = tmp_path / "results"
    done = call("theorem33", *TINY, "--out", out)
    assert done.exit_code == 0, done.output
    written = (out / "theorem33.md").read_text(encoding="utf-8")
    assert done.output.startswith(written.rstrip())
    record = json.loads((out / "theorem33.json").read_text(encoding="utf-8"))
    assert record["command"] == "residua reproduce theorem33 " + " ".join(TINY)
    assert record["results"]["seeds"] == 2
    done = call("page", "--results", out, "-o", tmp_path / "docs" / "page.md")
    assert done.exit_code == 0, done.output
    assert "(../results/theorem33.png)" in (tmp_path / "docs" / "page.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonesuch"], "No such command 'nonesuch'"),
        (["theorem33", "--dims", "one"], "'one' is not a list of int values"),
        (["theorem33", "--radii", "1.5"], "expected d >= 1 and 0 < L < 1"),
        (["tabular", "--data", "wine,nonesuch"], "expected one or more of"),
        (["page", "--results", "nowhere"], "residua reproduce NAME first"),
    ],
)
def test_mistakes_are_said_in_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.exit_code != 0
    assert words in done.output
    assert "Traceback" not in done.output


def test_stopped_run_says_that_it_can_go_on(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("residua.papers.record.reproduce", stop)
    done = call("theorem33", "--out", tmp_path)
    assert done.exit_code == 130
    assert "the same command goes on from there" in done.output
