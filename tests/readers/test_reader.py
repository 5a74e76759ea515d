"""What all readers share: batches, no memory, exclusion, probabilities, parameters."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import residua as rs
from residua.core import Source
from residua.errors import IdError, InputError, ParameterError, ShapeError, SourceMismatchError, TaskError
from residua.readers import register_reader

READERS = {
    "resmem": lambda memory, **p: rs.ResMem(memory, **p),
    "resmem exponent": lambda memory, **p: rs.ResMem(memory, space="exponent", **p),
    "knnlm": lambda memory, **p: rs.KNNLM(memory, **p),
    "label k-NN": lambda memory, **p: rs.KNNLM(memory, lmbda=1, **p),
}


def made(n, seed, classes=4, scale=2.0, **more):
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(n, classes))
    return rs.Encoded(rng.normal(size=(n, 3)), logits, rng.integers(0, classes, n), **more)


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def memory():
    return rs.Memory(made(150, 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("k", [1, 7, 150])
def test_batches_are_one_answer(name, k, memory):
    enc = made(23, 1)
    whole, proba = READERS[name](memory, k=k).scores(enc), READERS[name](memory, k=k).predict_proba(enc)
    assert (whole.shape, whole.dtype, proba.dtype) == ((23, 4), np.float32, np.float32)
    reader = READERS[name](memory, k=k)
    one_by_one = np.concatenate([reader.scores(enc[i]) for i in range(23)])
    in_parts = reader.scores(enc[a : a + 5] for a in range(0, 25, 5))
    for other in (one_by_one, in_parts):
        np.testing.assert_allclose(other, whole, rtol=0, atol=2e-6)
    np.testing.assert_allclose(reader.predict_proba([enc[:9], enc[9:]]), proba, rtol=0, atol=2e-6)
    assert reader.predict([enc[:9], enc[9:]]).tolist() == whole.argmax(axis=1).tolist()
    assert reader.predict(enc).dtype == np.int64


@pytest.mark.parametrize("name", READERS)
def test_more_rows_than_are_searched_at_once(name, memory):
    enc, reader = made(2100, 1), READERS[name](memory, k=7)
    ids = np.arange(2100) % 150
    for exclude in (None, ids):
        whole, part = reader.scores(enc, exclude), slice(2040, 2060)
        given = None if exclude is None else ids[part]
        np.testing.assert_allclose(whole[part], reader.scores(enc[part], given), rtol=0, atol=2e-6)
        assert reader.predict(enc, exclude).tolist() == whole.argmax(axis=1).tolist()


@pytest.mark.parametrize("name", READERS)
def test_no_neighbours_is_exactly_the_base(name, memory):
    enc = made(9, 1)
    reader = READERS[name](memory, k=0, temperature=1.7)
    base = torch.softmax(enc.logits.dense() / 1.7, dim=1).numpy()
    expected = (enc.logits.dense() / 1.7).numpy() if name == "resmem exponent" else base
    np.testing.assert_array_equal(reader.scores(enc), expected)
    np.testing.assert_allclose(reader.predict_proba(enc), base, rtol=1e-6)
    everything, excluding = np.tile(np.arange(150), (9, 1)), READERS[name](memory, k=5, temperature=1.7)
    np.testing.assert_array_equal(excluding.scores(enc, everything), expected)
    np.testing.assert_allclose(excluding.predict_proba(enc, everything), base, rtol=1e-6)


@pytest.mark.parametrize("name", READERS)
def test_a_memory_that_lost_its_rows_is_the_base(name):
    memory, enc = rs.Memory(made(10, 0)), made(4, 1)
    reader = READERS[name](memory, k=10)
    memory.forget(np.arange(7))
    with_three = READERS[name](memory, k=3, sigma=reader.sigma).scores(enc)
    np.testing.assert_allclose(reader.scores(enc), with_three, atol=1e-6)
    memory.forget([7, 8, 9])
    expected = reader.with_params(k=0).scores(enc)
    np.testing.assert_array_equal(reader.scores(enc), expected)
    memory.rebuild()
    np.testing.assert_array_equal(reader.scores(enc, np.arange(4)), expected)


@pytest.mark.parametrize("name", READERS)
def test_exclusion_is_as_if_forgotten(name):
    """One query, the rows of its id excluded: as when they are not in the memory."""
    enc = made(40, 0, ids=np.arange(40) // 2)
    memory = rs.Memory(enc)
    reader = READERS[name](memory, k=5, sigma=1.0)
    excluded = [reader.scores(enc[q : q + 9], exclude=enc.ids[q : q + 9])[0] for q in (0, 11, 30)]
    for q, scores in zip((0, 11, 30), excluded, strict=True):
        without = rs.Memory(enc[enc.ids != enc.ids[q]])
        np.testing.assert_allclose(scores, READERS[name](without, k=5, sigma=1.0).scores(enc[q])[0], atol=1e-6)


def test_exclusion_follows_the_batches(memory):
    enc, ids = made(12, 1), np.arange(24).reshape(12, 2)
    reader = rs.ResMem(memory, k=6)
    whole = reader.scores(enc, exclude=ids)
    np.testing.assert_allclose(reader.scores([enc[:5], enc[5:]], exclude=ids), whole, atol=1e-6)
    np.testing.assert_allclose(reader.predict_proba(enc, exclude=ids).argmax(axis=1), reader.predict(enc, ids))
    for wrong in (np.arange(11), np.arange(13)):
        for data in (enc, [enc[:5], enc[5:]]):
            with pytest.raises(IdError, match="exclude"):
                reader.scores(data, exclude=wrong)
        with pytest.raises(IdError, match="exclude"):
            rs.ResMem(memory, k=0).scores(enc, exclude=wrong)
    for wrong in (np.arange(12) + 0.5, 3, np.zeros((12, 1, 1), int)):
        with pytest.raises(IdError, match="exclude"):
            reader.scores(enc, exclude=wrong)
    with pytest.raises(ParameterError, match=r'exclude=.mine.; expected "own", None, or ids'):
        reader.scores(enc, exclude="mine")


@pytest.mark.parametrize("name", READERS)
def test_a_rows_own_id_is_excluded_by_default(name):
    enc = made(40, 0, ids=np.arange(40) // 2)
    reader = READERS[name](rs.Memory(enc), k=5)
    own, itself = reader.scores(enc), reader.scores(enc, exclude=None)
    np.testing.assert_array_equal(reader.scores(enc, exclude="own"), own)
    np.testing.assert_array_equal(reader.scores(enc, exclude=enc.ids), own)
    np.testing.assert_allclose(reader.scores([enc[:7], enc[7:]]), own, rtol=0, atol=2e-6)
    assert np.abs(own - itself).max() > 0.01
    for ask in (reader.predict, reader.predict_proba):
        np.testing.assert_array_equal(ask(enc), ask(enc, exclude=enc.ids))
    for choice, expected in (({}, False), ({"exclude": None}, True), ({"exclude": (enc.ids + 1) % 20}, True)):
        found = [now.neighbours.rows for _, now in reader.predictions(enc, **choice)]
        assert (torch.cat(found) == torch.arange(40)[:, None]).any(dim=1).tolist() == [expected] * 40
    nameless = rs.Encoded(enc.keys, enc.logits)  # rows without ids exclude nothing
    np.testing.assert_array_equal(reader.scores(nameless), itself)
    np.testing.assert_array_equal(reader.scores(nameless, exclude="own"), itself)


# --- probabilities --------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from(["resmem", "knnlm", "label k-NN"]), st.integers(2, 6), st.floats(0.1, 8))
def test_probabilities_keep_the_argmax(seed, name, classes, scale):
    memory, enc = rs.Memory(made(30, seed, classes, scale)), made(8, seed + 1, classes, scale)
    reader = READERS[name](memory, k=4, temperature=1.3)
    scores, proba = reader.scores(enc).astype(np.float64), reader.predict_proba(enc)
    assert (proba > 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    chosen = np.take_along_axis(scores, proba.argmax(axis=1)[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(chosen, scores.max(axis=1), rtol=0, atol=1e-6)
    floor = np.maximum(scores, softmax(enc.logits.dense().numpy() / 1.3) / classes)
    np.testing.assert_allclose(proba, floor / floor.sum(axis=1, keepdims=True), atol=1e-5)


def test_epsilon(memory):
    enc = made(6, 1)
    base = softmax(enc.logits)
    for epsilon in (1e-6, 0.1, 1):
        reader = rs.KNNLM(memory, k=1, lmbda=1, epsilon=epsilon)
        expected = np.maximum(reader.scores(enc), epsilon * base)
        expected /= expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(reader.predict_proba(enc), expected, atol=1e-6)
    for bad in (0, -0.1, 1.5, math.nan, "much"):
        with pytest.raises(ParameterError, match="epsilon"):
            rs.ResMem(memory, k=1, epsilon=bad)


def test_regression_has_no_probabilities():
    memory = rs.Memory(rs.Encoded([[0.0], [1.0]], [0.0, 0.0], [1.0, 2.0]))
    query = rs.Encoded([[0.0]], [5.0])
    reader = rs.ResMem(memory, k=1)
    assert reader.scores(query).tolist() == reader.predict(query).tolist() == [6]
    with pytest.raises(TaskError, match="call predict"):
        reader.predict_proba(query)
    assert reader.scores([]).shape == (0,)


def test_nothing_asked_is_nothing_answered(memory):
    reader = rs.ResMem(memory, k=3)
    for nothing in (made(3, 1)[:0], [], [made(3, 1)[:0]] * 2):
        assert reader.scores(nothing).shape == reader.predict_proba(nothing).shape == (0, 4)
        assert reader.predict(nothing).shape == (0,)


# --- what cannot be read --------------------------------------------------------------------------------------


def test_queries_that_do_not_fit(memory):
    reader = rs.ResMem(memory, k=3)
    with pytest.raises(ShapeError, match="keys of 2 and 4 outputs"):
        reader.scores(rs.Encoded(np.ones((1, 2)), np.zeros((1, 4))))
    with pytest.raises(ShapeError, match="3 outputs"):
        reader.scores(made(2, 1, classes=3))
    with pytest.raises(TaskError, match="regression"):
        reader.scores(rs.Encoded(np.ones((1, 3)), np.zeros((1, 4)), np.zeros((1, 4))))
    for data in (np.ones((1, 3)), None, [np.ones(3)]):
        with pytest.raises(InputError, match="Encoded"):
            reader.scores(data)


def test_another_models_queries():
    sources = [Source("Net", "fc", parameters={"weight": ([2], norm)}) for norm in (1.0, 2.0)]
    reader = rs.ResMem(rs.Memory(made(5, 0, source=sources[0])), k=2)
    reader.scores(made(2, 1, source=sources[0]))
    reader.scores(made(2, 1))
    for k in (0, 2):
        with pytest.raises(SourceMismatchError, match="norm 1 here and 2 there"):
            reader.with_params(k=k).scores(made(2, 1, source=sources[1]))


@pytest.mark.parametrize("read", [rs.ResMem, rs.KNNLM])
def test_parameters_out_of_range(read, memory):
    for k in (-1, 2.5, True, "3", math.nan, math.inf, 151):
        with pytest.raises(ParameterError, match=r"k="):
            read(memory, k=k)
    for name in ("sigma", "temperature"):
        for value in (0, -1, math.nan, math.inf, "wide", [1]):
            with pytest.raises(ParameterError, match=f"{name}=.*finite number > 0"):
                read(memory, **{"k": 3, name: value})
    for skip in (0, 1.5, math.nan, "sure"):
        with pytest.raises(ParameterError, match=r"skip=.*probability in \(0, 1\]"):
            read(memory, k=3, skip=skip)
    with pytest.raises(ParameterError, match="kernel"):
        read(memory, k=3, kernel="rbf")
    with pytest.raises(ParameterError, match="a ndarray where a Memory is expected"):
        read(np.ones((3, 2)))
    with pytest.raises(ParameterError, match=r"where a Memory is expected: rs\.Memory\(encoded\)"):
        read(k=10)
    with pytest.raises(ParameterError, match="temperature=None"):
        read(memory, k=3, temperature=None)


def test_k_is_as_many_as_there_are_unless_it_is_given(memory):
    large = rs.Memory(made(1100, 0))
    assert (rs.ResMem(large).k, rs.KNNLM(large).k) == (50, 1024)
    assert (rs.ResMem(memory).k, rs.KNNLM(memory).k) == (50, 150)
    assert rs.ResMem(rs.Memory(made(9, 0)), k=None).k == rs.KNNLM(rs.Memory(made(9, 0))).k == 9
    assert rs.KNNLM(memory, k=3).with_params(k=None).k == 150
    for read in (rs.ResMem, rs.KNNLM):
        with pytest.raises(ParameterError, match="k=151, and the memory has 150 rows; choose k <= 150"):
            read(memory, k=151)


def test_the_usual_width_is_the_memorys_own(memory):
    typical = memory.median_nn_distance()
    assert rs.ResMem(memory, k=3).sigma == typical
    assert rs.KNNLM(memory, k=3).sigma == rs.ResMem(memory, k=3, kernel="gaussian").sigma == typical**2
    assert rs.KNNLM(memory, k=3, kernel="exponential").sigma == typical


def test_with_params(memory):
    reader = rs.ResMem(
        memory,
        k=np.int64(3),
        sigma=np.float32(0.5),
        temperature=2,
        space="exponent",
        base_weight=2,
        epsilon=np.float32(0.25),
        skip=np.float32(0.5),
        class_weight={np.int64(1): np.float32(2)},
    )
    expected = dict(k=3, sigma=0.5, temperature=2.0, kernel="exponential", space="exponent", base_weight=2.0)
    expected |= dict(residual_weight=None, epsilon=0.25, skip=0.5, class_weight={1: 2.0})
    assert reader.params == expected and reader.parameter_names() == rs.ResMem.parameter_names() == tuple(expected)
    assert [type(value) for value in reader.params.values()] == [
        *(int, float, float, str, str, float, type(None), float, float, dict)
    ]
    other = reader.with_params(k=5, residual_weight=3)
    assert other.params == expected | {"k": 5, "residual_weight": 3.0} and other.memory is memory
    assert reader.params == expected
    with pytest.raises(ParameterError, match=r"ResMem has no parameter \['lmbda'\]; it has .*'skip'"):
        reader.with_params(lmbda=0.5)
    assert "k=3, sigma=0.5, temperature=2.0" in repr(reader) and "150 rows" in repr(reader)


def test_a_reader_of_ones_own_has_its_own_parameters(memory, tmp_path):
    @register_reader
    class Sharper(rs.KNNLM):
        """Weights to a power."""

        def __init__(self, memory, k=None, power=2.0, sigma=None, temperature=1.0, lmbda=0.5):
            super().__init__(memory, k, lmbda, sigma, temperature)
            self.power = power

        def weights(self, neighbours, queries):
            weights = super().weights(neighbours, queries) ** self.power
            return weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-30)

    reader, enc = Sharper(memory, k=9, power=3.0), made(20, 1)
    assert reader.params == {"k": 9, "power": 3.0, "sigma": reader.sigma, "temperature": 1.0, "lmbda": 0.5}
    usual = rs.KNNLM(memory, k=9, lmbda=0.5)
    cubed = usual.with_params(sigma=usual.sigma / 3).scores(enc)
    np.testing.assert_allclose(reader.scores(enc), cubed, atol=1e-6)  # exp(-d²/sigma)³
    np.testing.assert_allclose(reader.with_params(power=1.0).scores(enc), usual.scores(enc), atol=1e-6)
    with pytest.raises(ParameterError, match="no parameter"):
        reader.with_params(epsilon=0.1)
    reader.save(tmp_path)
    assert rs.load(tmp_path).params == reader.params
    np.testing.assert_array_equal(rs.load(tmp_path).scores(enc), reader.scores(enc))


def test_what_was_renamed_says_so(memory):
    for reader in (rs.ResMem(memory, k=3), rs.KNNLM(memory), rs.ContinuousCache(rs.KNNLM(memory))):
        for old, new in (("gate", "skip"), ("names", "parameter_names"), ("stream", "start"), ("cv_results_", "res")):
            with pytest.raises(AttributeError, match=f"'{type(reader).__name__}' .*'{old}'; it is '{new}.*' now"):
                getattr(reader, old)
        with pytest.raises(AttributeError, match=r"no attribute 'sigmb'$"):
            _ = reader.sigmb


def test_parameters_can_change_after_forgetting_left_fewer_than_k_rows():
    memory = rs.Memory(rs.Encoded(np.arange(6.0)[:, None], np.zeros((6, 2)), [0, 1] * 3))
    reader = rs.ResMem(memory, k=5, sigma=1.0)
    memory.forget([0, 1, 2])
    warmer = reader.with_params(temperature=2.0)
    assert (warmer.k, warmer.temperature) == (5, 2.0)
    with pytest.raises(ParameterError, match="3 rows"):
        reader.with_params(k=4)
    query = rs.Encoded([[4.9]], np.zeros((1, 2)))
    np.testing.assert_allclose(warmer.scores(query), warmer.with_params(k=3).scores(query))


def test_only_classification_can_skip():
    memory = rs.Memory(rs.Encoded([[0.0], [1.0]], [[1.0], [2.0]], [1.5, 2.5]))
    with pytest.raises(ParameterError, match="leave skip=None"):
        rs.KNNLM(memory, k=1, skip=0.5)


def test_skipping_follows_exclusion_and_batches():
    memory, test = rs.Memory(made(60, 0)), made(30, 1)
    reader, ids = rs.KNNLM(memory, k=4, lmbda=0.9, skip=0.8), np.arange(30)[:, None] + np.arange(20)
    sure = softmax(test.logits).max(axis=1) >= 0.8
    assert 3 < sure.sum() < 27
    open_ = reader.with_params(skip=None).scores(test, ids)
    expected = np.where(sure[:, None], softmax(test.logits), open_)
    for data in (test, [test[a : a + 1] for a in range(30)]):
        np.testing.assert_allclose(reader.scores(data, ids), expected, atol=1e-6)


def test_a_rows_scores_cross_few_files():
    """From the public name to the arithmetic a newcomer opens a dozen files."""
    memory, enc = rs.Memory(made(500, 0)), made(1, 1)
    reader, root, seen = rs.ResMem(memory, k=5), Path(rs.__file__).parent, set()
    reader.scores(enc)  # what is imported on first use is imported

    def note(frame, event, argument):
        file = Path(frame.f_code.co_filename)
        if root in file.parents:
            seen.add(file.relative_to(root).as_posix())

    sys.setprofile(note)
    try:
        reader.scores(enc)
    finally:
        sys.setprofile(None)
    seen.discard("native.py")  # where residua-native is installed
    assert {"readers/resmem.py", "index/exact.py"} < seen and len(seen) <= 15, sorted(seen)
