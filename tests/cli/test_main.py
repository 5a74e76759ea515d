import signal
import subprocess
import sys
import warnings

import click
import pytest

import residua as rs
from residua.cli import build, encode, main, options, tune
from residua.cli.main import option_hint
from residua.core.encoded import TASKS
from residua.errors import ParameterError
from residua.memory.schema import KEY_DTYPES
from residua.memory.storage import STORAGES
from residua.readers.resmem import SPACES
from residua.tuning.objective import OBJECTIVES


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["encode", "--help"], ["demo", "-h"], []])
def test_help_is_light(words):
    code = (
        "import sys\nfrom residua.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(*sorted(name for name in sys.modules if '.' not in name), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split("\n"))
    assert "click" in loaded
    assert not loaded & {"torch", "numpy", "scipy", "sklearn", "matplotlib", "faiss", "pandas"}


def test_version(run):
    assert run("--version").stdout == f"residua, version {rs.__version__}\n"


def test_help_lists_every_verb_in_order(run):
    text = run("--help").stdout.partition("Commands:")[2]
    verbs = ["demo", "encode", "build", "tune", "evaluate", "explain", "add", "forget", "relabel", "info"]
    places = [text.index(f"\n  {verb} ") for verb in verbs]
    assert places == sorted(places)


def test_every_verb_and_option_is_explained():
    for name, command in main.main.commands.items():
        assert command.get_short_help_str(), name
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, f"{name} {option.name}"


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        (options.SPACES, SPACES),
        (build.STORAGES, STORAGES),
        (build.KEY_DTYPES, KEY_DTYPES),
        (encode.TASKS, TASKS),
        (tune.OBJECTIVES, [name for names in OBJECTIVES.values() for name in names]),
        (tune.MEASURES, tune.OBJECTIVES),
    ],
)
def test_choices_are_the_librarys(shown, real):
    assert sorted(shown) == sorted(real)


def test_an_error_is_one_line_on_stderr_and_exit_code_1(run):
    done = run("info", "nowhere", code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert "nowhere is not a memory" in done.stderr


def test_wrong_usage_is_exit_code_2(run):
    assert "No such command 'forgte'" in run("forgte", code=2).stderr
    assert "--row" in run("explain", "mem", "a.npz", code=2).stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["info", "a\x1b[31m\nb"], 1),
        (["encode", "a\x1b[31m:b", "-o", "c.npz"], 1),
        (["add", "mem", "a\x1b[31m.npz"], 1),
        (["info", "mem", "--\x1b[31m"], 2),
        (["\x1b[31m"], 2),
        (["tune", "mem", "val.npz", "--k", "\x1b[31m"], 2),
    ],
)
def test_control_characters_are_never_echoed(run, mem, words, code):
    done = run(*words, code=code)
    assert "\x1b" not in done.output and "\\x1b[31m" in done.stderr


def test_control_characters_of_a_good_name_are_not_echoed_either(run, mem):
    odd = mem.with_name("m\x1b[31m")
    mem.rename(odd)
    assert "m\\x1b[31m" in run("info", odd).stdout


def test_hints_name_the_option(run, mem):
    run("tune", "mem", "val.npz", "--k", "3")
    assert "(on the command line: --replace)" in option_hint_of_add_twice(run)


def option_hint_of_add_twice(run) -> str:
    import numpy as np

    rs.Encoded(np.zeros((1, 2)), np.zeros((1, 3)), [0], [7]).save("seven.npz")
    return run("add", "mem", "seven.npz", code=1).stderr


def test_hint_is_only_for_parameters_that_are_options():
    assert option_hint("sigma=3", "evaluate") == " (on the command line: --sigma)"
    assert option_hint("build it with storage='full'", "tune").startswith(" (on the command line: 'residua build' with")
    assert option_hint("dim=3; x == y", "evaluate") == ""
    assert option_hint("k=3", None) == " (on the command line: 'residua tune' with --k)"


def test_a_warning_is_one_line_on_stderr(run, mem, monkeypatch):
    def load(path, device="cpu"):
        warnings.warn("this\nand that, replace=True", UserWarning, stacklevel=2)
        raise ParameterError("stop here")

    monkeypatch.setattr(rs.Memory, "load", load)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = run("add", "mem", "train.npz", code=1)
    expected = "Warning: this\\nand that, replace=True (on the command line: --replace)\nError: stop here\n"
    assert done.stderr == expected


def test_interrupted_encode_is_130_and_leaves_the_old_file(run, here, encoded):
    before = (here / "train.npz").read_bytes()
    done = run("encode", "net:model", "net:Interrupted", "-o", "train.npz", "--batch-size", 2, code=128 + signal.SIGINT)
    assert "Interrupted." in done.stderr
    assert (here / "train.npz").read_bytes() == before
    assert not list(here.glob("*.part"))


def test_interrupted_save_is_130_and_leaves_the_old_memory(run, mem, monkeypatch):
    before = {file.name: file.read_bytes() for file in mem.iterdir()}

    def interrupt(path, data):
        raise KeyboardInterrupt

    monkeypatch.setattr("residua.memory.manifest.write_json", interrupt)
    run("add", "mem", "val.npz", code=130)
    assert {file.name: file.read_bytes() for file in mem.iterdir()} == before
    assert len(rs.Memory.load(mem)) == 60


OWN = """
from residua.core import LabelValues
from residua.readers import Kernel, NeighbourReader, register_kernel, register_reader

register_kernel(Kernel("box", lambda d, sigma: (d > sigma).float() * -50.0))


@register_reader
class Votes(NeighbourReader):
    def __init__(self, memory, k=None, weight=0.5, kernel="box"):
        super().__init__(memory, k, 2.0, 1.0, kernel)
        self.weight = float(weight)

    def share(self, neighbours, queries):
        return 1 - self.weight, self.weight

    def values(self, queries):
        return LabelValues(self.memory.column("label"))
"""


def test_a_reader_and_a_kernel_of_ones_own_are_known_to_every_verb(run, mem, here):
    (here / "votes.py").write_text(OWN)
    own = ("--import", "votes")
    run(*own, "tune", "mem", "val.npz", "--reader", "votes", "--k", "3,9", "--grid", "weight=0.2,0.8")
    run(*own, "evaluate", "mem", "test.npz")
    run(*own, "explain", "mem", "test.npz", "--row", 1)
    assert "Votes(" in run(*own, "info", "mem").stdout
    run(*own, "evaluate", "mem", "test.npz", "--reader", "resmem", "--k", 3, "--kernel", "box", "--sigma", 1)
    run(*own, "evaluate", "mem", "test.npz", "--reader", "votes", "--set", "weight=0.9")
    assert "there is no reader 'nonesuch'" in run("evaluate", "mem", "test.npz", "--reader", "nonesuch", code=1).stderr


def test_a_module_that_cannot_be_imported_is_said(run):
    assert "importing 'nonesuch' failed" in run("--import", "nonesuch", "info", "mem", code=1).stderr
