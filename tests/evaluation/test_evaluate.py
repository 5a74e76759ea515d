"""Numbers worked by hand, then against NumPy and scikit-learn, then what must always hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score

import residua as rs
from residua.core import LabelValues
from residua.errors import EmptyMemoryError, IdError, InputError, LabelError, ParameterError, ShapeError, TaskError
from residua.evaluation import expected_calibration_error
from residua.readers.neighbour import NeighbourReader


def made(n, seed, classes=4, sharpness=1.0):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 3))
    labels = np.abs(keys).argmax(axis=1) % classes
    logits = sharpness * (0.8 * np.eye(classes)[labels] + rng.normal(size=(n, classes)))
    return rs.Encoded(keys, logits, labels)


def made_regression(n, seed, outputs=2):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    targets = np.stack([np.sin(2 * keys[:, 0]), keys[:, 1] ** 2], axis=1)[:, :outputs]
    predictions = 0.3 * keys[:, :outputs]
    return rs.Encoded(keys, predictions, targets) if outputs > 1 else rs.Encoded(keys, predictions[:, 0], targets[:, 0])


@pytest.fixture(scope="module")
def pair():
    return rs.Memory(made(80, 0)), made(60, 1)


def test_by_hand():
    # One neighbour, so ResMem says the label of the nearest key; the base says class 0 everywhere (a tie).
    memory = rs.Memory(rs.Encoded([[0.0], [1.0], [2.0]], np.zeros((3, 3)), [0, 1, 1]))
    test = rs.Encoded([[0.1], [0.9], [1.8], [1.1], [2.2]], np.zeros((5, 3)), [0, 1, 1, 0, 2])
    result = rs.evaluate(rs.ResMem(memory, k=1, sigma=1.0), test)
    assert (result.n, result.base_accuracy, result.accuracy) == (5, 2 / 5, 3 / 5)
    assert (result.tpr, result.fpr) == (2 / 5, 1 / 5)
    assert result.gain == pytest.approx(1 / 5)
    assert result.row_gain.tolist() == [0, 1, 1, -1, 0]
    assert result.p_value == 1  # 2 against 1
    assert result.support.tolist() == [2, 2, 1]
    assert result.per_class_gain.tolist() == [-1 / 2, 1, 0]
    assert result.base_log_loss == pytest.approx(np.log(3))
    assert result.base_ece == pytest.approx(2 / 5 - 1 / 3, abs=1e-6)
    # onehot, floored at epsilon * p = 1/9 and renormalised: (9, 1, 1) / 11
    assert result.log_loss == pytest.approx(-(3 * np.log(9 / 11) + 2 * np.log(1 / 11)) / 5, rel=1e-6)
    assert result.ece == pytest.approx(9 / 11 - 3 / 5, abs=1e-6)
    assert result.label_knn == 3 / 5
    assert result.label_knn_tuned is None
    assert not result.significant


@pytest.mark.parametrize("reader", [rs.ResMem, rs.KNNLM])
def test_classification_is_what_the_public_methods_say(pair, reader):
    memory, test = pair
    reader = reader(memory, k=7, temperature=1.3)
    result = rs.evaluate(reader, test)
    logits = test.logits.dense().numpy().astype(np.float64)
    said = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    now = reader.predict_proba(test)
    base_right, right = logits.argmax(axis=1) == test.labels, reader.predict(test) == test.labels
    assert result.base_accuracy == accuracy_score(test.labels, logits.argmax(axis=1))
    assert result.accuracy == accuracy_score(test.labels, reader.predict(test))
    assert result.tpr == (~base_right & right).mean()
    assert result.fpr == (base_right & ~right).mean()
    assert result.base_log_loss == pytest.approx(log_loss(test.labels, said, labels=range(4)), rel=1e-5)
    assert result.log_loss == pytest.approx(-np.log(now[np.arange(60), test.labels]).mean(), rel=1e-5)
    assert result.base_ece == pytest.approx(expected_calibration_error(said.max(axis=1), base_right), abs=1e-5)
    assert result.ece == pytest.approx(expected_calibration_error(now.max(axis=1), right), abs=1e-5)
    for c in range(4):
        inside = test.labels == c
        expected = right[inside].mean() - base_right[inside].mean() if inside.any() else np.nan
        np.testing.assert_allclose(result.per_class_gain[c], expected, atol=1e-12)
    label_knn = rs.KNNLM(memory, k=7, lmbda=1.0, sigma=reader.sigma, kernel=reader.kernel)
    assert result.label_knn == accuracy_score(test.labels, label_knn.predict(test))


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression_is_sklearns(outputs):
    memory, test = rs.Memory(made_regression(80, 0, outputs)), made_regression(50, 1, outputs)
    reader = rs.ResMem(memory, k=5)
    result = rs.evaluate(reader, test, validation=made_regression(30, 2, outputs))
    base = test.logits.dense().numpy().reshape(test.labels.shape)
    now = reader.predict(test)
    assert result.base_mse == pytest.approx(mean_squared_error(test.labels, base), rel=1e-5)
    assert result.mse == pytest.approx(mean_squared_error(test.labels, now), rel=1e-5)
    assert result.gain == pytest.approx(result.base_mse - result.mse)
    assert result.gain_interval[0] < result.gain < result.gain_interval[1]
    assert result.p_value == pytest.approx(1 / 2001)  # far better: no random signs reach it
    weighted = {"multioutput": "variance_weighted"}
    assert result.base_r2 == pytest.approx(r2_score(test.labels, base, **weighted), abs=1e-4)
    assert result.r2 == pytest.approx(r2_score(test.labels, now, **weighted), abs=1e-4)
    knn = rs.KNNLM(memory, k=5, lmbda=1.0, sigma=reader.sigma, kernel=reader.kernel).predict(test)
    assert result.label_knn == pytest.approx(mean_squared_error(test.labels, knn), rel=1e-5)
    knn = rs.KNNLM(memory, lmbda=1.0, **result.label_knn_params).predict(test)
    assert result.label_knn_tuned == pytest.approx(mean_squared_error(test.labels, knn), rel=1e-5)
    assert result.tpr is result.base_ece is result.per_class_gain is None
    better = ((now - test.labels) ** 2 < (base - test.labels) ** 2) if outputs == 1 else None
    if better is not None:
        assert result.improved == pytest.approx(better.mean())
    assert result.improved + result.worsened <= 1


def test_constant_targets_have_no_r2():
    memory = rs.Memory(made_regression(20, 0, 1))
    result = rs.evaluate(rs.ResMem(memory, k=3), rs.Encoded(np.zeros((2, 2)), np.ones(2), np.zeros(2)))
    assert np.isnan(result.base_r2)
    assert result.to_dict()["base_r2"] is None


def test_batches_are_the_whole(pair):
    memory, test = pair
    reader = rs.ResMem(memory, k=7)
    whole = rs.evaluate(reader, test, validation=made(30, 2))
    parts = rs.evaluate(reader, iter([test[:20], test[20:20], test[20:]]), validation=iter([made(30, 2)]))
    row_gain, parts = parts.row_gain, parts.to_dict()
    assert parts.pop("base_tokens_per_second") > parts.pop("tokens_per_second") > 0  # made while evaluating
    assert whole.tokens_per_second is whole.base_tokens_per_second is None
    np.testing.assert_array_equal(row_gain, whole.row_gain)
    for name in parts:
        value = whole.to_dict()[name]
        close = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
        assert parts[name] == close, name


def test_tuned_label_knn_is_reported(pair):
    memory, test = pair
    result = rs.evaluate(rs.ResMem(memory, k=3), test, validation=made(40, 5))
    voter = rs.KNNLM(memory, lmbda=1.0, **result.label_knn_params)
    assert result.label_knn_tuned == accuracy_score(test.labels, voter.predict(test))


def with_ids(enc, ids):
    return rs.Encoded(enc.keys, enc.logits, enc.labels, ids)


def test_excluded_rows_do_not_help(pair):
    memory, _ = pair
    reader, seen, own = rs.ResMem(memory, k=1), made(80, 0), np.arange(80)
    assert rs.evaluate(reader, seen).accuracy == 1
    blind = rs.evaluate(reader, [seen[:33], seen[33:]], exclude=own)  # the array goes over the batches' edges
    assert blind.accuracy == (reader.predict(seen, exclude=own) == seen.labels).mean() < 1
    named = with_ids(seen, own)
    assert rs.evaluate(reader, named).accuracy == blind.accuracy  # "own" is the default
    assert rs.evaluate(reader, named, exclude=None).accuracy == 1


def test_exact_matches_are_counted_and_a_gain_that_rests_on_them_is_not_certified():
    rng = np.random.default_rng(0)  # labels are noise: only remembered rows look good
    rows = rs.Encoded(rng.normal(size=(60, 3)), rng.normal(size=(60, 4)), rng.integers(0, 4, 60))
    reader = rs.ResMem(rs.Memory(rows[:40]), k=3, sigma=0.01)
    leak = rs.evaluate(reader, rows[20:])
    assert leak.exact_matches == 20
    assert leak.gain > 0.3 and leak.p_value < 0.01
    assert leak.rests_on_matches and not leak.significant
    assert "20 of 40 rows" in leak.verdict and "leak" in leak.verdict
    all_seen = rs.evaluate(reader, rows[:40])
    assert all_seen.exact_matches == 40 and not all_seen.significant
    blind = rs.evaluate(reader, rows[:40], exclude=np.arange(40))
    assert blind.exact_matches == 0 and not blind.rests_on_matches


def test_a_gain_that_stands_without_exact_matches_is_significant():
    memory, test = rs.Memory(made(400, 0)), made(300, 1)
    both = [test, made(400, 0)[:1]]
    result = rs.evaluate(rs.ResMem(memory, k=9), both)
    assert result.exact_matches == 1
    assert result.helps and result.significant and not result.rests_on_matches


def test_rows_that_are_skipped_match_nothing():
    rows = rs.Encoded(np.eye(3), np.diag([9.0, 0.0, 0.0]), [0, 1, 2])  # the base is sure of the first
    result = rs.evaluate(rs.ResMem(rs.Memory(rows), k=1, skip=0.9), rows)
    assert result.exact_matches == 2
    assert result.accuracy == 1
    assert result.label_knn == 1


@pytest.mark.parametrize("make", [made, made_regression])
def test_k_zero_is_the_base(make):
    memory, test = rs.Memory(make(20, 0)), make(30, 1)
    result = rs.evaluate(rs.ResMem(memory, k=0, temperature=2.0), test, validation=make(10, 2))
    assert result.gain == 0
    assert result.p_value == 1
    assert result.label_knn is None
    assert result.label_knn_tuned is not None


def test_a_memory_without_logits_is_read_by_its_labels(pair):
    _, test = pair
    memory = rs.Memory(made(80, 0), storage="none")
    result = rs.evaluate(rs.KNNLM(memory, k=9, lmbda=1.0), test)
    assert result.accuracy == result.label_knn


def test_same_seed_same_result(pair):
    memory, test = pair
    reader = rs.ResMem(memory, k=7)
    one, two, other = (rs.evaluate(reader, test, seed=seed, n_bootstrap=7).gain_interval for seed in (0, 0, 1))
    assert one == two != other


@pytest.mark.slow
@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 6), st.integers(0, 12))
def test_gain_is_tpr_less_fpr_is_memory_less_base(seed, n, classes, k):
    memory = rs.Memory(made(12, seed, classes, sharpness=3.0))
    result = rs.evaluate(rs.ResMem(memory, k=k), made(n, seed + 1, classes, sharpness=3.0), n_bootstrap=50)
    assert result.gain == result.tpr - result.fpr == pytest.approx(result.accuracy - result.base_accuracy, abs=1e-12)
    present = result.support > 0
    assert result.support.sum() == n
    total = (result.per_class_gain[present] * result.support[present]).sum() / n
    assert total == pytest.approx(result.gain, abs=1e-12)
    assert np.isnan(result.per_class_gain[~present]).all()
    assert result.gain_interval is None if n == 1 else result.gain_interval[0] <= result.gain_interval[1]
    assert 0 < result.p_value <= 1
    assert 0 <= result.base_ece <= 1
    assert 0 <= result.ece <= 1
    assert np.isfinite([result.base_log_loss, result.log_loss]).all()
    assert result.perplexity == pytest.approx(np.exp(result.log_loss))
    assert result.perplexity_ratio == pytest.approx(result.perplexity / result.base_perplexity)


def test_bad_input_is_refused(pair):
    memory, test = pair
    reader = rs.ResMem(memory, k=3)
    with pytest.raises(ParameterError, match="Memory where a reader"):
        rs.evaluate(memory, test)
    for confidence in (0, 1, 95):
        with pytest.raises(ParameterError, match="confidence"):
            rs.evaluate(reader, test, confidence=confidence)
    for n_bootstrap in (0, 1.5, True):
        with pytest.raises(ParameterError, match="n_bootstrap"):
            rs.evaluate(reader, test, n_bootstrap=n_bootstrap)
    with pytest.raises(LabelError):
        rs.evaluate(reader, rs.Encoded(test.keys, test.logits))
    with pytest.raises(LabelError):
        rs.evaluate(reader, test, validation=rs.Encoded(test.keys, test.logits))
    with pytest.raises(InputError, match="no rows"):
        rs.evaluate(reader, test[:0])
    with pytest.raises(TaskError):
        rs.evaluate(reader, made_regression(5, 0))
    for wrong in (59, 61):
        with pytest.raises(IdError):
            rs.evaluate(reader, test, exclude=np.arange(wrong))
    with pytest.raises(ParameterError, match="exclude='mine'"):
        rs.evaluate(reader, test, exclude="mine")
    for groups in ("documents", np.zeros(60), np.zeros((60, 1), int)):
        with pytest.raises(ParameterError, match="groups="):
            rs.evaluate(reader, test, groups=groups)
    with pytest.raises(ShapeError, match="59 entries for 60 rows"):
        rs.evaluate(reader, test, groups=np.arange(59))
    with pytest.raises(IdError, match="without ids"):
        rs.evaluate(reader, test, groups="ids")
    with pytest.raises(ParameterError, match="label_knn=False"):
        rs.evaluate(reader, test, validation=test, label_knn=False)
    with pytest.raises(InputError, match="ndarray"):
        rs.evaluate(reader, test.keys)


def test_an_empty_memory_is_refused():
    memory = rs.Memory(made(4, 0))
    reader = rs.ResMem(memory, k=2, sigma=1.0)
    memory.forget(memory.ids)
    with pytest.raises(EmptyMemoryError):
        rs.evaluate(reader, made(3, 1))


def test_groups_are_resampled_whole(pair):
    memory, test = pair
    reader, group = rs.ResMem(memory, k=7), np.arange(60) // 5
    change = (reader.predict(test) == test.labels) - (test.logits.argmax().numpy() == test.labels).astype(float)
    grouped = rs.evaluate(reader, test, groups=group, n_bootstrap=4000)
    by_ids = rs.evaluate(reader, with_ids(test, 1000 + group), n_bootstrap=4000)
    assert (grouped.n, grouped.n_groups) == (60, 12)
    assert grouped.gain == pytest.approx(change.mean())
    assert by_ids.to_dict() == grouped.to_dict()  # ids that repeat say the same
    sums = change.reshape(12, 5).sum(axis=1)
    drawn = sums[np.random.default_rng(1).integers(0, 12, (20_000, 12))].sum(axis=1) / 60
    np.testing.assert_allclose(
        grouped.gain_interval, np.quantile(drawn, [0.025, 0.975]), atol=1.001 / 60
    )  # one step of the lattice
    signs = np.random.default_rng(2).choice([-1, 1], size=(20_000, 12))
    assert grouped.p_value == pytest.approx((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).mean(), abs=0.03)
    assert "randomisation test over 12 groups" in grouped.verdict
    assert "60 test points in 12 groups" in str(grouped)


def test_groups_of_different_sizes_keep_the_mean_over_rows(pair):
    memory, test = pair
    group = np.repeat([3, 1, 2], [40, 15, 5])
    result = rs.evaluate(rs.ResMem(memory, k=7), test, groups=group)
    assert result.n_groups == 3
    assert result.gain == rs.evaluate(rs.ResMem(memory, k=7), test).gain
    assert result.gain_interval[0] <= result.gain <= result.gain_interval[1]


def test_rows_stand_alone_where_ids_do_not_repeat_or_it_is_said(pair):
    memory, test = pair
    reader, alone = rs.ResMem(memory, k=7), rs.evaluate(rs.ResMem(memory, k=7), test).to_dict()
    assert rs.evaluate(reader, with_ids(test, 1000 + np.arange(60))).to_dict() == alone
    assert rs.evaluate(reader, with_ids(test, 1000 + np.arange(60) // 2), groups="rows").to_dict() == alone
    assert rs.evaluate(reader, test, groups=np.arange(60)).to_dict() == alone
    assert "McNemar" in rs.evaluate(reader, test).verdict


def test_copies_of_rows_tell_no_more_than_the_rows(pair):
    memory, test = pair
    reader, group = rs.ResMem(memory, k=7), np.arange(60)
    once = rs.evaluate(reader, test, groups=np.arange(60) // 3)
    thrice = rs.evaluate(reader, [test] * 3, groups=np.tile(group // 3, 3))
    assert (thrice.n, thrice.n_groups) == (180, 20)
    assert thrice.gain_interval == pytest.approx(once.gain_interval)
    assert thrice.p_value == once.p_value
    assert rs.evaluate(reader, [test] * 3).p_value < rs.evaluate(reader, test).p_value  # what pretending would give


def test_one_group_says_nothing_about_others(pair):
    memory, test = pair
    result = rs.evaluate(rs.ResMem(memory, k=7), test, groups=np.zeros(60, int))
    assert result.gain_interval is None
    assert result.p_value == 1 and not result.significant
    assert "interval" not in str(result)


def test_regression_in_groups():
    memory, test = rs.Memory(made_regression(80, 0)), made_regression(60, 1)
    reader, group = rs.ResMem(memory, k=5), np.arange(60) // 6
    alone, grouped = (rs.evaluate(reader, test, groups=groups) for groups in (None, group))
    assert grouped.gain == alone.gain and grouped.mse == alone.mse
    assert grouped.n_groups == 10
    assert grouped.gain_interval[0] < grouped.gain < grouped.gain_interval[1]
    assert grouped.p_value == pytest.approx(2 / 2**10, abs=0.002)  # better in every group
    assert "10 groups" in grouped.verdict


def test_label_knn_can_be_left_out(pair):
    memory, test = pair
    result = rs.evaluate(rs.ResMem(memory, k=7), test, label_knn=False)
    assert result.label_knn is None and "label k-NN" not in str(result)
    assert result.accuracy == rs.evaluate(rs.ResMem(memory, k=7), test).accuracy


def test_a_reader_made_from_scratch_is_evaluated(pair):
    memory, test = pair

    class Nearest(NeighbourReader):
        def __init__(self, memory, k=3):
            super().__init__(memory, k, None, 1.0, "exponential")

        def values(self, queries):
            return LabelValues(self.memory.column("label"))

        def share(self, neighbours, queries):
            return 0.0, 1.0

    result = rs.evaluate(Nearest(memory), test)
    assert result.accuracy == (Nearest(memory).predict(test) == test.labels).mean() == result.label_knn
    assert result.params == {"k": 3}


def test_one_saturated_row_does_not_make_the_log_loss_infinite(pair):
    memory, test = pair
    logits = test.logits.dense().clone()
    logits[0] = 0.0
    logits[0, (test.labels[0] + 1) % 4] = 1000.0  # probability 0 of the truth, in float32
    sure = rs.Encoded(test.keys, logits, test.labels)
    least = -np.log(np.finfo(np.float32).tiny)
    for k in (0, 7):
        result = rs.evaluate(rs.ResMem(memory, k=k), sure)
        assert np.isfinite(result.log_loss)
        assert result.base_log_loss == pytest.approx(
            (least + rs.evaluate(rs.ResMem(memory, k=0), sure[1:]).base_log_loss * 59) / 60, rel=1e-5
        )


def test_rows_of_a_remembered_id_are_counted_as_remembered():
    rng = np.random.default_rng(0)  # labels are noise: only other views of the same examples look good
    keys, labels = rng.normal(size=(40, 3)), rng.integers(0, 4, 40)
    memory = rs.Memory(rs.Encoded(keys, rng.normal(size=(40, 4)), labels, np.arange(40)))
    views = rs.Encoded(keys + 1e-3, rng.normal(size=(40, 4)), labels, np.arange(40))
    leak = rs.evaluate(rs.ResMem(memory, k=3, sigma=0.01), views, exclude=None, groups="rows")
    assert leak.exact_matches == 40 and leak.gain > 0.3 and not leak.significant and "leak" in leak.verdict
    assert rs.evaluate(rs.ResMem(memory, k=3, sigma=0.01), views, groups="rows").exact_matches == 0


@pytest.mark.parametrize("make", [made, made_regression])
def test_an_interval_of_few_groups_says_so(make):
    memory, test = rs.Memory(make(200, 0)), make(90, 1)
    few = rs.evaluate(rs.ResMem(memory, k=9), test, groups=np.repeat(np.arange(9), 10))
    assert "of only 9 groups, so it may well be too narrow" in str(few)
    assert "only" not in str(rs.evaluate(rs.ResMem(memory, k=9), test, groups=np.repeat(np.arange(10), 9)))
