"""Contributions by hand, for every reader and storage, and that they add up to the scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.core import Change, Head, HeadLogits, LabelValues, Source, Term
from residua.errors import IdError, InputError, ParameterError, ShapeError, SourceMismatchError, TaskError
from residua.readers import NeighbourReader
from residua.readers.neighbour import weigh

READERS = {
    "resmem": lambda memory, k: rs.ResMem(memory, k=k, temperature=1.4),
    "resmem gaussian": lambda memory, k: rs.ResMem(memory, k=k, kernel="gaussian"),
    "resmem exponent": lambda memory, k: rs.ResMem(memory, k=k, temperature=2.0, space="exponent"),
    "knnlm": lambda memory, k: rs.KNNLM(memory, k=k, lmbda=0.3),
    "label k-NN": lambda memory, k: rs.KNNLM(memory, k=k, lmbda=1.0),
}


def made(n, seed, classes=4, **more):
    rng = np.random.default_rng(seed)
    return rs.Encoded(rng.normal(size=(n, 3)), 3 * rng.normal(size=(n, classes)), rng.integers(0, classes, n), **more)


def with_head(n, seed):
    rng = np.random.default_rng(seed)
    head = Head(torch.from_numpy(np.random.default_rng(9).normal(size=(4, 3))).float())
    keys = rng.normal(size=(n, 3)).astype(np.float32)
    return rs.Encoded(keys, HeadLogits(head, torch.from_numpy(keys)), rng.integers(0, 4, n))


def adds_up(why, reader, query, exclude="own"):
    total = why.scale * why.base + why.contributions.sum(axis=0)
    largest = max(1.0, np.abs(why.base).max(), np.abs(why.contributions).max(initial=0))
    np.testing.assert_allclose(total, why.scores, rtol=0, atol=1e-6 * largest)
    np.testing.assert_array_equal(why.scores, np.atleast_1d(reader.scores(query, exclude)[0])[why.outputs])
    np.testing.assert_array_equal(why.prediction, reader.predict(query, exclude)[0])
    np.testing.assert_array_equal(why.base_prediction, reader.with_params(k=0).predict(query)[0])
    assert why.contributions.shape == (len(why.rows), len(why.outputs))
    assert why.n_outputs == query.n_outputs and (np.diff(why.outputs) > 0).all()
    if why.n_outputs <= 1000 or why.task == "regression":
        np.testing.assert_array_equal(why.outputs, np.arange(why.n_outputs))


def test_resmem_by_hand():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [1 / 3, 1 / 3, 1 / 3]]))
    memory = rs.Memory(rs.Encoded([[0.0], [1.0], [5.0]], logits, [0, 1, 2], ids=[70, 80, 90]))
    query = rs.Encoded([[0.0]], np.log([[0.4, 0.4, 0.2]]), [1])
    why = rs.explain(rs.ResMem(memory, k=2, sigma=1 / np.log(3)), query)
    assert (why.ids.tolist(), why.rows.tolist(), why.labels.tolist()) == ([70, 80], [0, 1], [0, 1])
    assert why.distances.tolist() == [0, 1]
    np.testing.assert_allclose(why.weights, [3 / 4, 1 / 4], rtol=1e-6)  # exp(-1 / sigma) = 1/3
    expected = [[0.375, -0.1875, -0.1875], [-0.05, 0.2, -0.15]]
    np.testing.assert_allclose(why.contributions, expected, atol=1e-6)
    np.testing.assert_allclose(why.base, [0.4, 0.4, 0.2], atol=1e-6)
    np.testing.assert_allclose(why.scores, [0.725, 0.4125, -0.1375], atol=1e-6)
    assert (why.scale, why.prediction, why.label, len(why)) == (1.0, 0, 1, 2)


def test_knnlm_by_hand():
    memory = rs.Memory(rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), [0, 1]), storage="none")
    reader = rs.KNNLM(memory, k=2, lmbda=0.4, sigma=1 / np.log(3))
    why = rs.explain(reader, rs.Encoded([[0.0]], np.zeros((1, 2))))
    assert why.scale == pytest.approx(0.6)
    np.testing.assert_allclose(why.weights, [0.3, 0.1], rtol=1e-6)
    np.testing.assert_allclose(why.contributions, [[0.3, 0], [0, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(why.scores, [0.6, 0.4], rtol=1e-6)
    assert why.label is None


def test_flat_regression_by_hand():
    memory = rs.Memory(rs.Encoded([[0.0], [1.0]], [10.0, 20.0], [11.0, 16.0]))
    why = rs.explain(rs.ResMem(memory, k=2, sigma=1 / np.log(3)), rs.Encoded([[0.0]], [5.0], [6.5]))
    np.testing.assert_allclose(why.contributions, [[0.75], [-1.0]], rtol=1e-6)
    assert (why.labels.tolist(), why.labels.dtype) == ([11, 16], np.float64)
    assert (why.base_prediction, why.prediction, why.label) == (5.0, pytest.approx(4.75), 6.5)


def test_regression_of_several_targets():
    rng = np.random.default_rng(0)
    memory = rs.Memory(rs.Encoded(rng.normal(size=(9, 2)), rng.normal(size=(9, 3)), rng.normal(size=(9, 3))))
    query = rs.Encoded(rng.normal(size=(1, 2)), rng.normal(size=(1, 3)), rng.normal(size=(1, 3)))
    for reader in (rs.ResMem(memory, k=4), rs.KNNLM(memory, k=4)):
        why = rs.explain(reader, query)
        adds_up(why, reader, query)
        np.testing.assert_array_equal(why.labels, memory.labels[why.rows])
        np.testing.assert_array_equal(why.label, query.labels[0])
    adds_up(rs.explain(reader.with_params(k=0), query), reader.with_params(k=0), query)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(0, 30), st.integers(2, 9))
def test_base_and_contributions_are_the_scores(name, seed, k, classes):
    memory = rs.Memory(made(30, seed, classes))
    query = made(1, seed + 1, classes)
    reader = READERS[name](memory, k)
    why = rs.explain(reader, query)
    adds_up(why, reader, query)
    assert len(why) == k
    assert why.space == ("logit" if name == "resmem exponent" else "probability")
    assert (np.diff(why.distances) >= 0).all()
    assert (
        why.weights.sum() == pytest.approx(1 - why.scale if "k" in name[:2] or "label" in name else 1, abs=1e-5)
        or not k
    )


@pytest.mark.parametrize("storage", ["full", "head", "top-m"])
def test_storages_explain_alike(storage):
    queries = with_head(5, 1)
    full = rs.ResMem(rs.Memory(with_head(40, 0)), k=6)
    reader = rs.ResMem(rs.Memory(with_head(40, 0), storage=storage, m=4), k=6)
    for i in range(5):
        why = rs.explain(reader, queries[i])
        adds_up(why, reader, queries[i])
        np.testing.assert_allclose(why.contributions, rs.explain(full, queries[i]).contributions, atol=1e-6)


def test_entries_that_top_m_dropped_contribute_nothing():
    memory = rs.Memory(made(40, 0, classes=8), storage="top-m", m=2)
    reader, query = rs.ResMem(memory, k=6), made(1, 1, classes=8)
    why = rs.explain(reader, query)
    adds_up(why, reader, query)
    assert ((why.contributions != 0).sum(axis=1) == 2).all()


def test_excluded_and_missing_neighbours_are_dropped():
    memory = rs.Memory(made(5, 0))
    reader, query = rs.ResMem(memory, k=5, sigma=1.0), made(1, 1)
    why = rs.explain(reader, query, exclude=[0, 3])
    assert sorted(why.ids.tolist()) == [1, 2, 4]
    adds_up(why, reader, query, np.array([[0, 3]]))
    assert sorted(rs.explain(reader, query, exclude=2).ids.tolist()) == [0, 1, 3, 4]
    alone = rs.explain(reader, query, exclude=range(5))
    assert len(alone) == 0
    np.testing.assert_array_equal(alone.scores, alone.base)


def test_a_row_is_not_its_own_neighbour_unless_that_is_wanted():
    enc = made(6, 0, ids=[5, 6, 7, 8, 9, 10])
    reader = rs.KNNLM(rs.Memory(enc), k=5, sigma=1.0)
    why = rs.explain(reader, enc[2])
    assert sorted(why.ids.tolist()) == [5, 6, 8, 9, 10]
    adds_up(why, reader, enc[2])
    itself = rs.explain(reader, enc[2], exclude=None)
    assert (itself.ids[0], itself.distances[0]) == (7, 0)
    adds_up(itself, reader, enc[2], exclude=None)
    unnamed = rs.Encoded(enc.keys[:1], enc.logits.dense()[:1])
    assert rs.explain(reader, unnamed).ids[0] == 5


def test_a_query_that_was_skipped_is_the_base():
    memory = rs.Memory(made(30, 0))
    for i in range(8):
        query = made(8, 1)[i]
        reader = rs.KNNLM(memory, k=3, lmbda=0.4, skip=0.9)
        why = rs.explain(reader, query)
        adds_up(why, reader, query)
        sure = why.base.max() >= 0.9
        assert (len(why), why.scale) == ((0, 1.0) if sure else (3, pytest.approx(0.6)))


def test_a_share_of_its_own():
    memory = rs.Memory(made(30, 0))
    share = rs.AdaptiveLambda(edges=[0.4, 0.8], shares=[0.9, 0.5, 0.1])
    reader, scales = rs.KNNLM(memory, k=3, lmbda=share), set()
    for i in range(12):
        query = made(12, 1)[i]
        why = rs.explain(reader, query)
        adds_up(why, reader, query)
        near = why.distances[0]
        assert why.scale == pytest.approx(0.1 if near <= 0.4 else 0.5 if near <= 0.8 else 0.9)
        scales.add(round(why.scale, 3))
    assert len(scales) > 1


@pytest.mark.parametrize("storage", ["full", "top-m"])
def test_of_many_outputs_those_that_matter(storage):
    memory = rs.Memory(made(30, 0, classes=1200), storage=storage, m=4)
    query = made(1, 1, classes=1200)
    readers = rs.KNNLM(memory, k=5), rs.ResMem(memory, k=5), rs.ResMem(memory, k=0)
    for reader in readers:
        why = rs.explain(reader, query)
        adds_up(why, reader, query)
        assert {why.prediction, why.base_prediction, why.label} <= set(why.outputs.tolist())
        dense = reader.scores(query)[0] - why.scale * torch.softmax(query.logits.dense(), dim=1)[0].numpy()
        rest = np.setdiff1d(np.arange(1200), why.outputs)
        np.testing.assert_allclose(dense[rest], 0, atol=1e-7)
        frame = why.to_frame()
        for word in ("predicted", "base", "true"):
            np.testing.assert_array_equal(frame[f"to_{word}"], why.contributions_to[word])
        assert f"class {why.label}: base " in str(why)
    assert set(rs.explain(readers[0], query).labels) <= set(rs.explain(readers[0], query).outputs.tolist())


class Twice(NeighbourReader):
    """Two kernels in one change, and a second source that says class 2."""

    def __init__(self, memory=None, k=None, sigma=None, other=None):
        super().__init__(memory, k, sigma, 1.0, "exponential")
        self.other = other

    def change(self, neighbours, queries, values=None):
        near = weigh(neighbours, self.sigma), weigh(neighbours, self.sigma, "gaussian")
        labels = LabelValues(self.memory.column("label"))
        terms = [Term(neighbours.rows, 0.25 * near[0], labels), Term(neighbours.rows, 0.25 * near[1], labels)]
        if self.other:
            rows = torch.tensor([[40, -1]])
            said = LabelValues(torch.full((50,), 2))
            terms.append(Term(rows, torch.tensor([[0.25, 0.0]]), said, source=self.other))
        return Change(torch.tensor([[0.25 if self.other else 0.5]]), tuple(terms))

    def values(self, queries):
        return LabelValues(self.memory.column("label"))


def test_several_terms_are_listed_one_after_the_other():
    memory, query = rs.Memory(made(30, 0, columns={"place": np.arange(30)})), made(1, 1)
    reader = Twice(memory, k=3)
    why = rs.explain(reader, query)
    adds_up(why, reader, query)
    assert why.rows[:3].tolist() == why.rows[3:].tolist() and why.sources == ("memory",) * 6
    np.testing.assert_array_equal(why.distances[:3], why.distances[3:])
    assert (why.weights[:3].sum(), why.weights[3:].sum()) == (pytest.approx(0.25), pytest.approx(0.25))
    assert "source" not in why.to_frame()


def test_a_source_that_is_not_the_memory():
    memory, query = rs.Memory(made(30, 0, columns={"place": np.arange(30)})), made(1, 1)
    reader = Twice(memory, k=3, other="past\x1b")
    why = rs.explain(reader, query)
    adds_up(why, reader, query)
    assert why.sources == ("memory",) * 6 + ("past\x1b",)
    assert (why.rows[-1], why.ids[-1], why.labels[-1], why.columns["place"][-1]) == (-1, -1, 2, -1)
    assert np.isnan(why.distances[-1]) and why.contributions[-1].tolist() == [0, 0, 0.25, 0]
    assert next(iter(why.to_frame())) == "source"
    assert str(why).splitlines()[-1].split()[:3] == ["past\\x1b", "-1", "2"]


def test_an_empty_memory_and_k_zero_are_the_base():
    memory = rs.Memory(made(5, 0))
    reader, query = rs.ResMem(memory, k=2, sigma=1.0), made(1, 1)
    none = rs.explain(reader.with_params(k=0), query)
    memory.forget(memory.ids)
    for why in (none, rs.explain(reader, query), rs.explain(rs.KNNLM(memory, k=0, lmbda=1.0), query)):
        assert why.contributions.shape == (0, 4)
        assert why.prediction == why.base_prediction
        np.testing.assert_array_equal(why.scores, why.base)
        assert len(why.to_frame()) == 0


def test_columns_and_forgotten_rows():
    memory = rs.Memory(
        made(6, 0, ids=[5, 6, 7, 8, 9, 10], columns={"document": np.arange(6) * 10, "weight": np.arange(6.0)})
    )
    memory.forget([8])
    reader, query = rs.ResMem(memory, k=5, sigma=1.0), made(1, 1)
    why = rs.explain(reader, query)
    adds_up(why, reader, query)
    np.testing.assert_array_equal(why.columns["document"], (why.ids - 5) * 10)
    assert 8 not in why.ids
    assert why.weights[why.ids == 5] == 0  # a row of no importance is a neighbour without a say


def test_bad_input_is_refused():
    memory, queries = rs.Memory(made(6, 0, source=Source("net", "fc"))), made(3, 1)
    reader = rs.ResMem(memory, k=2)
    with pytest.raises(ParameterError, match="Memory where a reader"):
        rs.explain(memory, queries[0])
    with pytest.raises(ShapeError, match=r"3 rows.*enc\[7\]"):
        rs.explain(reader, queries)
    with pytest.raises(ShapeError, match="0 rows"):
        rs.explain(reader, queries[:0])
    with pytest.raises(InputError, match="list"):
        rs.explain(reader, [queries[0]])
    with pytest.raises(ShapeError, match="outputs"):
        rs.explain(reader, made(1, 0, classes=5))
    with pytest.raises(TaskError):
        rs.explain(reader, rs.Encoded(queries.keys[:1], np.zeros((1, 4)), np.zeros((1, 4))))
    with pytest.raises(SourceMismatchError):
        rs.explain(reader, made(1, 0, source=Source("net", "conv")))
    with pytest.raises(IdError):
        rs.explain(reader, queries[0], exclude=[0.5])
    with pytest.raises(ParameterError, match="exclude='mine'"):
        rs.explain(reader, queries[0], exclude="mine")
    with pytest.raises(ParameterError, match=r"looks back.*reader\.over"):
        rs.explain(rs.ContinuousCache(reader, theta=0.1), queries[0])
