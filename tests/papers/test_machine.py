"""The machine is described without saying whose it is."""

import platform
import subprocess
from pathlib import Path

import pytest

from residua.papers.machine import commit, machine


def test_machine_has_no_name_and_no_path():
    described = machine()
    assert described["cores"] >= 1
    assert platform.node() not in str(described)
    assert str(Path.home()) not in str(described)


@pytest.fixture
def checkout(tmp_path):
    """A repository with a package in it, committed."""
    package = tmp_path / "src" / "residua"
    package.mkdir(parents=True)
    (package / "code.py").write_text("1\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x.json").write_text("1\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True, capture_output=True)
    return package


def test_commit_says_when_the_code_differs_but_not_when_results_do(checkout):
    clean = commit(checkout)
    assert len(clean) == 40
    (checkout.parents[1] / "results" / "x.json").write_text("2\n")
    assert commit(checkout) == clean
    (checkout / "code.py").write_text("2\n")
    assert commit(checkout) == clean + "+"


def test_an_installed_package_has_no_commit_of_the_repository_around_it(checkout):
    installed = checkout.parents[1] / "env" / "site-packages" / "residua"
    installed.mkdir(parents=True)
    assert commit(installed) is None


def test_no_git_is_no_commit(tmp_path):
    assert commit(tmp_path) is None
