"""Few queries are answered by NumPy, and as many are by torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import residua as rs
from residua.core import DenseLogits, Head
from residua.readers import Kernel, register_kernel
from residua.readers.few import ENTRIES

WEIGHT = np.random.default_rng(9).normal(size=(5, 3)).astype(np.float32)


def made(n, seed, classes=5):
    generator = np.random.default_rng(seed)
    keys = generator.normal(size=(n, 3)).astype(np.float32)
    labels = np.where(generator.random(n) < 0.6, (keys @ WEIGHT.T).argmax(axis=1), generator.integers(classes, size=n))
    return rs.Encoded(keys, (keys @ WEIGHT.T).astype(np.float32), labels, head=Head(torch.from_numpy(WEIGHT)))


def pooled(memory, k, **params):
    widths, rng = [0.2, 0.9], np.random.default_rng(k)
    return rs.Pooled(memory, k, widths, coefficients=rng.normal(size=9), **params)


READERS = {
    "resmem": lambda memory, k, sigma, **params: rs.ResMem(memory, k, sigma, **params),
    "exponent": lambda memory, k, sigma, **params: rs.ResMem(
        memory, k, sigma, space="exponent", base_weight=0.8, residual_weight=3.0, **params
    ),
    "knnlm": lambda memory, k, sigma, **params: rs.KNNLM(memory, k, 0.3, sigma, **params),
    "label k-NN": lambda memory, k, sigma, **params: rs.KNNLM(memory, k, 1.0, sigma, **params),
    "pooled": lambda memory, k, sigma, **params: pooled(memory, k, **params),
}


def both(reader, queries):
    """The answers by NumPy, and by torch."""
    ((_, few),) = reader.predictions(queries)
    return few, replace(few, by_numpy=None)


@pytest.mark.parametrize("name", READERS)
@given(
    st.integers(0, 10**6),
    st.integers(1, 9),
    st.integers(1, 40),
    st.floats(0.01, 100),
    st.sampled_from([1.0, 0.3, 4.0]),
    st.sampled_from(["exponential", "gaussian"]),
    st.sampled_from(["full", "head"]),
)
def test_numpy_says_what_torch_says(name, seed, q, k, sigma, temperature, kernel, storage):
    reader = READERS[name](rs.Memory(made(60, seed), storage=storage), k, sigma, temperature=temperature, kernel=kernel)
    few, expected = both(reader, made(q, seed + 1))
    assert few.few is not None and expected.few is None
    for floor in (few.floor, 0.0, 0.9):
        one, other = (replace(now, floor=floor) for now in (few, expected))
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.start, other.start, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(one.probabilities, other.probabilities, rtol=1e-4, atol=2e-6)
        said = one.log_probabilities()
        sure = other.probabilities > 1e-3  # others are what float32 rounds a sum of 1 by
        torch.testing.assert_close(said[sure], other.log_probabilities()[sure], rtol=1e-4, atol=2e-4)
        assert said.isfinite().all()
    torch.testing.assert_close(few.few.partition(), torch.logsumexp(few.base.logits.dense(), 1).numpy())


@pytest.mark.parametrize("name", READERS)
def test_losses_of_an_attached_row_are_those_of_a_batch(name):
    memory, test = rs.Memory(made(500, 0)), made(40, 1)
    reader = READERS[name](memory, 9, 0.5)
    one = np.concatenate([reader.scores(test[i]) for i in range(40)])
    np.testing.assert_allclose(one, reader.scores(test), atol=1e-5)
    losses = [
        cross_entropy(torch.from_numpy(np.log(reader.predict_proba(test[:n]))), torch.from_numpy(test.labels[:n]))
        for n in (1, 40)
    ]
    assert all(map(torch.isfinite, losses))


def test_what_is_not_plain_is_left_to_torch():
    memory, row = rs.Memory(made(60, 0)), made(1, 1)

    class Doubled(rs.ResMem):
        def weights(self, neighbours, queries):
            return 2 * super().weights(neighbours, queries)

    own = register_kernel(Kernel("as near", lambda d, sigma: torch.zeros_like(d)))
    weighted = made(60, 0)
    weighted.columns["weight"] = np.linspace(0, 1, 60).astype(np.float32)
    for reader in (
        Doubled(memory, 5),
        rs.ResMem(memory, 5, kernel=own),
        rs.ResMem(memory, 5, 1e-300),
        rs.ResMem(memory, 5, class_weight="balanced"),
        rs.ResMem(rs.Memory(weighted), 5),
        rs.ResMem(rs.Memory(made(60, 0), storage="top-m", m=2), 5),
        rs.KNNLM(memory, 0),
    ):
        ((_, now),) = reader.predictions(row)
        assert now.few is None
        assert now.probabilities.isfinite().all()
    ((_, now),) = rs.ResMem(memory, 5).read(torch.from_numpy(row.keys), DenseLogits(row.logits.dense() * torch.nan))
    assert now.few is None
    reader = rs.ResMem(memory, 5)
    memory.forget(range(57))  # 3 neighbours are left
    ((_, now),) = reader.predictions(row)
    assert now.few is None and now.scores.isfinite().all()


def test_many_are_left_to_torch():
    reader = rs.KNNLM(rs.Memory(made(60, 0)), 5)
    ((_, few),) = reader.predictions(made(1000, 1))
    assert few.few is not None
    wide = rs.Encoded(np.eye(3), np.zeros((3, ENTRIES // 3)), [0, 1, 2])
    ((_, now),) = rs.KNNLM(rs.Memory(wide), 2).predictions(wide)
    assert now.few is not None
    wide = rs.Encoded(np.eye(3), np.zeros((3, ENTRIES // 3 + 1)), [0, 1, 2])
    ((_, now),) = rs.KNNLM(rs.Memory(wide), 2).predictions(wide)
    assert now.few is None


def test_what_is_answered_is_of_its_moment():
    memory, row = rs.Memory(made(60, 0)), made(1, 1)
    reader = rs.ResMem(memory, 5, 0.5)
    before = reader.scores(row)
    ((_, now),) = reader.predictions(row)
    memory.relabel(memory.ids, 0)
    np.testing.assert_array_equal(now.scores.numpy(), before)
    assert (reader.scores(row) != before).any()
