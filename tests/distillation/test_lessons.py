"""What a student is taught: the vote and the answer of a reader about rows that it must not know."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.distillation.lessons import lessons
from residua.errors import StorageError


def taught(reader, readout="mixture", asked=True, most=None, seed=0):
    found = lessons(reader, readout, asked, most, seed, False)
    if not asked:
        return found, None
    shares = torch.zeros(len(found), reader.memory.n_outputs)
    return found, shares.scatter_add_(1, found.classes.long(), found.shares).numpy()


def test_the_vote_about_a_row_is_the_others_by_hand():
    memory = rs.Memory(rs.Encoded([[0.0], [1.0], [3.0], [3.5]], np.zeros((4, 2)), [0, 1, 1, 0], ids=[7, 8, 9, 9]))
    found, shares = taught(rs.KNNLM(memory, k=2, sigma=2.0, kernel="exponential"))
    nearer = 1 / (1 + np.exp(-1 / 2))  # of two neighbours, one of which is 1 further away than the other
    # 0 hears 1 and 3.0, 1 hears 0 and 3.0; those of one id never hear each other.
    right = [[0, 1], [nearer, 1 - nearer], [1 - nearer, nearer], [1 - nearer, nearer]]
    np.testing.assert_allclose(shares, right, atol=1e-6)
    assert found.labels.tolist() == [0, 1, 1, 0] and found.logits is None and found.weights is None


@pytest.mark.parametrize("make", [rs.ResMem, rs.KNNLM])
def test_a_residual_read_out_is_taught_the_whole_answer(make):
    rng = np.random.default_rng(0)
    data = rs.Encoded(
        rng.normal(size=(80, 3)), rng.normal(size=(80, 4)), rng.integers(0, 4, 80), ids=np.arange(80) // 2
    )
    reader = make(rs.Memory(data), k=9, temperature=1.5)
    found, shares = taught(reader, "residual")
    np.testing.assert_allclose(shares, reader.predict_proba(data), atol=1e-6)
    assert found.temperature == 1.5 and found.logits.shape == (80, 4)


def test_of_many_classes_the_likeliest_are_kept():
    rng = np.random.default_rng(0)
    data = rs.Encoded(rng.normal(size=(300, 2)), np.zeros((300, 200)), rng.integers(0, 200, 300))
    found, shares = taught(rs.KNNLM(rs.Memory(data), k=299))
    assert found.classes.shape == (300, 64)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)


def test_rows_without_neighbours_are_taught_their_label_alone():
    memory = rs.Memory(rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), [0, 1], ids=[5, 5]))
    assert taught(rs.KNNLM(memory, k=1))[1].tolist() == [[0, 0], [0, 0]]


def test_keys_that_float32_cannot_hold_keep_their_differences():
    seconds = 1.7e9 + np.arange(40.0)[:, None] / 100
    memory = rs.Memory(rs.Encoded(seconds, np.zeros((40, 2)), np.arange(40) % 2))
    found, _ = taught(rs.KNNLM(memory, k=3), asked=False)
    np.testing.assert_allclose(found.keys.numpy(), seconds, rtol=0, atol=1e-3)


def test_some_rows_alone_drawn_by_the_seed_and_forgotten_ones_never():
    rng = np.random.default_rng(0)
    memory = rs.Memory(rs.Encoded(np.arange(50.0)[:, None], rng.normal(size=(50, 2)), rng.integers(0, 2, 50)))
    memory.forget(np.arange(10))
    first, again, other = (taught(rs.KNNLM(memory, k=3), most=20, seed=seed)[0] for seed in (0, 0, 1))
    assert len(first) == 20 and first.keys.min() >= 10
    assert first.keys.equal(again.keys) and not first.keys.equal(other.keys)
    assert len(taught(rs.KNNLM(memory, k=3), most=1000)[0]) == 40


def test_rows_count_as_the_memory_weighs_them():
    data = rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1], columns={"weight": [1.0, 2.0, 0.0]})
    found, _ = taught(rs.KNNLM(rs.Memory(data), k=1, class_weight={0: 3, 1: 1}), asked=False)
    ratio = found.weights / found.weights[1]
    np.testing.assert_allclose(ratio, [1.5, 1, 0], rtol=1e-6)


def test_what_the_memory_must_have_kept():
    rows = rs.Encoded(np.random.default_rng(0).normal(size=(200, 8)), np.zeros((200, 2)), np.arange(200) % 2)
    bare = rs.Memory(rows, storage="none")
    assert len(taught(rs.KNNLM(bare, k=2))[0]) == 200  # a vote needs labels alone
    with pytest.raises(StorageError, match="readout='mixture'"):
        taught(rs.KNNLM(bare, k=2), "residual")
    packed = rs.Memory(rows, index="SQ8")
    packed.discard_keys()
    with pytest.raises(StorageError, match="discarded"):
        taught(rs.KNNLM(packed, k=2, sigma=1.0))
