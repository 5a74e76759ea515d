import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

import residua as rs
import residua.readers
from residua.core import Head, Source
from residua.errors import EmptyMemoryError, InputError, LabelError, ParameterError, SourceMismatchError
from residua.tuning import sweep
from residua.tuning.objective import Tally

GRID = {"k": [1, 3, 8, 20], "sigma": [0.05, 0.5, 3.0], "temperature": [0.3, 1.0, 4.0]}


def task(n, seed=0, d=3, classes=4, **extra):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, d))
    labels = (np.abs(keys[:, 0] * 2).astype(int) + (keys[:, 1] > 0)) % classes
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return rs.Encoded(keys, logits, labels, **extra)


def regression(n, seed=0):
    keys = np.random.default_rng(seed).normal(size=(n, 3))
    return rs.Encoded(keys, keys[:, 0], keys[:, 0] + np.sin(3 * keys[:, 1]))


def settings_of(best):
    """Every row of results_ as (params, measures)."""
    names = list(best.best_params_)
    for row in zip(*best.results_.values()):
        row = dict(zip(best.results_, row))
        yield {name: row[name].item() for name in names}, row


READERS = [
    lambda memory: rs.ResMem(memory, k=1),
    lambda memory: rs.ResMem(memory, k=1, kernel="gaussian"),
    lambda memory: rs.ResMem(memory, k=1, space="exponent"),
    lambda memory: rs.KNNLM(memory, k=1),
    lambda memory: rs.KNNLM(memory, k=1, kernel="exponential"),
]


@pytest.mark.slow
@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize("objective", ["accuracy", "log_loss"])
def test_every_setting_scores_as_the_reader_itself_does(make, objective):
    weight = np.random.default_rng(5).uniform(0, 2, 60).astype(np.float32)
    reader = make(rs.Memory(task(60, columns={"weight": weight})))
    val = task(40, seed=1)
    grid = {**GRID, **({"lmbda": [0.2, 0.7, 1.0]} if "lmbda" in reader.parameter_names() else {})}
    best = rs.tune(reader, val, grid, objective=objective, evidence=None)
    base_right = np.asarray(val.logits).argmax(axis=1) == val.labels
    for params, row in settings_of(best):
        one = reader.with_params(**params)
        right = one.predict(val) == val.labels
        assert row["accuracy"] == pytest.approx(right.mean())
        assert row["tpr"] == pytest.approx((right & ~base_right).mean())
        assert row["fpr"] == pytest.approx((base_right & ~right).mean())
        if objective == "log_loss":
            proba = one.predict_proba(val).astype(np.float64)
            expected = log_loss(val.labels, proba / proba.sum(axis=1, keepdims=True), labels=range(4))
            assert row["log_loss"] == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert row["score"] == -row["log_loss"]
    assert best.params == {**reader.params, **best.best_params_}
    assert best.best_score_ == best.results_["score"].max()


def test_regression_settings_score_as_the_reader_does():
    reader, val = rs.ResMem(rs.Memory(regression(80)), k=1), regression(30, seed=1)
    best = rs.tune(reader, val, {"k": GRID["k"], "sigma": GRID["sigma"]})
    for params, row in settings_of(best):
        error = np.square(reader.with_params(**params).predict(val) - val.labels).mean()
        assert row["squared_error"] == pytest.approx(error, rel=1e-5)
    assert best.best_params_["k"] > 0 and best.best_score_ < 0


def test_top_m_and_head_memories_tune_like_full_ones():
    rng = np.random.default_rng(0)
    head = Head(torch.from_numpy(rng.normal(size=(4, 3)).astype(np.float32)), torch.zeros(4))
    train, val = task(60), task(40, seed=1)
    train = rs.Encoded(train.keys, head(torch.from_numpy(train.keys)), train.labels, head=head)
    grid = {**GRID, "temperature": [1.0]}
    scores = [
        rs.tune(rs.ResMem(rs.Memory(train, storage=storage, m=4), k=1), val, grid).results_["accuracy"]
        for storage in ("full", "head", "top-m")
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])
    top = rs.ResMem(rs.Memory(train, storage="top-m", temperature=2.0), k=1, temperature=2.0)
    assert set(rs.tune(top, val).results_["temperature"]) == {2.0}


def test_no_memory_always_competes_and_wins_ties():
    memory = rs.Memory(task(50))
    val = task(30, seed=1)
    perfect = rs.Encoded(val.keys, 20 * np.eye(4)[val.labels], val.labels)
    best = rs.tune(rs.ResMem(memory, k=5), perfect, GRID, objective="accuracy")
    assert best.k == 0 and best.best_score_ == 1.0
    np.testing.assert_array_equal(best.predict(perfect), perfect.labels)
    losses = rs.tune(rs.ResMem(memory, k=5), val, GRID, objective="log_loss").results_
    assert (losses["k"] == 0).sum() == len(GRID["temperature"])


def test_the_conservative_rule_keeps_fpr_under_its_bound():
    memory, val = rs.Memory(task(200)), task(150, seed=1)
    free = rs.tune(rs.ResMem(memory, k=1), val, GRID, objective="accuracy")
    bound = rs.tune(rs.ResMem(memory, k=1), val, GRID, objective="conservative", max_fpr=0.02, evidence=None)
    r = bound.results_
    assert bound.best_score_ == r["tpr"][r["fpr"] < 0.02].max()
    assert free.results_["fpr"].max() >= 0.02
    nothing = rs.tune(rs.ResMem(memory, k=1), val, GRID, objective="conservative", max_fpr=0.0)
    assert nothing.k == 0


def test_validation_rows_in_the_memory_are_left_out_by_id_and_only_by_id():
    train = task(80)
    train = rs.Encoded(train.keys, np.zeros((80, 4)), np.random.default_rng(3).integers(0, 4, 80), np.arange(80))
    memory = rs.Memory(train)
    without_ids = rs.Encoded(train.keys, train.logits, train.labels)
    assert (
        rs.tune(rs.ResMem(memory, k=1), without_ids, GRID, objective="accuracy", evidence=None).best_score_ == 1.0
    )  # each row finds itself
    honest = rs.tune(rs.ResMem(memory, k=1), train, GRID, objective="accuracy")
    assert honest.best_score_ < 0.6
    for params, row in settings_of(honest):
        right = memory_reader(memory, params).predict(train) == train.labels
        assert row["accuracy"] == pytest.approx(right.mean())


def memory_reader(memory, params):
    return rs.ResMem(memory, k=1).with_params(**params)


def test_batches_tune_like_the_whole():
    reader, val = rs.ResMem(rs.Memory(task(60)), k=1), task(41, seed=1)
    whole, parts = rs.tune(reader, val, GRID), rs.tune(reader, iter([val[:7], val[7:8], val[8:]]), GRID)
    for name, values in whole.results_.items():
        np.testing.assert_allclose(values, parts.results_[name], rtol=1e-6)


def test_default_grids_follow_the_memory():
    memory = rs.Memory(task(60))
    results = rs.tune(rs.ResMem(memory, k=1), task(10, seed=1)).results_
    assert results["k"].max() <= 60 and results["k"].min() == 0
    widths = np.unique(results["sigma"][results["k"] > 0])
    assert widths.min() == pytest.approx(memory.median_nn_distance() / 16) and len(widths) == 15
    scaled = rs.Memory(rs.Encoded(1000 * task(60).keys, task(60).logits, task(60).labels))
    again = rs.tune(rs.ResMem(scaled, k=1), task(10, seed=1), {"k": [3]}).results_
    assert np.unique(again["sigma"]).max() == pytest.approx(8000 * memory.median_nn_distance(), rel=1e-3)


def test_torch_keeps_its_threads_whatever_happens(monkeypatch):
    before = torch.get_num_threads()
    reader = rs.ResMem(rs.Memory(task(60)), k=1)
    monkeypatch.setattr(Tally, "count", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        rs.tune(reader, task(10, seed=1), GRID)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "grid, objective, error, says",
    [
        ({"k": [5, 100]}, None, ParameterError, "60 rows"),
        ({"sigma": [0.0]}, None, ParameterError, "sigma"),
        ({"sigma": []}, None, ParameterError, "empty"),
        ({"temperature": [np.nan]}, None, ParameterError, "finite"),
        ({"lmbda": [0.5]}, None, ParameterError, "lmbda"),
        ({"k": [-1]}, None, ParameterError, "k < 0"),
        (None, "f1", ParameterError, "f1"),
        (None, "squared_error", ParameterError, "classification"),
    ],
)
def test_bad_grids_and_objectives_say_so(grid, objective, error, says):
    with pytest.raises(error, match=says):
        rs.tune(rs.ResMem(rs.Memory(task(60)), k=1), task(10, seed=1), grid, objective=objective)


def test_bad_validation_data_say_so():
    memory = rs.Memory(task(60, source=Source("A", "fc")))
    reader = rs.ResMem(memory, k=1)
    val = task(10, seed=1)
    with pytest.raises(LabelError, match="no labels"):
        rs.tune(reader, rs.Encoded(val.keys, val.logits))
    with pytest.raises(InputError, match="no rows"):
        rs.tune(reader, val[:0])
    with pytest.raises(SourceMismatchError):
        rs.tune(reader, task(10, seed=1, source=Source("A", "layer4")))
    memory.forget(memory.ids)
    with pytest.raises(EmptyMemoryError):
        rs.tune(reader, val)


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_the_best_is_never_worse_than_the_base(seed):
    memory, val = rs.Memory(task(30, seed=seed)), task(20, seed=seed + 1)
    best = rs.tune(
        rs.ResMem(memory, k=1), val, {"k": [1, 4], "sigma": [0.1, 1.0], "temperature": [1.0]}, objective="accuracy"
    )
    assert best.best_score_ >= (np.asarray(val.logits).argmax(axis=1) == val.labels).mean()


class Attention(rs.readers.NeighbourReader):
    """Weights of its own, which see the query; a parameter of its own; not registered."""

    def __init__(self, memory, k=None, beta=1.0, lmbda=0.5):
        super().__init__(memory, k, 1.0, 1.0, "gaussian")
        self.beta, self.lmbda = float(beta), float(lmbda)

    def weights(self, neighbours, queries):
        found = self.memory.keys_at(neighbours.rows.clamp_min(0))
        alike = (found @ queries.keys[:, :, None].float())[:, :, 0].masked_fill(~neighbours.found, -torch.inf)
        return torch.softmax(self.beta * alike, dim=1)

    def share(self, neighbours, queries):
        return 1 - self.lmbda, self.lmbda

    def values(self, queries):
        return rs.core.LabelValues(self.memory.column("label"))


@pytest.mark.parametrize("objective", ["accuracy", "log_loss"])
def test_a_reader_of_ones_own_is_swept_by_its_own_arithmetic(objective):
    reader, val = Attention(rs.Memory(task(60)), k=1), task(40, seed=1)
    best = rs.tune(reader, val, {"k": [2, 9], "beta": [0.1, 2.0], "lmbda": [0.2, 0.9]}, objective=objective)
    assert len(best.results_["k"]) == 1 + 2 * 2 * 2 and isinstance(best, Attention)
    base_right = np.asarray(val.logits).argmax(axis=1) == val.labels
    for params, row in settings_of(best):
        one = reader.with_params(**params)
        right = one.predict(val) == val.labels
        assert (row["accuracy"], row["tpr"]) == pytest.approx((right.mean(), (right & ~base_right).mean()))
        if objective == "log_loss":
            picked = one.predict_proba(val)[np.arange(len(val)), val.labels].astype(np.float64)
            assert row["log_loss"] == pytest.approx(-np.log(picked).mean(), rel=1e-5)
    assert {name: best.params[name] for name in best.best_params_} == best.best_params_


class Renamed(rs.KNNLM):
    """kNN-LM by another class: its arithmetic is the same, and nothing says so."""

    def weights(self, neighbours, queries):
        return super().weights(neighbours, queries)


@pytest.mark.parametrize(("objective", "skip"), [("accuracy", None), ("log_loss", None), ("log_loss", 0.6)])
def test_the_slow_way_and_the_quick_way_agree(objective, skip):
    memory, val = rs.Memory(task(60)), task(40, seed=1)
    grid = {**GRID, "lmbda": [0.2, 0.7]}
    quick = rs.tune(rs.KNNLM(memory, k=1, skip=skip), val, grid, objective=objective).results_
    slow = rs.tune(Renamed(memory, k=1, skip=skip), val, grid, objective=objective).results_
    for name in quick:
        np.testing.assert_allclose(quick[name], slow[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [rs.ResMem, rs.KNNLM])
def test_neither_blocks_nor_what_is_kept_are_seen(make, monkeypatch):
    reader, val = make(rs.Memory(task(60)), k=1), task(40, seed=1, ids=1000 + np.arange(40) // 2)
    usual = rs.tune(reader, val, GRID, objective="accuracy")
    monkeypatch.setattr(sweep, "BLOCK", 1)  # row by row
    monkeypatch.setattr(sweep, "KEPT", 1)  # so that all rows are searched once more
    again = rs.tune(reader, val, GRID, objective="accuracy")
    assert usual.evidence_ == again.evidence_ and usual.params == again.params
    for name, values in usual.results_.items():
        np.testing.assert_array_equal(values, again.results_[name])


def test_a_kernel_can_be_in_the_grid():
    best = rs.tune(
        rs.ResMem(rs.Memory(task(60)), k=1), task(40, seed=1), {"kernel": ["gaussian", "exponential"], **GRID}
    )
    alone = rs.tune(rs.ResMem(rs.Memory(task(60)), k=1, kernel=best.kernel), task(40, seed=1), GRID)
    assert best.best_score_ == pytest.approx(alone.best_score_, rel=1e-6) and set(best.results_["kernel"]) == {
        "gaussian",
        "exponential",
    }


@pytest.mark.slow
def test_more_rows_than_are_searched_at_once_tune_like_their_parts():
    memory, val = rs.Memory(task(50)), task(2500, seed=1)
    for objective in ("accuracy", "log_loss"):
        for reader in (rs.ResMem(memory, k=1), rs.KNNLM(memory, k=1)):
            grid = {"k": [3], "sigma": [0.5], "temperature": [1.0]}
            whole = rs.tune(reader, val, grid, objective=objective).results_
            parts = rs.tune(reader, (val[i : i + 101] for i in range(0, 2500, 101)), grid, objective=objective).results_
            for name, values in whole.items():
                np.testing.assert_allclose(values, parts[name], rtol=1e-5)


def test_searches_are_skipped_and_shares_adapt_for_classifiers_too():
    train, val = task(300), task(200, seed=1)
    memory = rs.Memory(train)
    for reader in (rs.ResMem(memory), rs.KNNLM(memory)):
        grid = {"k": [20], "sigma": [1.0], "temperature": [1.0]} | ({"lmbda": [0.4]} if reader.k > 50 else {})
        free = rs.tune(reader, val, grid, objective="log_loss")
        best = rs.tune(reader, val, grid, skip=0.01)
        assert free.k == best.k == 20 and 0 < best.skipped_ < 1
        picked = best.predict_proba(val)[np.arange(len(val)), val.labels].astype(np.float64)
        assert best.best_score_ == pytest.approx(np.log(picked).mean(), rel=1e-5)
        assert best.best_score_ >= free.best_score_ - np.log(1.01)
    adapted = rs.tune(rs.KNNLM(memory), val, grid, adaptive=3)
    assert set(adapted.adaptive_) == {"fixed", "adaptive"}
    once = rs.tune(rs.ResMem(memory), iter([val]), {"k": [20]}, skip=0.01)  # read more than once all the same
    assert once.params == rs.tune(rs.ResMem(memory), val, {"k": [20]}, skip=0.01).params


def test_what_is_no_reader_says_so():
    memory = rs.Memory(task(20))
    with pytest.raises(ParameterError, match="got a Memory where a reader is expected"):
        rs.tune(memory, task(10, seed=1))
