"""The documentation is run: docstring examples, and the blocks of README.md and docs/ in their order."""

import doctest
import importlib
import io
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import residua as rs
from residua.cli.main import main
from residua.errors import MissingDependencyError

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
    for source, package in ((ROOT / "src", "residua"), (ROOT, "experiments"))
    for path in source.glob(f"{package}/**/*.py")
)
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^```(python|console)( lm)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


# What examples of language models take for granted, each in a folder of its own.
SCRIPTS = {
    "src/add.py": "def add(first, second):\n    return first + second\n" * 9,
    "src/locks.py": "def count(self, name):\n    self.seen[name] = 1\n" * 9,
    "validation/a.py": "def add(first, third):\n    return first + third\n" * 9,
    "test/b.py": "def add(zero, second):\n    return zero + second\n" * 9,
}


@pytest.fixture
def language(tmp_path, monkeypatch, tiny_model, tiny_tokenizer):
    """Makes a folder of scripts, and of a model called MODEL, the current one, and gives the names used there."""
    model, number = tiny_model("gpt2", n_positions=256), itertools.count()

    def enter() -> dict:
        folder = tmp_path / f"lm{next(number)}"
        for name, text in SCRIPTS.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        for saved in (model, tiny_tokenizer):
            saved.save_pretrained(folder / "MODEL")
        monkeypatch.chdir(folder)
        return {"__name__": "__main__", "rs": rs, "model": model, "tokenizer": tiny_tokenizer}

    return enter


def run_examples(test: doctest.DocTest) -> int:
    report = io.StringIO()
    outcome = doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=report.write, clear_globs=False)
    assert outcome.failed == 0, report.getvalue()
    return outcome.attempted


def run_python(code: str, name: str, line: int, namespace: dict) -> None:
    if ">>> " in code:
        run_examples(doctest.DocTestParser().get_doctest(code, namespace, name, name, line))
    else:
        exec(compile("\n" * line + code, name, "exec"), namespace)


def residua(arguments: list[str], folder: Path) -> tuple[int, str, str]:
    """The installed command, in a process of its own: exit code, output, errors."""
    script = shutil.which("residua", path=str(Path(sys.executable).parent))
    assert script, "the residua command is not installed beside this Python"
    done = subprocess.run([script, *arguments], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def residua_here(arguments: list[str], _) -> tuple[int, str, str]:
    """The command in this process, which has the large libraries loaded already."""
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.stdout, f"{done.stderr}{done.exception or ''}"


def run_console(block: str, folder: Path, call=residua) -> None:
    """Run each ``$ residua ...`` line; lines shown under it must be what it prints, up to ``...``."""
    for entry in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, shown = entry.partition("\n")
        program, *arguments = shlex.split(command, comments=True)
        if program != "residua":
            continue
        code, stdout, stderr = call(arguments, folder)
        assert code == 0, f"$ {command}\n{stdout}{stderr}"
        if shown.strip():
            assert doctest.OutputChecker().check_output(shown, stdout, FLAGS), f"$ {command}\n{stdout}"


def run_page(text: str, name: str, folder: Path, language=None) -> int:
    """Run a page's blocks in order, in one namespace and one folder, but those marked ``lm`` each in one that
    `language` makes; how many there were."""
    namespace = {"__name__": "__main__"}
    blocks = list(BLOCK.finditer(text))
    for block in blocks:
        names = language() if block[2] else namespace
        if block[1] == "console":
            run_console(block[3], folder, residua_here if block[2] else residua)
        else:
            run_python(block[3], name, text[: block.start(3)].count("\n"), names)
        if block[2]:
            os.chdir(folder)
    return len(blocks)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module, tmp_path, monkeypatch, language):
    monkeypatch.chdir(tmp_path)
    try:
        imported = importlib.import_module(module)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    names = language() if module == "residua.lm" else None
    for test in doctest.DocTestFinder(exclude_empty=True).find(imported, module, extraglobs=names):
        run_examples(test)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.slow
def test_page_runs_as_written(page, tmp_path, monkeypatch, language):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text(encoding="utf-8")
    if '"examples/' in text:  # pages are read at the repository's root
        shutil.copytree(ROOT / "examples" / "models", tmp_path / "examples" / "models")
    count = run_page(text, page, tmp_path, language)
    if page == "README.md":
        assert count > 0


def test_ci_runs_the_test_command_of_the_readme():
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"^(?:exec )?make ([\w-]+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    made = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets[:2] == ["test", "browser"] and set(targets) <= set(made)


def test_pages_can_fail(tmp_path):
    assert run_page("```python\na = 1\n```\ntext\n```python\nassert a == 1\n```\n", "page", tmp_path) == 2
    assert run_page("```text\nnot code\n```\n", "page", tmp_path) == 0
    with pytest.raises(AssertionError):
        run_page("```python\na = 1\n```\n```python\nassert a == 2\n```\n", "page", tmp_path)
    with pytest.raises(AssertionError, match="Expected:"):
        run_page("```python\n>>> 1 + 1\n3\n```\n", "page", tmp_path)
