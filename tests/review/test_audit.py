import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.errors import EmptyMemoryError, InputError, LabelError, ParameterError, StorageError, TaskError

SAME = {"rtol": 3e-7, "atol": 4e-7}  # few rows are answered in float32


def rows(n, seed=0, classes=3, d=2, **about):
    rng = np.random.default_rng(seed)
    keys, labels = rng.normal(size=(n, d)).astype(np.float32), rng.integers(0, classes, n)
    return rs.Encoded(keys, rng.normal(size=(n, classes)), labels, **about)


def votes(memory, k, sigma=0.5, **about):
    """Label k-NN whose answers are votes and nothing else."""
    return rs.KNNLM(memory, k, 1.0, sigma=sigma, kernel="exponential", epsilon=1e-12, **about)


def said(enc, players, query, label, k, sigma=0.5):
    """The weighted share of a label among the k nearest of some players, in NumPy."""
    distances = np.sqrt(np.square(enc.keys[players].astype(float) - query).sum(axis=1))
    nearest = np.lexsort((players, distances))[:k]
    weight = np.exp((distances[nearest[0]] - distances[nearest]) / sigma)
    return (weight * (enc.labels[players[nearest]] == label)).sum() / weight.sum()


def earned(enc, players, query, label, k):
    distances = np.square(enc.keys[players].astype(float) - query).sum(axis=1)
    nearest = np.lexsort((players, distances))[:k]
    return (enc.labels[players[nearest]] == label).sum() / k


def test_margin_memorisation_and_influence_are_those_of_answering_again_without_a_row():
    rng, k = np.random.default_rng(0), 4
    keys = rng.permutation(30)[:17, None].astype(float)  # distances are whole numbers: nothing is rounded
    labels = rng.integers(0, 3, 17)
    enc, test = (rs.Encoded(keys[some], np.zeros((len(labels[some]), 3)), labels[some]) for some in np.s_[:12, 12:])
    found = rs.audit(votes(rs.Memory(enc), k), test)
    everyone = np.arange(12)
    for i in range(12):
        others = np.delete(everyone, i)
        shares = np.array([said(enc, others, enc.keys[i], c, k) for c in range(3)])
        own, rival = shares[enc.labels[i]], np.delete(shares, enc.labels[i]).max()
        whole = said(enc, everyone, enc.keys[i], enc.labels[i], k)
        if min(own, rival) > 0:  # else the floor decides
            np.testing.assert_allclose(found.margin[i], np.log(own / rival), **SAME)
        assert np.sign(found.margin[i]) == np.sign(own - rival) or abs(own - rival) < 1e-6
        np.testing.assert_allclose(found.memorisation[i], whole - own, **SAME)
        np.testing.assert_allclose(found.pred_probs[i], shares, atol=1e-7)
        assert shares[found.suggested[i]] == pytest.approx(shares.max())
        by_query = [said(enc, everyone, x, y, k) - said(enc, others, x, y, k) for x, y in zip(test.keys, test.labels)]
        np.testing.assert_allclose(found.influence[i], np.mean(by_query), **SAME)


@pytest.mark.parametrize("kind", ["label k-NN", "ResMem", "exponent", "pooled", "own parameters"])
def test_every_reader_is_taken_at_its_word(kind):
    enc, test = rows(15, columns={"weight": np.linspace(0.5, 2, 15)}), rows(6, seed=1)

    def reader_of(memory):
        if kind == "ResMem":
            return rs.ResMem(memory, 4, 0.7, 1.3, class_weight="balanced")
        if kind == "exponent":
            return rs.ResMem(memory, 4, 0.7, space="exponent")
        if kind == "pooled":
            return rs.Pooled(memory, 4, [0.3, 1.0], coefficients=[1.0, *[0.2, -0.1, 0.3, 0.1] * 2])
        if kind == "own parameters":
            return rs.KNNLM(memory, 3, 0.4, sigma=0.8, skip=0.6)
        return votes(memory, 4)

    memory = rs.Memory(enc)
    reader = reader_of(memory)
    found = rs.audit(reader, test)
    label = np.arange(len(test)), test.labels
    before = reader.predict_proba(test)[label]
    for i in range(15):
        fewer = rs.Memory(enc)
        fewer.forget([i])
        after = reader_of(fewer).with_params(**{} if kind == "pooled" else {"sigma": reader.sigma})
        if kind == "ResMem":  # whose classes weigh as they are counted: these are the whole memory's
            weights = len(enc) / np.bincount(enc.labels)
            after = after.with_params(class_weight=dict(enumerate(weights.tolist())))
        np.testing.assert_allclose(found.influence[i], (before - after.predict_proba(test)[label]).mean(), atol=2e-7)
        alone, mine = enc[i], (0, enc.labels[i])
        left = after.predict_proba(alone)[0]
        np.testing.assert_allclose(found.pred_probs[i], left, atol=2e-7)
        np.testing.assert_allclose(found.memorisation[i], reader.predict_proba(alone)[mine] - left[mine[1]], atol=4e-7)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 10_000), st.booleans())
def test_shapley_values_are_the_mean_marginal_earnings_over_all_orders(n, k, seed, own):
    k = min(k, n)
    rng = np.random.default_rng(seed)
    enc = rs.Encoded(rng.integers(0, 4, (n, 1)).astype(float), np.zeros((n, 2)), rng.integers(0, 2, n))  # with ties
    test = enc if own else rs.Encoded(rng.normal(size=(3, 1)), np.zeros((3, 2)), rng.integers(0, 2, 3))
    found = rs.audit(votes(rs.Memory(enc), k), None if own else test)
    expected, total = np.zeros(n), 0.0
    for number, (x, y) in enumerate(zip(test.keys, test.labels)):
        players = np.delete(np.arange(n), number) if own else np.arange(n)
        total += earned(enc, players, x, y, k) / len(test)
        for order in itertools.permutations(players):
            for place, player in enumerate(order):
                with_it, so_far = (np.array(sorted(order[:end]), int) for end in (place + 1, place))
                gain = earned(enc, with_it, x, y, k) - earned(enc, so_far, x, y, k)
                expected[player] += gain / math.factorial(len(players)) / len(test)
    np.testing.assert_allclose(found.shapley, expected, **SAME)
    np.testing.assert_allclose([found.shapley.sum(), found.utility], total, **SAME)
    assert found.shapley_error == 0


@pytest.mark.slow
def test_truncated_shapley_values_are_within_the_error_that_is_stated():
    enc, test = rows(300), rows(40, seed=1)
    reader, many = votes(rs.Memory(enc), 3), test[np.tile(np.arange(40), 251)]  # 10 040 rows, of the same worth
    exact = rs.audit(reader, test)
    rough = rs.audit(reader, many, epsilon=0.05)
    assert rough.shapley_error == 0.05 and rough.utility == pytest.approx(exact.utility)
    assert 0 < np.abs(rough.shapley - exact.shapley).max() <= 0.05
    fine = rs.audit(reader, many, epsilon=0.001)  # more ranks than rows
    assert fine.shapley_error == 0
    np.testing.assert_allclose(fine.shapley, exact.shapley, **SAME)
    np.testing.assert_allclose(rough.influence, exact.influence, **SAME)


def test_rows_that_share_an_id_do_not_answer_for_each_other():
    views = np.repeat(np.arange(6), 3)
    keys = np.repeat(np.random.default_rng(0).normal(size=(6, 2)), 3, axis=0) + np.tile([[0.0], [1e-3], [2e-3]], (6, 1))
    enc = rs.Encoded(keys, np.zeros((18, 2)), np.repeat([0, 1, 0, 1, 0, 1], 3), views)
    memory = rs.Memory(enc)
    found = rs.audit(votes(memory, 3))
    expected = votes(memory, 3).predict_proba(enc)  # which leaves out each row's own id
    np.testing.assert_allclose(found.pred_probs, expected, atol=1e-6)
    assert (found.ids[found.nearest] != found.ids).all() and not found.duplicate.any()
    memory.forget([2])
    again = rs.audit(votes(memory, 3))
    assert len(again) == 15 and (again.ids != 2).all() and again.nearest.max() < 15
    np.testing.assert_allclose(again.shapley.sum(), again.utility, **SAME)


def test_near_duplicates_inside_and_against_the_test_rows():
    enc = rows(30)
    keys = np.concatenate([enc.keys, enc.keys[:2] + 1e-5])
    memory = rs.Memory(rs.Encoded(keys, np.zeros((32, 3)), np.append(enc.labels, [0, 0])))
    test = rs.Encoded(np.stack([enc.keys[4], enc.keys[7] + 50]), np.zeros((2, 3)), [0, 1])
    found = rs.audit(memory, test)
    assert found.duplicate.nonzero()[0].tolist() == [0, 1, 30, 31]
    assert found.nearest[[0, 1, 30, 31]].tolist() == [30, 31, 0, 1]
    assert found.test_duplicate.nonzero()[0].tolist() == [4] and found.nearest_test[4] == 0
    distances = np.linalg.norm(keys[:, None] - test.keys, axis=2)
    np.testing.assert_array_equal(found.nearest_test, distances.argmin(axis=1))
    np.testing.assert_allclose(found.test_distance, distances.min(axis=1), rtol=1e-5)


def test_the_queue_begins_with_the_most_doubtful_label():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 40)
    keys, given = rng.normal(size=(80, 2)) + 6 * truth[:, None], truth.copy()
    given[[3, 50]] ^= 1
    memory = rs.Memory(rs.Encoded(keys, np.zeros((80, 2)), given, classes=["cat", "dog"]), names={3: "a.png"})
    found = rs.audit(memory)
    frame = found.to_frame()
    assert sorted(frame.index[:2]) == [3, 50] and (frame.margin.diff().dropna() >= 0).all()
    assert frame.loc[3, ["id", "name", "label", "suggested"]].tolist() == [3, "a.png", "dog", "cat"]
    assert frame.loc[50, "name"] == "50" and frame.shapley.idxmin() in (3, 50)
    assert "a.png" in str(found) and "the reader says another label" in str(found) and "80 rows" in repr(found)
    assert "a.png" in found._repr_html_() and found.to_dict()["doubtful"] == (frame.margin < 0).sum()
    assert found.to_frame(["x", "y"]).label.loc[3] == "y"
    assert len(memory) == 80 and memory.labels.tolist() == given.tolist()


def test_the_graph_has_the_neighbours_of_every_row():
    enc = rows(20)
    graph = rs.audit(votes(rs.Memory(enc), 3)).knn_graph
    near = rs.Memory(enc).search(enc.keys, 3, exclude=np.arange(20))
    assert graph.shape == (20, 20) and np.diff(graph.indptr).tolist() == [3] * 20
    assert graph.indices.reshape(20, 3).tolist() == near.rows.tolist()
    np.testing.assert_allclose(graph.data.reshape(20, 3), near.distances, rtol=1e-6)
    crowded = rs.Encoded(enc.keys, enc.logits, enc.labels, np.maximum(np.arange(20) - 14, 0))
    few = rs.audit(votes(rs.Memory(crowded), 18)).knn_graph  # 15 rows of one id have but 5 others
    assert np.diff(few.indptr).tolist() == [5] * 20


def test_a_memory_without_logits_and_a_trained_index_are_reviewed_too():
    enc = rows(60)
    plain = rs.audit(rs.Memory(enc))
    labels = rs.audit(rs.Memory(enc, storage="none"))
    votes_alone = rs.KNNLM(rs.Memory(enc), 50, 1.0, kernel="exponential").predict(enc, exclude=np.arange(60))
    assert (labels.suggested == votes_alone).mean() > 0.95  # but for ties, and the floor
    np.testing.assert_array_equal(plain.shapley, labels.shapley)
    half = rs.audit(rs.Memory(enc, key_dtype="float16"))
    assert np.corrcoef(plain.margin, half.margin)[0, 1] > 0.95
    pytest.importorskip("faiss")
    trained = rs.audit(rs.Memory(enc, index="IVF1,Flat"))
    np.testing.assert_allclose(trained.margin, plain.margin, atol=1e-5)
    assert trained.shapley_error > 0


def test_one_class_alone_has_nothing_to_doubt():
    enc = rs.Encoded(np.arange(5.0)[:, None], np.zeros((5, 2)), np.zeros(5, int))
    found = rs.audit(rs.Memory(enc))
    assert (found.margin > 1).all() and np.allclose(found.memorisation, 0, atol=1e-5)
    np.testing.assert_allclose(found.shapley.sum(), found.utility, **SAME)


def test_what_cannot_be_reviewed_is_refused_in_words():
    memory = rs.Memory(rows(10))
    with pytest.raises(ParameterError, match="k=0"):
        rs.audit(rs.KNNLM(memory, 0))
    with pytest.raises(ParameterError, match="got a int"):
        rs.audit(3)
    with pytest.raises(ParameterError, match="epsilon"):
        rs.audit(memory, epsilon=0)
    with pytest.raises(ParameterError, match="duplicates"):
        rs.audit(memory, duplicates=-1)
    with pytest.raises(InputError, match="none"):
        rs.audit(memory, [])
    with pytest.raises(LabelError, match="no labels"):
        rs.audit(memory, rs.Encoded(np.zeros((2, 2)), np.zeros((2, 3))))
    numbers = rs.Encoded(np.arange(9.0)[:, None], np.zeros(9), np.arange(9.0))
    with pytest.raises(TaskError, match="regression"):
        rs.audit(rs.Memory(numbers))
    with pytest.raises(TaskError, match="multi-label"):
        rs.audit(rs.Memory(rs.Encoded(np.eye(3), np.eye(3) * 4 - 2, np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]]))))
    with pytest.raises(EmptyMemoryError, match="1 row;"):
        rs.audit(rs.Memory(rows(1)))
    alike = rs.Memory(rs.Encoded(np.zeros((5, 2)), np.zeros((5, 2)), [0, 1, 0, 1, 0]))
    with pytest.raises(InputError, match="are the same"):
        rs.audit(alike)
    with pytest.raises(StorageError, match="audit the memory itself"):
        rs.audit(rs.KNNLM(rs.Memory(rows(10), storage="none"), 3))
