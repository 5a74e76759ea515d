"""What all readers share: batches, no memory, exclusion, probabilities, parameters."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import residua as rs
from residua.core import Source
from residua.errors import IdError, InputError, ParameterError, ShapeError, SourceMismatchError, TaskError
from residua.readers import reader as module

READERS = {
    "resmem": lambda memory, **p: rs.ResMem(memory, **p),
    "resmem logits": lambda memory, **p: rs.ResMem(memory, space="logits", **p),
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


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("k", [1, 7, 150])
def test_batches_are_one_answer(name, k, memory, monkeypatch):
    enc = made(23, 1)
    whole, proba = READERS[name](memory, k=k).scores(enc), READERS[name](memory, k=k).predict_proba(enc)
    assert (whole.shape, whole.dtype, proba.dtype) == ((23, 4), np.float32, np.float32)
    reader = READERS[name](memory, k=k)
    one_by_one = np.concatenate([reader.scores(enc[i]) for i in range(23)])
    in_parts = reader.scores(enc[a : a + 5] for a in range(0, 25, 5))
    monkeypatch.setattr(module, "QUERIES", 4)
    in_blocks = reader.scores(enc)
    for other in (one_by_one, in_parts, in_blocks):
        np.testing.assert_allclose(other, whole, rtol=0, atol=2e-6)
    np.testing.assert_allclose(reader.predict_proba([enc[:9], enc[9:]]), proba, rtol=0, atol=2e-6)
    assert reader.predict([enc[:9], enc[9:]]).tolist() == whole.argmax(axis=1).tolist()
    assert reader.predict(enc).dtype == np.int64


@pytest.mark.parametrize("name", READERS)
def test_no_neighbours_is_exactly_the_base(name, memory):
    enc = made(9, 1)
    reader = READERS[name](memory, k=0, temperature=1.7)
    base = torch.softmax(enc.logits.dense() / 1.7, dim=1).numpy()
    expected = enc.logits.dense().numpy() if name == "resmem logits" else base
    np.testing.assert_array_equal(reader.scores(enc), expected)
    np.testing.assert_allclose(reader.predict_proba(enc), base, rtol=1e-6)
    everything = np.tile(np.arange(150), (9, 1))
    np.testing.assert_array_equal(READERS[name](memory, k=5, temperature=1.7).scores(enc, everything), expected)


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


@pytest.mark.parametrize("name", ["resmem", "knnlm", "label k-NN"])  # in logit space, class means are the memory's
def test_exclusion_is_as_if_forgotten(name):
    """One query, the rows of its id excluded: as when they are not in the memory."""
    enc = made(40, 0, ids=np.arange(40) // 2)
    memory = rs.Memory(enc)
    reader = READERS[name](memory, k=5, sigma=1.0)
    excluded = [reader.scores(enc[q : q + 9], exclude_ids=enc.ids[q : q + 9])[0] for q in (0, 11, 30)]
    for q, scores in zip((0, 11, 30), excluded, strict=True):
        without = rs.Memory(enc[enc.ids != enc.ids[q]])
        np.testing.assert_allclose(scores, READERS[name](without, k=5, sigma=1.0).scores(enc[q])[0], atol=1e-6)


def test_exclusion_follows_the_batches(memory):
    enc, ids = made(12, 1), np.arange(24).reshape(12, 2)
    reader = rs.ResMem(memory, k=6)
    whole = reader.scores(enc, exclude_ids=ids)
    np.testing.assert_allclose(reader.scores([enc[:5], enc[5:]], exclude_ids=ids), whole, atol=1e-6)
    np.testing.assert_allclose(reader.predict_proba(enc, exclude_ids=ids).argmax(axis=1), reader.predict(enc, ids))
    for wrong in (np.arange(11), np.arange(13)):
        for data in (enc, [enc[:5], enc[5:]]):
            with pytest.raises(IdError, match="exclude_ids"):
                reader.scores(data, exclude_ids=wrong)
        with pytest.raises(IdError, match="exclude_ids"):
            rs.ResMem(memory, k=0).scores(enc, exclude_ids=wrong)


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
    with pytest.raises(TaskError, match="regression data"):
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
    for k in (-1, 2.5, True, None, "3", math.nan, math.inf, 151):
        with pytest.raises(ParameterError, match=r"k="):
            read(memory, k=k)
    for name in ("sigma", "temperature"):
        for value in (0, -1, math.nan, math.inf, "wide", [1]):
            with pytest.raises(ParameterError, match=f"{name}=.*finite number > 0"):
                read(memory, **{"k": 3, name: value})
    for gate in (0, 1.5, math.nan, "sure"):
        with pytest.raises(ParameterError, match=r"gate=.*probability in \(0, 1\]"):
            read(memory, k=3, gate=gate)
    with pytest.raises(ParameterError, match="kernel"):
        read(memory, k=3, kernel="rbf")
    with pytest.raises(ParameterError, match="a ndarray where a Memory is expected"):
        read(np.ones((3, 2)))
    with pytest.raises(ParameterError, match="temperature=None"):
        read(memory, k=3, temperature=None)


def test_the_usual_width_is_the_memorys_own(memory):
    typical = memory.typical_distance()
    assert rs.ResMem(memory, k=3).sigma == typical
    assert rs.KNNLM(memory, k=3).sigma == rs.ResMem(memory, k=3, kernel="gaussian").sigma == typical**2
    assert rs.KNNLM(memory, k=3, kernel="exponential").sigma == typical


def test_with_params(memory):
    reader = rs.ResMem(
        memory, k=np.int64(3), sigma=np.float32(0.5), temperature=2, epsilon=np.float32(0.25), gate=np.float32(0.5)
    )
    expected = dict(k=3, sigma=0.5, temperature=2.0, kernel="exponential", space="probabilities", epsilon=0.25)
    expected["gate"] = 0.5
    assert reader.params == expected
    assert [type(value) for value in reader.params.values()] == [int, float, float, str, str, float, float]
    other = reader.with_params(k=5, space="logits")
    assert other.params == expected | {"k": 5, "space": "logits"} and other.memory is memory
    assert reader.params == expected
    with pytest.raises(ParameterError, match="lmbda"):
        reader.with_params(lmbda=0.5)
    assert "k=3, sigma=0.5, temperature=2.0" in repr(reader) and "150 rows" in repr(reader)


def test_parameters_can_change_after_forgetting_left_fewer_than_k_rows():
    memory = rs.Memory(rs.Encoded(np.arange(6.0)[:, None], np.zeros((6, 2)), [0, 1] * 3))
    reader = rs.ResMem(memory, k=5, sigma=1.0)
    memory.forget([0, 1, 2])
    warmer = reader.with_params(temperature=2.0)
    assert (warmer.k, warmer.temperature) == (5, 2.0)
    with pytest.raises(ParameterError, match="3 rows"):
        reader.with_params(k=4)


def test_a_gate_is_for_classification():
    memory = rs.Memory(rs.Encoded([[0.0], [1.0]], [[1.0], [2.0]], [1.5, 2.5]))
    with pytest.raises(ParameterError, match="leave gate=None"):
        rs.KNNLM(memory, k=1, gate=0.5)


def test_the_gate_follows_exclusion_and_batches():
    memory, test = rs.Memory(made(60, 0)), made(30, 1)
    reader, ids = rs.KNNLM(memory, k=4, lmbda=0.9, gate=0.8), np.arange(30)[:, None] + np.arange(20)
    sure = softmax(test.logits).max(axis=1) >= 0.8
    assert 3 < sure.sum() < 27
    open_ = reader.with_params(gate=None).scores(test, ids)
    expected = np.where(sure[:, None], softmax(test.logits), open_)
    for data in (test, [test[a : a + 1] for a in range(30)]):
        np.testing.assert_allclose(reader.scores(data, ids), expected, atol=1e-6)
