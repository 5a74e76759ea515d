"""The machine is described without saying whose it is."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import machine as described_by
from experiments.machine import commit, installation, machine


def test_machine_has_no_name_and_no_path():
    described = machine()
    assert described["cores"] >= 1
    assert platform.node() not in str(described)
    assert str(Path.home()) not in str(described)


def test_the_script_says_what_its_interpreter_has(tmp_path):
    command = [sys.executable, "-P", described_by.__file__]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == installation()
    assert installation()["versions"].keys() >= {"residua", "torch", "numpy"}


@pytest.fixture
def checkout(tmp_path):
    """A repository with code and results in it, committed."""
    (tmp_path / "code.py").write_text("1\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x.json").write_text("1\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_commit_says_when_the_code_differs_but_not_when_results_do(checkout):
    clean = commit(checkout)
    assert len(clean) == 40
    (checkout / "results" / "x.json").write_text("2\n")
    assert commit(checkout) == clean
    (checkout / "code.py").write_text("2\n")
    assert commit(checkout) == clean + "+"


def test_a_folder_inside_a_repository_has_not_its_commit(checkout):
    (checkout / "inside").mkdir()
    assert commit(checkout / "inside") is None


def test_no_git_is_no_commit(tmp_path):
    assert commit(tmp_path) is None
