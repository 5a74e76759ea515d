import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm

import residua as rs
from residua.errors import ParameterError
from residua.readers.evidence import Evidence

GRID = {"k": [1, 5, 20, 50], "sigma": [0.2, 0.5, 1.0, 2.0], "temperature": [0.5, 1.0, 2.0]}


def rows(n, seed, hidden=2.0, ids=None, sharp=1.0, noise=1.0):
    """Two classes by the sign of one key and, by as much as `hidden`, of another that the base does not see."""
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    labels = (keys[:, 0] + hidden * np.sign(keys[:, 1]) + noise * rng.logistic(size=n) > 0).astype(int)
    return rs.Encoded(keys, np.stack([np.zeros(n), sharp * keys[:, 0]], axis=1), labels, ids)


def losses(proba, truth):
    return -np.log(proba[np.arange(len(truth)), truth].astype(np.float64))


@pytest.mark.parametrize("reader", [rs.ResMem, rs.KNNLM])
def test_the_numbers_are_those_of_the_readers(reader):
    memory, val = rs.Memory(rows(400, 0)), rows(300, 1)
    best = rs.tune(reader(memory), val, GRID)
    found, base = best.evidence_, best.with_params(k=0)
    alone = {t: losses(base.with_params(temperature=t).predict_proba(val), val.labels) for t in GRID["temperature"]}
    gains = min(alone.values(), key=np.mean) - losses(best.predict_proba(val), val.labels)
    assert found.used and best.k > 0 and found.rows == found.groups == 300
    assert found.gain == pytest.approx(gains.mean(), rel=1e-4)
    assert found.z == pytest.approx(gains.mean() / (gains.std(ddof=1) / np.sqrt(300)), rel=1e-3)
    assert "is used: log loss -" in str(found)


def test_by_accuracy_the_test_is_mcnemars_and_the_log_loss_may_not_suffer():
    memory, val = rs.Memory(rows(400, 0)), rows(300, 1)
    best = rs.tune(rs.ResMem(memory), val, GRID, objective="accuracy")
    right, before = best.predict(val) == val.labels, np.asarray(val.logits).argmax(axis=1) == val.labels
    fixed, broken = int((right & ~before).sum()), int((before & ~right).sum())
    assert best.evidence_.used
    assert best.evidence_.accuracy_gain == pytest.approx((fixed - broken) / 300)
    assert best.evidence_.p_value == pytest.approx(binomtest(fixed, fixed + broken).pvalue)
    # Equally accurate settings are told apart by their log-loss.
    results = best.results_
    tied = np.flatnonzero((results["score"] == results["score"].max()) & (results["k"] > 0))
    each = [
        losses(best.with_params(**{name: results[name][at].item() for name in GRID}).predict_proba(val), val.labels)
        for at in tied
    ]
    assert len(tied) <= 16  # all of them were compared
    assert losses(best.predict_proba(val), val.labels).mean() == pytest.approx(min(map(np.mean, each)), rel=1e-6)


@pytest.mark.parametrize("objective", ["accuracy", "log_loss"])
def test_a_memory_that_knows_nothing_is_rarely_used(objective):
    used = chosen = 0
    for seed in range(30):
        memory, val = rs.Memory(rows(200, 3 * seed, hidden=0)), rows(150, 3 * seed + 1, hidden=0)
        used += rs.tune(rs.ResMem(memory), val, GRID, objective=objective).k > 0
        chosen += rs.tune(rs.ResMem(memory), val, GRID, objective=objective, evidence=None).k > 0
    assert used <= 3 < chosen


def test_what_is_not_used_is_the_model_itself():
    memory, val = rs.Memory(rows(200, 0, hidden=0)), rows(60, 1, hidden=0)
    for objective in ("accuracy", "log_loss", "conservative"):
        best = rs.tune(rs.ResMem(memory), val, GRID, objective=objective)
        assert best.k == 0 and best.temperature == 1 and not best.evidence_.used
        expected = torch.softmax(torch.as_tensor(np.asarray(val.logits)), dim=1)
        np.testing.assert_array_equal(best.predict_proba(val), expected.numpy())
        assert {"k": 0, "temperature": 1.0}.items() <= best.best_params_.items()
    assert "the memory is not used" in str(best.evidence_)


def test_a_temperature_alone_competes_for_the_log_loss():
    memory, val = rs.Memory(rows(300, 0, hidden=0, sharp=8)), rows(400, 1, hidden=0, sharp=8)  # far too sure
    best = rs.tune(rs.ResMem(memory), val, {"k": [1], "temperature": [0.5, 1.0, 4.0, 8.0]})
    assert best.k == 0 and best.temperature == 8
    assert best.best_score_ == pytest.approx(-losses(best.predict_proba(val), val.labels).mean(), rel=1e-5)
    assert rs.tune(rs.ResMem(memory), val, {"k": [1]}, objective="accuracy").temperature == 1


@pytest.mark.parametrize("reader", [rs.ResMem, rs.KNNLM])
def test_a_model_that_is_right_on_every_row_is_kept_as_it_is(reader):
    keys = np.random.default_rng(0).normal(size=(400, 2))
    keys[:, 0] += np.sign(keys[:, 0])
    enc = rs.Encoded(keys, np.stack([np.zeros(400), keys[:, 0]], axis=1), (keys[:, 0] > 0).astype(int))
    memory, val = rs.Memory(enc[:250]), enc[250:]
    best = rs.tune(reader(memory), val)
    assert (best.k, best.temperature, best.evidence_.used) == (0, 1, False)
    assert best.evidence_.z > 1.96  # whatever is surer is better there
    assert rs.tune(reader(memory), val, evidence=None).k > 0
    # One row that it gets wrong says how sure it may be.
    wrong = rs.Encoded(val.keys, val.logits, np.where(np.arange(150) == 7, 1 - val.labels, val.labels))
    assert rs.tune(reader(memory), wrong, {"k": [0]}).temperature < 1


def test_rows_of_one_group_are_one_piece_of_evidence():
    memory, once = rs.Memory(rows(400, 0)), rows(40, 1)
    many = once[np.repeat(np.arange(40), 10)]
    many = rs.Encoded(many.keys, many.logits, many.labels, np.repeat(np.arange(40), 10) + 1000)
    alone = rs.tune(rs.ResMem(memory), once, GRID, evidence=None).evidence_
    told = rs.tune(rs.ResMem(memory), many, GRID, evidence=None).evidence_
    untold = rs.tune(rs.ResMem(memory), rs.Encoded(many.keys, many.logits, many.labels), GRID, evidence=None).evidence_
    assert told.groups == 40 and told.rows == 400
    assert told.z == pytest.approx(alone.z, rel=1e-3) and untold.z > 3 * told.z
    assert told.p_value == pytest.approx(2 * norm.sf(abs(norm.isf(told.p_value / 2))))


def test_a_few_documents_are_cut_into_blocks():
    memory, val = rs.Memory(rows(400, 0)), rows(300, 1, ids=np.repeat([7, 8], 150))
    assert rs.tune(rs.KNNLM(memory), val, GRID).evidence_.groups == 20


def test_regression_is_judged_by_squared_errors():
    def numbers(n, seed, scale):
        rng = np.random.default_rng(seed)
        keys = rng.normal(size=(n, 1))
        return rs.Encoded(keys, keys[:, 0], keys[:, 0] + scale * np.sin(4 * keys[:, 0]) + 0.3 * rng.normal(size=n))

    best = rs.tune(rs.ResMem(rs.Memory(numbers(300, 0, 1.0))), val := numbers(200, 1, 1.0))
    gains = np.square(val.labels - np.asarray(val.logits)[:, 0]) - np.square(val.labels - best.predict(val))
    assert best.evidence_.used and best.evidence_.measure == "squared_error" and best.evidence_.p_value is None
    assert best.evidence_.z == pytest.approx(gains.mean() / (gains.std(ddof=1) / np.sqrt(200)), rel=1e-3)
    nothing = rs.tune(rs.ResMem(rs.Memory(numbers(300, 0, 0.0))), numbers(100, 1, 0.0))
    assert nothing.k == 0 and not nothing.evidence_.used


@pytest.mark.parametrize("wrong", [-1, "sure", True, float("nan"), float("inf")])
def test_what_is_no_evidence_says_so(wrong):
    with pytest.raises(ParameterError, match="expected standard errors"):
        rs.tune(rs.ResMem(rs.Memory(rows(20, 0))), rows(20, 1), evidence=wrong)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_gain_that_rests_on_remembered_rows_is_no_evidence(share):
    remembered = rows(300, 0, hidden=0)
    memory, n = rs.Memory(remembered), int(300 * share)
    leaked, fresh = remembered[:n], rows(300, 1, hidden=0)[n:]
    with pytest.warns(UserWarning, match=f"{n} of 300 validation rows whose very key or id is remembered"):
        best = rs.tune(rs.KNNLM(memory), iter([leaked, fresh] if len(fresh) else [leaked]), GRID)
    assert best.k == 0 and best.evidence_.matches == n and best.evidence_.z > 1.96
    assert rs.tune(rs.KNNLM(memory), leaked, GRID, evidence=None).k > 0


@pytest.mark.parametrize("reader", [rs.ResMem, rs.KNNLM])
def test_other_views_of_remembered_examples_are_no_evidence(reader):
    seen, ids = rows(300, 0, hidden=0), np.arange(300)
    views = rs.Encoded(seen.keys + 1e-4, seen.logits, seen.labels, ids)
    memory = rs.Memory(rs.Encoded(seen.keys, seen.logits, seen.labels, ids))
    with pytest.warns(UserWarning, match="300 of 300 validation rows whose very key or id is remembered"):
        best = rs.tune(reader(memory), iter([views[:100], views[100:]]), GRID, exclude=None)
    assert best.k == 0 and best.evidence_.matches == 300 and best.evidence_.z > 1.96
    assert rs.tune(reader(memory), views, GRID).evidence_.matches == 0  # which leaves their own out


def test_a_gain_that_does_not_rest_on_them_is():
    remembered, fresh = rows(300, 0), rows(300, 1)
    best = rs.tune(rs.ResMem(rs.Memory(remembered)), iter([remembered[:10], fresh]), GRID)
    assert best.k > 0 and best.evidence_.matches == 10


@pytest.mark.parametrize(("z", "needed", "said"), [(1.2, 1.0, True), (2.0, 1.0, False), (-1.0, 1.96, False)])
def test_a_gain_that_is_likely_alone_is_told(z, needed, said):
    found = Evidence("log_loss", 500, 500, 0, 0.01, z, 0.02, 0.04, needed, True)
    assert ("not significant" in str(found)) == said
