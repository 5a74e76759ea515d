import os
import shlex
import signal
import subprocess
import sys
import warnings

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

import residua as rs
from residua.cli import build, encode, main, options, tune
from residua.cli.main import option_hint
from residua.core.encoded import TASKS
from residua.core.outputs import OUTPUT_KINDS
from residua.errors import ParameterError
from residua.index.recipes import RECIPES
from residua.memory.schema import KEY_DTYPES
from residua.memory.storage import STORAGES
from residua.readers.resmem import SPACES
from residua.tuning.objective import OBJECTIVES

VERBS = {name: verb for name, verb in main.main.commands.items() if not isinstance(verb, click.Group)}
HEAVY = {"torch", "numpy", "jinja2", "scipy", "sklearn", "matplotlib", "faiss", "pandas", "transformers", "tqdm"}


def light(words, code: int) -> str:
    """What the command says on both streams; it must exit with `code`, load nothing heavy and take little CPU time."""
    script = (
        "import sys, time\nfrom residua.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    print(end.code, time.process_time(), *(name for name in sys.modules if '.' not in name))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script, *words], capture_output=True, text=True)
    *said, told = done.stdout.splitlines()
    ended, seconds, *loaded = told.split()
    text = "\n".join(said) + done.stderr
    assert int(ended) == code, text
    assert "click" in loaded and not HEAVY & set(loaded), HEAVY & set(loaded)
    assert float(seconds) < 0.5
    return text


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["--version"], *([name, "-h"] for name in VERBS)])
def test_help_is_light(words):
    assert light(words, 0)


def test_info_reads_the_manifest_alone(mem):
    rs.ResMem(rs.Memory.load(mem), k=4).save(mem)
    assert "ResMem(k=4" in light(["info", "mem"], 0)
    assert '"rows": 60' in light(["info", "mem", "--json"], 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["info", "nowhere"], 1, "nowhere is not a memory"),
        (["info", "train.npz"], 1, "train.npz is not a memory"),
        (["tune", "nowhere", "val.npz"], 1, "nowhere is not a memory"),
        (["tune", "mem", "none.npz"], 1, "there is no file none.npz"),
        (["tune", "mem", "net.py"], 1, "net.py is not a whole .npz file"),
        (["tune", "mem", "--text", "."], 1, "mem is no memory of tokens"),
        (["tune", "mem", "val.npz", "--k", "many"], 2, "not a list of numbers"),
        (["tune", "mem", "val.npz", "--reader", "nonesuch"], 2, "there is no reader 'nonesuch'"),
        (["tune", "mem", "val.npz", "--space", "speed"], 2, "'speed' is not one of"),
        (["evaluate", "mem", "test.npz"], 1, "run 'residua tune mem VALIDATION.npz' first"),
        (["evaluate", "mem", "test.npz", "--k", "3"], 1, "without a reader"),
        (["evaluate", "mem", "test.npz", "--reader", "resmem", "--validation", "none.npz"], 1, "no file none.npz"),
        (["evaluate", "mem", "test.npz", "--confidence", "2"], 2, "not in the range"),
        (["explain", "mem", "none.npz", "--row", "1", "--reader", "resmem"], 1, "there is no file none.npz"),
        (["explain", "mem", "--text", "a"], 1, "mem is no memory of tokens"),
        (["report", "mem", "test.npz"], 1, "run 'residua tune mem VALIDATION.npz' first"),
        (["report", "mem", "none.npz", "--reader", "resmem"], 1, "there is no file none.npz"),
        (["report", "mem", "test.npz", "--images", "none"], 1, "there is no folder none"),
        (["generate", "mem", "a"], 1, "mem is no memory of tokens"),
        (["generate", "nowhere"], 1, "expected a prompt"),
        (["add", "mem", "none.npz"], 1, "there is no file none.npz"),
        (["forget", "mem"], 1, "no ids were given"),
        (["forget", "mem", "--ids-file", "none.txt"], 1, "cannot read ids"),
        (["relabel", "mem", "--label", "1"], 1, "no ids were given"),
        (["build", "none.npz", "-o", "out"], 1, "there is no file none.npz"),
        (["build", "train.npz", "-o", "mem"], 1, "holds a memory already"),
        (["build", "train.npz", "-o", "val.npz"], 1, "val.npz is a file"),
        (["build", "--text", ".", "--model", "./none", "-o", "out"], 1, "there is no folder ./none"),
        (["encode", "net", "-o", "a.npz"], 1, "expected module:factory"),
        (["encode", "nonesuch:f", "-o", "a.npz"], 1, "No module named 'nonesuch'"),
        (["encode", "net:model", "none.npz", "-o", "a.npz"], 1, "there is no file none.npz"),
        (["encode", "net:model", "--like", "nowhere", "-o", "a.npz"], 1, "there is no file nowhere"),
        (["encode", "net:model", "-o", "no/a.npz"], 1, "there is no folder no"),
        (["encode", "net:model", "-o", "mem"], 1, "mem is a memory"),
    ],
)
def test_what_is_wrong_is_said_before_anything_heavy_is_loaded(mem, words, code, message):
    assert message in " ".join(light(words, code).split())


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("faiss", ["build", "train.npz", "-o", "out", "--index", "IVF2,Flat"]),
        ("lm_eval", ["lm-eval", "mem", "--tasks", "arc_easy"]),
        ("matplotlib", ["demo"]),
        ("jinja2", ["report", "mem", "test.npz"]),
    ],
)
def test_a_missing_extra_is_said_first(run, mem, monkeypatch, missing, words):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr("residua.memory.Memory.load", lambda *_: pytest.fail("it began to work"))
    assert f"{missing} is needed for" in (stderr := run(*words, code=1).stderr) and "pip install" in stderr


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "residua", "info"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("Usage: python -m residua info [OPTIONS] MEMORY")
    done = subprocess.run([sys.executable, "-m", "residua", "--version"], capture_output=True, text=True)
    assert done.stdout == f"residua, version {rs.__version__}\n"


def examples(verb: click.Command) -> list[list[str]]:
    """The command lines in a verb's help."""
    return [shlex.split(line)[1:] for line in (verb.help or "").splitlines() if line.strip().startswith("residua ")]


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_examples_that_can_be_typed(run, here, monkeypatch, name):
    for folder in ("src", "validation", "test"):
        (here / folder).mkdir()
    monkeypatch.setattr(VERBS[name], "callback", lambda **_: None)
    found = examples(VERBS[name])
    assert found
    for words in found:
        assert words[0] == name
        run(*words)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_can_answer_in_json_and_be_quiet(name):
    flags = {flag for parameter in VERBS[name].params for flag in parameter.opts}
    assert {"--json", "--quiet", "-q", "--verbose", "-v"} <= flags


def completions(*words: str) -> list[tuple[str, str]]:
    """What a shell would offer for the last of these words: (kind, value)."""
    *before, incomplete = words
    found = BashComplete(main.main, {}, "residua", "_RESIDUA_COMPLETE").get_completions(before, incomplete)
    return [(item.type, item.value) for item in found]


def test_completion():
    assert completions("tu") == [("plain", "tune")]
    assert completions("tune", "--objec") == [("plain", "--objective")]
    assert completions("tune", "mem", "--objective", "sq") == [("plain", "squared_error")]
    assert completions("tune", "mem", "--reader", "k") == [("plain", "knnlm")]
    assert completions("evaluate", "mem", "--kernel", "") == [("plain", "exponential"), ("plain", "gaussian")]
    assert completions("build", "a.npz", "--index", "knn") == [("plain", "knnlm"), ("plain", "knnlm-fast")]
    assert completions("info", "me") == [("dir", "me")]
    assert completions("tune", "mem", "va") == [("file", "va")]


def test_completion_speaks_bash():
    env = os.environ | {"_RESIDUA_COMPLETE": "bash_complete", "COMP_WORDS": "residua forg", "COMP_CWORD": "1"}
    code = "import sys; sys.argv[0] = 'residua'; from residua.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout == "plain,forget\n"


def test_letters_that_a_terminal_lacks_are_escaped(mem):
    odd = mem.with_name("\u6f22")
    mem.rename(odd)
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-m", "residua", "info", odd.name], capture_output=True, env=env, text=True)
    assert done.returncode == 0 and done.stdout.startswith("\\u6f22\n"), done.stderr


def test_a_file_that_may_not_be_opened_is_one_line(run, here, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", "secret")

    monkeypatch.setattr("residua.cli.info.checked", refuse)
    assert "no permission for secret" in run("info", "mem", code=1).stderr


def test_version(run):
    assert run("--version").stdout == f"residua, version {rs.__version__}\n"


def test_help_lists_every_verb_in_order(run):
    text = run("--help").stdout.partition("Commands:")[2]
    verbs = [
        "demo",
        "encode",
        "build",
        "tune",
        "evaluate",
        "explain",
        "report",
        "add",
        "update",
        "forget",
        "purge",
        "relabel",
        "log",
        "undo",
        "info",
    ]
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
        (encode.KINDS, OUTPUT_KINDS),
        (tune.OBJECTIVES, dict.fromkeys(name for names in OBJECTIVES.values() for name in names)),
        (tune.MEASURES, tune.OBJECTIVES),
        (build.INDEXES, ("exact", *RECIPES)),
    ],
)
def test_choices_are_the_librarys(shown, real):
    assert sorted(shown) == sorted(real)


@pytest.mark.slow
def test_readers_and_kernels_are_the_librarys():
    # Of a fresh Python: other tests register their own in this one.
    code = "from residua.readers import KERNELS, READERS\nprint(*map(str.lower, READERS))\nprint(*KERNELS)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    readers, kernels = map(str.split, done.stdout.splitlines())
    assert sorted(readers) == sorted([*options.READERS, "continuouscache", "distilled", "edited"])
    assert sorted(kernels) == sorted(options.KERNELS)


def test_an_error_is_one_line_on_stderr_and_exit_code_1(run):
    done = run("info", "nowhere", code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert "nowhere is not a memory" in done.stderr


def test_wrong_usage_is_exit_code_2(run):
    assert "No such command 'forgte': did you mean 'residua forget'?" in run("forgte", code=2).stderr
    assert "No such command 'nonesuch': 'residua --help' lists the verbs" in run("nonesuch", code=2).stderr
    assert "--row" in run("explain", "mem", "a.npz", code=2).stderr


def test_reproductions_are_run_from_a_checkout():
    done = CliRunner().invoke(main.Verbs("residua"), ["reproduce", "theorem33"])
    assert done.exit_code == 2 and "make reproduce NAME=" in done.stderr


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
    def load(path, device="cpu", index=None, mmap=False, trust=False, live=False):
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
    words = ["evaluate", "mem", "test.npz", "--reader", "nonesuch"]
    for before, code in ([], 2), (own, 1):  # wrong usage; or one's own, which only the module knows
        assert "there is no reader 'nonesuch'" in run(*before, *words, code=code).stderr


def test_a_module_that_cannot_be_imported_is_said(run):
    assert "importing 'nonesuch' failed" in run("--import", "nonesuch", "info", "mem", code=1).stderr
