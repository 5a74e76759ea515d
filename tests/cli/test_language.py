"""The command line on a language model, end to end; each verb's own test file has what it says of encoded rows."""

import functools
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import residua as rs
from residua.cli.language import language_model, model_of, quiet
from residua.cli.main import main
from residua.errors import InputError

pytestmark = pytest.mark.slow

pytest.importorskip("transformers")

DOCUMENTS = {
    "src/add.py": "def add(first, second):\n    return first + second\n" * 6,
    "src/deep/count.py": "def count(self, name):\n    self.seen[name] = self.seen.get(name, 0) + 1\n" * 4,
    "src/notes.txt": "words that are no code at all, and that the glob leaves out\n",
    "val/one.py": "def add(first, third):\n    return first + third\n" * 3,
    "val/two.py": "def count(other, name):\n    return other.seen[name]\n" * 3,
    "test/one.py": "def add(zero, second):\n    return zero + second\n" * 3,
    "test/two.py": "def count(many, name):\n    many.seen[name] = 1\n" * 3,
}
BUILD = ["build", "--text", "src", "--glob", "**/*.py", "--model", "model", "--window", 64, "-o"]
FEW = ["--k", "8,32", "--sigma", "100,1000", "--temperature", "1", "--lmbda", "0.3,0.6"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer):
    """A folder with texts, a saved model, ``mem`` (untuned) and ``tuned`` (with a reader); tests get copies."""
    folder = tmp_path_factory.mktemp("world")
    for name, text in DOCUMENTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with quiet():
        tiny_model("gpt2").save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def built(world):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        done = CliRunner().invoke(main, [*map(str, BUILD), "mem"])
        assert done.exit_code == 0, done.output
        shutil.copytree("mem", "tuned")
        done = CliRunner().invoke(main, [*map(str, ["tune", "tuned", "--text", "val", *FEW])])
        assert done.exit_code == 0, done.output
    return world


@pytest.fixture
def here(built, tmp_path, monkeypatch):
    """A copy of that folder, as the current one."""
    shutil.copytree(built, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def run(here):
    def invoke(*words, code: int = 0):
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            done = CliRunner().invoke(main, [str(word) for word in words])
        unforeseen = done.exception if not isinstance(done.exception, SystemExit) else None
        assert done.exit_code == code and unforeseen is None, f"{done.output}\n{done.exception!r}"
        return done

    return invoke


def test_build_is_the_verb_of_the_library(here, run):
    memory = rs.Memory.load("mem")
    model, tokenizer = language_model("model")
    expected = rs.lm.remember(model, tokenizer, here / "src", window=64, glob="**/*.py")
    np.testing.assert_array_equal(memory.labels, expected.labels)
    np.testing.assert_array_equal(memory.keys, expected.keys)
    assert set(memory.names.values()) == {"add.py", "deep/count.py"}
    assert memory.about["windowing"] == expected.about["windowing"]


def test_build_says_what_it_made_and_what_comes_next(run):
    done = run(*BUILD, "again")
    assert "Loading" not in done.stdout
    assert "tokens of 2 documents remembered" in done.stdout and "h.1.mlp.c_fc:input" in done.stdout
    tune, generate = done.stderr.splitlines()
    assert tune.startswith("next: residua tune again --text ") and generate == "      residua generate again 'a prompt'"
    data = json.loads(run(*BUILD, "once-more", "--no-keys", "--index", "IVF2,PQ4x4", "--json").stdout)
    assert (data["documents"], data["index"], data["key_dtype"]) == (2, "IVF2,PQ4x4", None)
    assert not rs.Memory.load("once-more").keys_kept


def test_a_killed_build_goes_on(here, run, monkeypatch):
    whole = rs.lm.build
    small = functools.partial(whole, shard_rows=64)
    monkeypatch.setattr(rs.lm, "build", small)
    run(*BUILD, "whole", "--batch-size", 1)

    def killed(stream, encode, *words, **options):
        calls = iter(range(4))

        def stopping(batch):
            if next(calls) == 3:
                raise KeyboardInterrupt
            return encode(batch)

        return small(stream, stopping, *words, **options)

    monkeypatch.setattr(rs.lm, "build", killed)
    stderr = run(*BUILD, "half", "--batch-size", 1, code=130).stderr
    assert "tokens on disk: the same command goes on from there" in stderr and "Interrupted." in stderr
    for verb in (["info", "half"], ["generate", "half", "def"], ["tune", "half", "--text", "val"]):
        assert "finish it: give the command that began it again" in run(*verb, code=1).stderr
    monkeypatch.setattr(rs.lm, "build", small)
    assert "Going on with the unfinished build" in run(*BUILD, "half", "--batch-size", 1).stderr
    np.testing.assert_array_equal(rs.Memory.load("half").keys, rs.Memory.load("whole").keys)


def test_tune_finds_the_librarys_best_and_says_what_it_is_worth(here, run):
    model, tokenizer = language_model("model")
    memory = rs.Memory.load("mem")
    grid = {"k": [8, 32], "sigma": [100, 1000], "temperature": [1], "lmbda": [0.3, 0.6]}
    expected = rs.tune(
        rs.KNNLM(memory, k=8), rs.lm.encode(model, tokenizer, here / "val", like=memory, batch_size=16), grid
    )
    data = json.loads(run("tune", "mem", "--text", "val", *FEW, "--json").stdout)
    assert data["params"] == expected.params == rs.load("mem").params
    assert data["perplexity"] == pytest.approx(math.exp(-expected.best_score_))
    assert data["perplexity"] < data["base_perplexity"]
    assert data["documents"] == 2
    text = run("tune", "mem", "--text", "val", *FEW, "--adaptive", 2, "--skip", 0.01, "--cache").stdout
    assert "9 settings compared by perplexity" in text and "a share by distance:" in text and "of the searches" in text
    assert isinstance(rs.load("mem"), rs.ContinuousCache)
    assert json.loads(run("evaluate", "mem", "--text", "test", "--json").stdout)["params"]["over"]["reader"] == "KNNLM"
    assert "over=KNNLM(k=" in run("evaluate", "mem", "--text", "test").stdout
    assert "Memory(" not in run("info", "mem").stdout
    assert "the continuous cache is left out" in run("explain", "mem", "--text", "def add(").stderr


def test_the_first_tokens_are_enough(run):
    data = json.loads(run("tune", "mem", "--text", "val", *FEW, "--max-tokens", 20, "--json").stdout)
    assert (data["rows"], data["documents"]) == (20, 1)


def test_evaluate_is_the_verb_of_the_library(here, run):
    model, tokenizer = language_model("model")
    expected = rs.lm.evaluate(model, tokenizer, here / "test", rs.load("tuned"))
    data = json.loads(run("evaluate", "tuned", "--text", "test", "--json").stdout)
    for name in ("n", "n_groups", "base_perplexity", "perplexity", "gain_interval", "params"):
        assert data[name] == json.loads(json.dumps(expected.to_dict()[name])), name
    assert data["perplexity"] < data["base_perplexity"]
    assert "perplexity" in run("evaluate", "tuned", "--text", "test/one.py", "--text", "test/two.py").stdout


def test_a_gate_is_fitted_on_the_remembered_documents_where_no_text_is_given(here, run):
    model, tokenizer = language_model(str(here / "model"), "float32", "cpu")
    data = json.loads(run("tune", "mem", "--reader", "gated", "--evidence", -1, "--json").stdout)
    expected = rs.lm.fit(model, tokenizer, rs.Gated(rs.Memory.load("mem")), evidence=None)
    assert data["reader"] == "Gated" and data["rows"] == expected.evidence_.rows
    assert rs.load("mem").shares == expected.shares


def test_without_a_tuned_reader_defaults_are_used_and_said(run):
    done = run("evaluate", "mem", "--text", "test")
    assert "has no tuned reader" in done.stderr and "KNNLM(k=" in done.stdout
    assert run("evaluate", "mem", "--text", "test", "--reader", "knnlm", "--k", 3, "-q").stderr == ""


def test_generate_shows_both(here, run):
    words = ["generate", "tuned", "def add(", "--max-new-tokens", 8]
    found = json.loads(run(*words, "--json").stdout)
    model, tokenizer = language_model("model")
    inputs = tokenizer("<|endoftext|>def add(", return_tensors="pt")
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 1}

    def text() -> str:
        with quiet():
            made = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], **options)
        return tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    assert found["base"]["text"] == text()
    with rs.attach(model, rs.load("tuned")):
        assert found["memory"]["text"] == text() != found["base"]["text"]
    shown = run(*words)
    assert shown.stderr.startswith("next: residua explain tuned --text 'def add('") and shown.stderr.count("\n") == 1
    assert shown.stdout.index("The model alone: ") < shown.stdout.index("With the memory, KNNLM(k=")
    assert "With the memory" not in run(*words, "--base-only").stdout
    assert "The model alone" not in run(*words, "--memory-only").stdout


def test_sampling_is_repeatable_and_beams_are_beams(here, run):
    (here / "prompt.py").write_text("def add(\n")
    words = ["generate", "tuned", "--prompt-file", "prompt.py", "--max-new-tokens", 8, "--memory-only", "--json"]
    drawn = [json.loads(run(*words, *more).stdout)["memory"]["text"] for more in (["--seed", 1], ["--seed", 1])]
    assert drawn[0] == drawn[1] != json.loads(run(*words, "--temperature", 2, "--seed", 2).stdout)["memory"]["text"]
    assert json.loads(run(*words, "--beams", 2).stdout)["prompt"] == "def add("
    assert json.loads(run(*words, "--beams", 2, "--cache-lmbda", 0.1).stdout)["memory"]["tokens"] == 8


def test_a_prompt_longer_than_the_model_is_cut(run):
    done = run("generate", "tuned", "def add(first, second)\n" * 30, "--max-new-tokens", 4)
    assert "only its last 124 tokens are used" in done.stderr
    assert "model has 128 positions" in run("generate", "tuned", "x", "--max-new-tokens", 128, code=1).stderr


def test_explain_shows_contexts_as_text(here, run):
    model, tokenizer = language_model("model")
    why = rs.lm.explain(model, tokenizer, "def add(first", rs.load("tuned"))
    assert run("explain", "tuned", "--text", "def add(first").stdout == f"{why}\n"
    data = json.loads(run("explain", "tuned", "--text", "def add(first", "--json").stdout)
    assert data["neighbours"][0]["name"] == "add.py" and data["neighbours"][0]["context"].endswith("def add(first")
    given = sum(one["contributions"]["predicted"] for one in data["neighbours"])
    best = data["tokens"][0]
    assert best["score"] == pytest.approx(data["scale"] * best["base"] + given, abs=1e-5)


def test_info_and_forget_speak_of_documents(run):
    data = json.loads(run("info", "tuned", "--json").stdout)
    assert (data["documents"], data["key_dtype"], data["keys_kept"]) == (2, "float16", True)
    assert {"window": 64, "stride": 48, "prefix": 0, "suffix": 0}.items() <= data["windowing"].items()
    assert data["model"].endswith("model")
    assert "window 64, stride 48" in run("info", "tuned").stdout
    assert "'deep/count.py'" in run("forget", "tuned", "--document", "count.py", code=1).stderr
    gone = json.loads(run("forget", "tuned", "--document", "deep/count.py", "--json").stdout)["forgotten"]
    left = json.loads(run("info", "tuned", "--json").stdout)
    assert left["documents"] == 1 and left["rows"] == data["rows"] - gone
    (id,) = {*rs.Memory.load("tuned").ids.tolist()}
    run("forget", "tuned", "--document", id)
    assert "empty" in run("evaluate", "tuned", "--text", "test", code=1).stderr


def test_a_memory_follows_its_folder(here, run):
    (here / "src" / "new.py").write_text("import os\nimport sys\n")
    (here / "src" / "copy.py").write_text(DOCUMENTS["src/add.py"])
    (here / "src" / "deep" / "count.py").write_text("def count(self):\n    return 0\n")
    (here / "src" / "add.py").unlink()
    words = ["update", "tuned", "--text", "src", "--glob", "**/*.py"]
    planned = run(*words, "--dry-run").stdout
    assert "2 documents added, 1 changed, 1 removed, 0 unchanged" in planned and "nothing was changed" in planned
    assert set(rs.Memory.load("tuned").names.values()) == {"add.py", "deep/count.py"}
    done = run(*words).stdout.splitlines()
    lines = ["  added    copy.py", "  added    new.py", "  changed  deep/count.py", "  removed  add.py"]
    assert done[0].startswith("tuned: 2 documents added, 1 changed, 1 removed, 0 unchanged: ") and done[1:] == lines
    again = json.loads(run(*words, "--json").stdout)
    assert (again["unchanged"], again["tokens_added"], again["tokens_forgotten"]) == (3, 0, 0)
    assert again["rows"] == len(rs.Memory.load("tuned"))
    assert json.loads(run(*BUILD, "fresh", "--json").stdout)["rows"] == again["rows"]
    assert "saved beside the memory" in run("evaluate", "tuned", "--text", "test", "-v").stderr  # it stays
    assert ": none is left" in run("purge", "tuned").stdout


def test_texts_are_added_by_name(here, run):
    (here / "more").mkdir()
    (here / "more" / "new.py").write_text("import os\nimport sys\n")
    assert "1 document added, 0 changed, 0 removed" in run("add", "mem", "--text", "more").stdout
    assert set(rs.Memory.load("mem").names.values()) == {"add.py", "deep/count.py", "new.py"}
    (here / "more" / "new.py").write_text("import json\n")
    stderr = run("add", "mem", "--text", "more", code=1).stderr
    assert "'new.py': remembered with another text; replace what is there (--replace" in stderr
    assert "1 changed" in run("add", "mem", "--text", "more", "--replace").stdout
    assert "expected --text PATH" in run("update", "mem", code=2).stderr
    np.savez("rows.npz", keys=np.eye(3))
    assert "takes text and no .npz file: residua add mem --text" in run("add", "mem", "rows.npz", code=1).stderr


def test_a_copied_text_stays_until_its_last_name_goes(here, run):
    (here / "src" / "copy.py").write_text(DOCUMENTS["src/add.py"])
    run("update", "mem", "--text", "src", "--glob", "**/*.py")
    done = run("forget", "mem", "--document", "add.py")
    assert "add.py is forgotten; its text stays, for it is also that of copy.py" in done.stderr
    assert done.stdout.startswith("mem: 0 rows forgotten; ")
    assert not run("forget", "mem", "--document", "copy.py").stdout.startswith("mem: 0 rows")


def test_residuals_are_read_too(run):
    run(*BUILD, "res", "--storage", "top-m", "--m", 16)
    assert "ResMem(k=8" in run("evaluate", "res", "--text", "test", "--reader", "resmem", "--k", 8).stdout
    assert "--storage" in run("evaluate", "mem", "--text", "test", "--reader", "resmem", "--k", 8, code=1).stderr


def test_an_encoder_decoder_reads_pairs(here, run, tiny_model, tiny_tokenizer):
    tiny_model("t5").save_pretrained("t5")
    tiny_tokenizer.save_pretrained("t5")
    pairs = [("add", "first + second"), ("count", "self.seen[name]"), ("add", "first + third")]
    (here / "pairs.jsonl").write_text("\n".join(json.dumps({"source": s, "target": t}) for s, t in pairs))
    (here / "pairs.tsv").write_text("add\tfirst + second\ncount\tother.seen[name]\n")
    words = ["build", "--model", "t5", "-o", "mt", "--text"]
    assert "tokens of 3 documents" in run(*words, "pairs.jsonl").stdout
    assert "on " in run("evaluate", "mt", "--text", "pairs.tsv", "--reader", "knnlm", "--k", 3).stdout
    assert "The model alone" in run("generate", "mt", "add", "--max-new-tokens", 4, "--reader", "knnlm").stdout
    (here / "bad.tsv").write_text("add\tfirst\nno tab here\n")
    assert "bad.tsv, line 2: no pair" in run(*words, "bad.tsv", "--overwrite", code=1).stderr
    assert "reads pairs" in run("evaluate", "mt", "--text", "src", code=1).stderr


def test_a_factory_gives_a_model_and_its_tokenizer(here, run, monkeypatch):
    (here / "own_lm.py").write_text(
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "def both():\n"
        "    return AutoModelForCausalLM.from_pretrained('model'), AutoTokenizer.from_pretrained('model')\n"
        "def alone():\n    return 5\n"
    )
    monkeypatch.syspath_prepend(str(here))
    run("build", "--text", "src/add.py", "--model", "own_lm:both", "--window", 64, "-o", "own")
    assert rs.Memory.load("own").about["model"] == "own_lm:both"
    with pytest.raises(InputError, match="expected a pair"):
        language_model("own_lm:alone")
    sys.modules.pop("own_lm")
    refused = run("generate", "own", "def", code=1).stderr
    assert "no memory's folder chooses what is run" in refused and "own_lm" not in sys.modules
    run("generate", "own", "def", "--model", "own_lm:both", "--max-new-tokens", 2)


@pytest.mark.parametrize("said", ["nobody/asked-for-this", "/nowhere/model", "../../up", "http://host:80/x", 7, ["a"]])
def test_a_memory_chooses_no_address(here, said, monkeypatch):
    """What a folder says of its model is used where that is here already, and is asked for nowhere."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was made"))
    memory = SimpleNamespace(about={"model": said}, source=None, device="cpu")
    with pytest.raises(InputError, match="--model"):
        model_of(memory, here, None)


def test_a_model_that_moved_is_named_anew(here, run):
    run(*BUILD, "own")
    (here / "model").rename("moved")
    assert "name it with --model" in run("generate", "own", "def", code=1).stderr
    run("generate", "own", "def", "--model", "moved", "--max-new-tokens", 2)


def test_weights_that_are_missing_are_said(here, run):
    from safetensors.torch import load_file, save_file

    file = here / "model" / "model.safetensors"
    weights = load_file(file)
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    assert "lacks 1 of the weights of a GPT2LMHeadModel" in run(*BUILD, "out").stderr
    file.write_bytes(file.read_bytes()[:1000])
    assert "no language model can be loaded from 'model'" in run(*BUILD, "torn", code=1).stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["build", "--text", "src", "-o", "out"], 2, "--text needs --model"),
        (["build", "--text", "none", "--model", "model", "-o", "out"], 2, "'none' does not exist"),
        (["build", "--text", "src", "--model", "./none", "-o", "out"], 1, "there is no folder ./none"),
        (["build", "--text", "src", "--model", "src/deep", "-o", "out"], 1, "no language model can be loaded"),
        (["build", "--text", "src", "a.npz", "-o", "out"], 2, "either --text PATH or ENCODED"),
        (["build", "src", "-o", "out"], 2, "text is given with --text"),
        (["build", "a.npz", "--window", 9, "-o", "out"], 2, "--window is not for encoded .npz files"),
        (["build", "--text", "bytes.bin", "--model", "model", "-o", "out"], 1, "--errors"),
        (["build", "--text", "empty.py", "--model", "model", "-o", "out"], 1, "hold no token"),
        (
            ["build", "--text", "src", "--model", "model", "--window", 999, "-o", "out"],
            1,
            "the model has 128 positions",
        ),
        (["build", "--text", "src", "--model", "model", "-o", "mem"], 1, "holds a memory already"),
        (["evaluate", "mem", "a.npz"], 1, "takes text and no .npz file: residua evaluate mem --text"),
        (["add", "mem", "a.npz"], 1, "takes text and no .npz file"),
        (["evaluate", "rows", "--text", "test"], 1, "it takes encoded rows, FILE.npz"),
        (["generate", "rows", "x"], 1, "is no memory of tokens"),
        (["evaluate", "mem", "--text", "test", "--validation", "a.npz"], 2, "--validation is not for --text"),
        (["evaluate", "mem", "--text", "test", "--reader", "knnlm", "--k", 99999], 1, "choose k <="),
        (["generate", "mem", "--lmbda", 0.5, "x"], 1, "--reader knnlm"),
        (["generate", "mem"], 1, "expected a prompt"),
        (["generate", "mem", ""], 1, "the prompt is empty"),
        (["explain", "mem"], 2, "either --text 'a prompt' or ENCODED"),
    ],
)
def test_what_will_not_do_is_said(here, run, words, code, message):
    rs.Memory(rs.Encoded(np.eye(3), 2 * np.eye(3), [0, 1, 2])).save("rows")
    (here / "bytes.bin").write_bytes(b"def \xff")
    (here / "empty.py").write_text("")
    assert message in " ".join(run(*words, code=code).stderr.split())


def test_processes_that_torchrun_starts_build_together(here, run):
    run(*BUILD, "alone")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "residua"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [*command, *map(str, BUILD), "mem2"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("remembered") == 1  # the first process says it for both
    one, other = rs.Memory.load("alone"), rs.Memory.load("mem2")
    assert (one.keys == other.keys).all() and (one.labels == other.labels).all() and (one.ids == other.ids).all()
    assert one.names == other.names
