import json

import numpy as np
import pytest

import residua as rs
from residua.folder import has_reader


def test_tune_is_the_verb_of_the_library_and_saves_what_it_found(run, mem, encoded):
    asked = ("--objective", "accuracy", "--evidence", -1)
    data = json.loads(run("tune", "mem", "val.npz", "--k", "1,5,20", "--sigma", "0.5,1", *asked, "--json").stdout)
    expected = rs.tune(
        rs.ResMem(rs.Memory.load(mem)),
        encoded["val"],
        {"k": [1, 5, 20], "sigma": [0.5, 1]},
        objective="accuracy",
        evidence=None,
    )
    assert data["params"] == expected.params == rs.load(mem).params
    assert data["score"] == expected.best_score_ > data["base_score"]
    assert data["base_score"] == pytest.approx(np.mean(encoded["val"].logits.argmax().numpy() == encoded["val"].labels))
    assert data["settings"] == len(expected.results_["score"]) and data["objective"] == "accuracy"
    assert data["evidence"] == vars(expected.evidence_)


def test_text_says_what_was_gained_and_where_it_is(run, mem, encoded):
    lines = run("tune", "mem", "val.npz", "--k", "5", "--sigma", "1", "--temperature", 1).stdout.splitlines()
    assert lines[0] == "ResMem: 2 settings compared by log-loss on 30 validation rows"
    assert lines[1] == "  best: k=5, sigma=1, temperature=1"
    grid = {"k": 5, "sigma": 1, "temperature": 1}
    assert lines[3] == f"  {rs.tune(rs.ResMem(rs.Memory.load(mem)), encoded['val'], grid).evidence_}"
    assert lines[4] == "saved in mem" and len(lines) == 5


def test_losses_are_shown_as_losses(run, mem, encoded):
    out = run("tune", "mem", "val.npz", "--k", 5, "--sigma", 1, "--temperature", 1, "--objective", "log_loss").stdout
    best = rs.load(mem)
    p = best.predict_proba(encoded["val"])
    loss = -np.log(p[np.arange(len(p)), encoded["val"].labels]).mean()
    assert f"{loss:.4g} for the best" in out and "-" not in out.splitlines()[2]


def test_a_memory_that_does_not_help_is_said_so(run, here):
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 3
    sure = 9.0 * np.eye(3)[labels]
    rs.Memory(rs.Encoded(rng.normal(size=(12, 2)), sure, labels)).save("mem")
    rs.Encoded(rng.normal(size=(12, 2)), sure, labels).save("val.npz")
    assert "the memory is not surely better here" in run("tune", "mem", "val.npz").stdout
    assert rs.load("mem").k == 0


def test_the_reader_can_be_chosen(run, mem):
    run("tune", "mem", "val.npz", "--reader", "knnlm", "--lmbda", "0.5,1", "--kernel", "exponential", "--k", 3)
    reader = rs.load(mem)
    assert isinstance(reader, rs.KNNLM) and reader.kernel == "exponential" and reader.lmbda in (0.5, 1.0)
    run("tune", "mem", "val.npz", "--space", "exponent", "--k", 3)
    assert rs.load(mem).space == "exponent"


def test_a_reader_that_is_fitted(run, mem, encoded):
    data = json.loads(run("tune", "mem", "val.npz", "--reader", "pooled", "--evidence", -1, "--json").stdout)
    expected = rs.Pooled(rs.Memory.load(mem)).fit(encoded["val"], evidence=None)
    reader = rs.load(mem)
    assert data["params"] == reader.params == expected.params and data["rows"] == 30
    assert data["evidence"] == vars(expected.evidence_)
    assert "Pooled: fitted on 30 validation rows" in run("tune", "mem", "val.npz", "--reader", "pooled").stdout
    assert "Pooled is fitted" in run("tune", "mem", "val.npz", "--reader", "pooled", "--k", 3, code=2).stderr
    assert run("evaluate", "mem", "val.npz").stdout and run("explain", "mem", "val.npz", "--row", 1).stdout


def test_a_reader_fitted_on_the_memorys_own_rows(run, mem):
    data = json.loads(run("tune", "mem", "--reader", "pooled", "--evidence", -1, "--json").stdout)
    expected = rs.Pooled(rs.Memory.load(mem)).fit(evidence=None)
    assert data["params"] == rs.load(mem).params == expected.params
    assert data["rows"] == expected.evidence_.rows == 60
    assert "Pooled: fitted on 60 remembered rows" in run("tune", "mem", "--reader", "pooled").stdout
    assert "expected either --text PATH or VALIDATION" in run("tune", "mem", "--reader", "knnlm", code=2).stderr
    assert "expected either --text PATH" in run("tune", "mem", "--reader", "pooled", "--max-tokens", 9, code=2).stderr


def test_wrong_wishes(run, mem):
    assert "k=100, and the memory has 60 rows" in run("tune", "mem", "val.npz", "--k", 100, code=1).stderr
    assert "lmbda" in run("tune", "mem", "val.npz", "--lmbda", 0.5, code=1).stderr
    stderr = run("tune", "mem", "val.npz", "--objective", "squared_error", code=1).stderr
    assert "expected one of ('accuracy'" in stderr and "--objective" in stderr
    assert not has_reader(mem)


def test_an_objective_of_scikit_learns(run, mem):
    out = run("tune", "mem", "val.npz", "--objective", "balanced_accuracy", "--k", 3).stdout
    assert "settings compared by balanced_accuracy on" in out
    assert "near names: 'f1_macro'" in run("tune", "mem", "val.npz", "--objective", "f1_maco", code=1).stderr
