"""``residua lm-eval`` on a task defined in a local file."""

import json

import pytest

import residua as rs

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'residua[lm-eval]'")

TEXT = "def add(first, second):\n    return first + second\n"
TASK = """task: recite
dataset_path: json
dataset_kwargs: {{data_files: {{test: {here}/docs.jsonl}}, cache_dir: {here}/cache}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ''
doc_to_target: '{{{{text}}}}'
metric_list:
  - metric: byte_perplexity
"""


@pytest.fixture(autouse=True)
def no_description_of_the_machine(monkeypatch):
    """The harness adds one to its results, by commands that take longer than the scores here."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


@pytest.fixture
def made(here, tiny_model, tiny_tokenizer):
    """A model in ``model/``, its memory of one text in ``mem/`` and a task ``recite`` in ``tasks/``."""
    model = tiny_model("gpt2")
    model.save_pretrained(here / "model")
    tiny_tokenizer.save_pretrained(here / "model")
    memory = rs.lm.remember(model, tiny_tokenizer, [TEXT], window=64, key_dtype="float32", progress=False)
    rs.KNNLM(memory, k=4, lmbda=0.5, sigma=5.0).save(here / "mem")
    (here / "tasks").mkdir()
    (here / "tasks" / "recite.yaml").write_text(TASK.format(here=here))
    (here / "docs.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (TEXT, "class Other")))
    return model


def test_base_and_memory_stand_side_by_side(run, made, tiny_tokenizer):
    words = ["lm-eval", "mem", "--model", "model", "--tasks", "recite", "--include-path", "tasks", "--limit", 1]
    found = json.loads(run(*words, "--json").stdout)
    ours = rs.lm.evaluate(made, tiny_tokenizer, [TEXT], rs.load("mem"), exclude=None, progress=False)
    score = found["tasks"]["recite"]["byte_perplexity"]
    for side, perplexity in (("base", ours.base_perplexity), ("memory", ours.perplexity)):
        assert score[side] == pytest.approx(perplexity ** (ours.n / len(TEXT.encode())), rel=1e-5)
    assert found["reader"]["params"]["k"] == 4 and found["limit"] == 1
    text = run(*words).stdout
    assert "recite byte_perplexity (lower is better)" in text and "base" in text and "memory" in text
    assert f"{score['memory']:.4f}" in text and f"{score['memory'] - score['base']:+.4g}" in text
    other = json.loads(run(*words, "--json", "--reader", "knnlm", "--k", 1, "--sigma", 1, "--lmbda", 0.9).stdout)
    assert other["tasks"]["recite"]["byte_perplexity"]["memory"] < score["memory"]


def test_what_goes_wrong_is_one_line(run, made):
    words = ["lm-eval", "mem", "--model", "model", "--tasks", "recite", "--include-path"]
    done = run(*words, "nowhere", code=1)
    assert "'nowhere' is no folder" in done.stderr and "--include-path" in done.stderr and done.stdout == ""
    (made_of := rs.Memory.load("mem")).save("bare")
    assert made_of.schema.is_text
    assert "choose k <=" in run(*words, "tasks", "--reader", "knnlm", "--k", 1000, code=1).stderr


def test_a_memory_of_another_kind_is_refused(run, mem):
    done = run("lm-eval", "mem", "--reader", "knnlm", "--k", 3, "--tasks", "recite", code=1)
    assert "mem is no memory of tokens" in done.stderr
