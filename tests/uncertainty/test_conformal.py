import re
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import residua as rs
from residua.errors import IdError, InputError, LabelError, ParameterError, StorageError, TaskError


def classes(n, seed=0, width=4, spread=1.0):
    """Rows around `width` centres, and a base that sees one coordinate alone."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(width, size=n)
    keys = np.stack([np.cos(labels * 2.1), np.sin(labels * 2.1)], axis=1) * 1.5 + rng.normal(size=(n, 2)) * spread
    return rs.Encoded(keys, 2 * np.cos(np.arange(width) * 2.1) * keys[:, :1], labels)


def numbers(n, seed=0, outputs=1):
    """A line through a wave, noisier to the right."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, size=(n, 1))
    y = np.sin(2 * x) + rng.normal(size=(n, outputs)) * (0.1 + 0.4 * (x > 0))
    return rs.Encoded(x, np.repeat(0.1 * x, outputs, axis=1), y)


@pytest.fixture(scope="module")
def reader():
    return rs.ResMem(rs.Memory(classes(400)), k=30)


@pytest.fixture(scope="module")
def regressor():
    return rs.ResMem(rs.Memory(numbers(400)), k=20)


def test_sets_are_the_classes_that_fit_as_well_as_the_calibrating_truths(reader):
    calibration, test = classes(99, 1), classes(50, 2)
    truths = np.sort(1 - reader.predict_proba(calibration)[np.arange(99), calibration.labels])
    expected = 1 - reader.predict_proba(test) <= truths[89]
    sets = rs.conformal(reader, calibration).predict_set(test, confidence=0.9)
    assert (sets != expected).sum() <= 1  # one row may be on the edge, within rounding
    assert sets.shape == (50, 4) and sets.dtype == bool


def test_the_model_alone_stands_beside_and_is_the_reader_without_neighbours(reader):
    calibration, test = classes(200, 1), classes(200, 2)
    both = rs.conformal(reader, calibration).evaluate(test)
    alone = rs.conformal(reader.with_params(k=0), calibration).evaluate(test)
    assert (both.base_coverage, both.base_size, both.base_aurc) == (alone.coverage, alone.size, alone.aurc)
    assert both.size < both.base_size and both.aurc < both.base_aurc


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"score": "aps"}, {"by": "class"}, {"by": "distance"}], ids=str)
def test_sets_cover_at_the_rate_asked_for(how, reader):
    found = [
        rs.conformal(reader, classes(199, 10 + draw), **how, seed=draw).evaluate(classes(300, 500 + draw), 0.8)
        for draw in range(16)
    ]
    for of in ("coverage", "base_coverage"):
        covered = [getattr(one, of) for one in found]
        assert abs(np.mean(covered) - 0.8) < np.std(covered) + 0.01, of
    if how.get("by") == "class":
        for label in range(4):
            assert abs(np.mean([one.by_class()[label][1] for one in found]) - 0.8) < 0.04


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"score": "absolute"}, {"by": "distance"}], ids=str)
def test_intervals_cover_at_the_rate_asked_for(how, regressor):
    found = [rs.conformal(regressor, numbers(99, 10 + i), **how).evaluate(numbers(300, 500 + i)) for i in range(16)]
    covered = [one.coverage for one in found]
    assert abs(np.mean(covered) - 0.9) < np.std(covered) + 0.01
    assert np.mean([one.size for one in found]) < np.mean([one.base_size for one in found])


def test_intervals_are_as_wide_as_the_neighbours_residuals(regressor):
    sure = rs.conformal(regressor, numbers(200, 1))
    test = numbers(100, 2)
    ends, difficulty = sure.predict_interval(test), sure.difficulty(test)
    assert ends.shape == (100, 1, 2) and difficulty.shape == (100, 1)
    width = ends[..., 1] - ends[..., 0]
    assert_allclose(ends.mean(axis=2), regressor.predict(test), atol=1e-9)
    assert_allclose(width / difficulty, (width / difficulty)[0, 0], rtol=1e-9)
    memory, near = regressor.memory, regressor.memory.search(test.keys, 20)
    residuals = np.abs(memory.labels - memory.logits.dense().numpy())
    weights = np.exp(-near.distances.numpy() / regressor.sigma)
    expected = (weights / weights.sum(axis=1, keepdims=True) * residuals[near.rows.numpy(), 0]).sum(axis=1)
    assert_allclose(difficulty[:, 0], expected + residuals.mean(), rtol=1e-4)
    constant = rs.conformal(regressor, numbers(200, 1), score="absolute").predict_interval(test)
    assert np.ptp(constant[..., 1] - constant[..., 0]) < 1e-9


def test_each_of_several_outputs_has_its_interval():
    reader = rs.ResMem(rs.Memory(numbers(300, outputs=2)), k=20)
    sure = rs.conformal(reader, numbers(200, 1, outputs=2))
    test = numbers(200, 2, outputs=2)
    ends = sure.predict_interval(test)
    inside = (ends[..., 0] <= test.labels) & (test.labels <= ends[..., 1])
    assert ends.shape == (200, 2, 2) and (np.abs(inside.mean(axis=0) - 0.9) < 0.08).all()
    assert sure.evaluate(test).coverage == pytest.approx(inside.mean())


def test_flat_targets_have_flat_intervals():
    flat = rs.Encoded(*(lambda e: (e.keys, e.logits.dense()[:, 0], e.labels[:, 0]))(numbers(300)))
    sure = rs.conformal(rs.ResMem(rs.Memory(flat[:200]), k=5), flat[200:])
    assert sure.predict_interval(flat[:7]).shape == (7, 2) and sure.difficulty(flat[:7]).shape == (7,)


def test_answers_are_withheld_until_the_risk_is_kept(reader):
    sure, test = rs.conformal(reader, classes(2000, 1)), classes(2000, 2)
    said = sure.predict(test, risk=0.15)
    given = said >= 0
    assert 0.2 < given.mean() < 1 and (said != test.labels)[given].mean() < 0.15
    assert_array_equal(said[given], reader.predict(test)[given])
    assert (sure.predict(test, risk=0.99) == reader.predict(test)).all()
    with pytest.warns(UserWarning, match="vouch for no answer at risk=0.001: all are withheld. Calibrate on more"):
        assert (sure.predict(test, risk=0.001) == -1).all()


def test_rows_that_were_remembered_or_tuned_on_do_not_calibrate(reader):
    rows = classes(300, 3)
    with pytest.raises(InputError, match="300 of 300 calibration rows have a key that is remembered or was tuned on"):
        rs.conformal(reader, classes(400)[:300])
    best = rs.tune(reader, rows, progress=False)
    with pytest.raises(InputError, match="300 of 300"):
        rs.conformal(best, rows)
    with pytest.raises(InputError, match="calibrate on rows that were neither"):
        rs.conformal(best, [rows[:200], classes(100, 4)])
    with pytest.warns(UserWarning, match="40 of 540 calibration rows .* more than duplicates explain"):
        assert rs.conformal(best, [rows[:40], classes(500, 4)]).matches == 40
    rs.conformal(best, classes(300, 4))


def test_ids_that_were_remembered_or_tuned_on_are_refused():
    def named(rows, first):
        return rs.Encoded(rows.keys, rows.logits, rows.labels, ids=first + np.arange(len(rows)))

    reader = rs.ResMem(rs.Memory(named(classes(200), 0)), k=10)
    best = rs.tune(reader, named(classes(100, 1), 1000), progress=False)
    for first, what in ((199, "are remembered, such as \\[199\\]"), (1099, "were tuned on, such as \\[1099\\]")):
        with pytest.raises(IdError, match=f"1 ids of the calibration data {what}"):
            rs.conformal(best, named(classes(50, 2), first))
    assert rs.conformal(best, named(classes(50, 2), 5000)).matches == 0


def test_duplicates_in_honest_data_are_no_fault():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 30, size=(900, 2)).astype(float)
    enc = rs.Encoded(keys, np.zeros((900, 2)), (keys.sum(axis=1) + 5 * rng.normal(size=900) > 29).astype(int))
    best = rs.tune(rs.ResMem(rs.Memory(enc[:300]), k=5), enc[300:600], progress=False)
    assert 60 < rs.conformal(best, enc[600:]).matches < 200


def test_an_edited_memory_is_to_be_calibrated_again():
    memory = rs.Memory(classes(200))
    sure = rs.conformal(rs.ResMem(memory, k=10), classes(100, 1))
    memory.forget([0])
    for call in (sure.predict_set, sure.evaluate, lambda rows: sure.predict(rows, risk=0.5)):
        with pytest.warns(UserWarning, match="edited after this was calibrated, .* calibrate again"):
            call(classes(50, 2))


def test_too_few_rows_hold_everything_and_say_so(reader, regressor):
    sure = rs.conformal(reader, classes(8, 1))
    with pytest.warns(UserWarning, match="there are 8 to 8 calibrating rows, and confidence=0.9 needs 9"):
        assert sure.predict_set(classes(5, 2)).all()
    with pytest.warns(UserWarning, match="needs 9"):
        assert np.isinf(rs.conformal(regressor, numbers(1, 1)).predict_interval(numbers(3, 2))).all()
    one = classes(300, 1)
    by_class = rs.conformal(reader, one[one.labels != 2], by="class")
    with pytest.warns(UserWarning, match="1 classes have 0 to 0"):
        assert by_class.predict_set(classes(50, 2))[:, 2].all()
    with pytest.warns(UserWarning, match="groups by distance have"):
        rs.conformal(reader, classes(30, 1), by="distance").predict_set(classes(5, 2))


def test_degenerate_memories(reader):
    test, calibration = classes(50, 2), classes(60, 1)
    alone = rs.Memory(classes(400)[:1])
    for by in (None, "distance"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # groups of twelve
            assert rs.conformal(rs.ResMem(alone, k=1), calibration, by=by).predict_set(test).shape == (50, 4)
    alone.forget([0])
    assert rs.conformal(rs.ResMem(alone, k=0), calibration).evaluate(test).size > 0
    constant = rs.Encoded(np.ones((80, 2)), np.zeros((80, 4)), np.arange(80) % 4)
    found = rs.conformal(rs.ResMem(rs.Memory(constant), k=5, sigma=1.0), calibration, by="distance", score="aps")
    assert found.evaluate(test).by_distance
    skipping = rs.conformal(reader.with_params(skip=0.3), calibration)
    assert skipping.evaluate(test).by_distance == {}
    single = rs.Encoded(calibration.keys, calibration.logits, np.zeros(60, int))
    assert rs.conformal(reader, single).predict_set(test).shape == (50, 4)


def test_a_perfect_memory_measures_errors_in_ones():
    enc = rs.Encoded(np.arange(40.0)[:, None], np.arange(40.0), np.arange(40.0))
    sure = rs.conformal(rs.ResMem(rs.Memory(enc[::2]), k=3), enc[1::2])
    assert_array_equal(sure.difficulty(enc[:5]), 1)
    assert_allclose(sure.predict_interval(enc[:5]), enc.labels[:5, None] + [0, 0], atol=1e-6)


def test_labels_alone_have_intervals_of_one_width():
    data = numbers(300)
    reader = rs.KNNLM(rs.Memory(data[:200], storage="none"), k=10, lmbda=1.0)
    assert rs.conformal(reader, data[200:]).score == "absolute"
    with pytest.raises(StorageError, match="stores labels only"):
        rs.conformal(reader, data[200:], score="normalised")


def test_an_estimator_of_row_numbers(reader, regressor):
    test = classes(30, 2)
    told = rs.conformal(reader, classes(60, 1)).estimator(test)
    rows = np.array([[3], [0]])
    assert_array_equal(told.predict(rows), reader.predict(test)[[3, 0]])
    assert_allclose(told.predict_proba(rows), reader.predict_proba(test)[[3, 0]], atol=1e-6)
    assert told.classes_.tolist() == [0, 1, 2, 3] and told.fit(rows, [1, 1]) is told
    other = rs.conformal(regressor, numbers(60, 1)).estimator(numbers(30, 2))
    assert_array_equal(other.predict(rows), regressor.predict(numbers(30, 2))[[3, 0]])


def test_what_is_asked_wrongly_is_refused(reader, regressor):
    sets, intervals = rs.conformal(reader, classes(60, 1)), rs.conformal(regressor, numbers(60, 1))
    for call, error, words in (
        (lambda: rs.conformal(reader.memory, classes(60, 1)), ParameterError, "where a reader is expected"),
        (lambda: rs.conformal(reader, classes(60, 1), score="normalised"), ParameterError, "('lac', 'aps')"),
        (lambda: rs.conformal(regressor, numbers(60, 1), by="class"), ParameterError, "by='class' for a regression"),
        (lambda: rs.conformal(reader.with_params(skip=0.5), classes(60, 1), by="distance"), ParameterError, "skips"),
        (lambda: rs.conformal(reader, []), InputError, "hold no rows"),
        (lambda: rs.conformal(reader, rs.Encoded([[0.0, 1]], np.zeros((1, 4)))), LabelError, "no labels"),
        (lambda: sets.predict_interval(classes(3, 2)), TaskError, "call predict_set"),
        (lambda: intervals.predict_set(numbers(3, 2)), TaskError, "call predict_interval"),
        (lambda: intervals.predict(numbers(3, 2), risk=0.1), TaskError, "call predict_interval"),
        (lambda: sets.difficulty(classes(3, 2)), TaskError, "call predict_set"),
        (lambda: sets.predict_set(classes(3, 2), confidence=90), ParameterError, "confidence=90; expected"),
        (lambda: sets.predict(classes(3, 2), risk=0), ParameterError, "risk=0; expected"),
        (lambda: sets.evaluate([]), InputError, "hold no rows"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            call()
    several = rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), [[1, 1], [0, 1]])
    with pytest.raises(TaskError, match="several labels"):
        rs.conformal(rs.ResMem(rs.Memory(several), k=1), several)


def test_results_are_shown(reader, regressor):
    result = rs.conformal(reader, classes(200, 1), by="distance").evaluate(classes(200, 2))
    assert "farthest fifth" in str(result) and "classes in a set" in result._repr_html_()
    assert result.to_dict()["by_distance"]["nearest fifth"][1] == result.by_distance["nearest fifth"][1]
    assert repr(rs.conformal(regressor, numbers(20, 1))).endswith("normalised, calibrated on 20 rows)")
    assert "mean width" in str(rs.conformal(regressor, numbers(20, 1)).evaluate(numbers(20, 2)))
