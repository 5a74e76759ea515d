import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.errors import InputError
from residua.tuning.likelihood import Targets


def some(n, seed=0, a=3, b=2, temperatures=2):
    """Tokens of every kind: retrieved, not retrieved, without neighbours."""
    rng = np.random.default_rng(seed)
    given = rng.uniform(0, 1, (a, b, n)).astype(np.float32)
    given[:, :, rng.random(n) < 0.4] = 0
    given[rng.random(given.shape) < 0.2] = 0
    given[:, :, rng.random(n) < 0.2] = -1
    base = np.log(rng.uniform(1e-6, 1, (temperatures, n)))
    sure = rng.uniform(0, 1, (temperatures, n)).astype(np.float32)
    documents = np.arange(n) // 3
    return Targets(*map(torch.from_numpy, (given, base, sure, rng.uniform(0, 5, n).astype(np.float32), documents)))


def dense(targets, shares, skip):
    q = targets.p_neighbours.double().numpy()[:, :, None, None, :]
    p = np.exp(targets.log_p_base.numpy())[:, None, :]
    mixed = np.log((1 - shares[:, None]) * p + shares[:, None] * np.maximum(q, 0))
    left = (q < 0) | ((targets.p_max.numpy() >= (2 if skip is None else skip))[:, None, :])
    return np.where(left, np.log(p), mixed)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 30), st.sampled_from([None, 0.3, 0.9]))
def test_every_setting_is_the_sum_of_its_tokens(seed, n, skip):
    targets, shares = some(n, seed), np.array([0.0, 0.2, 0.9])
    expected = dense(targets, shares, skip)
    np.testing.assert_allclose(targets.log_likelihood(shares, skip), expected.sum(axis=-1), rtol=1e-6, atol=1e-9)
    one = targets.per_row((2, 1, 0), 0.2, skip)
    np.testing.assert_allclose(one.numpy(), expected[2, 1, 0, 1], rtol=1e-6, atol=1e-9)


def test_what_the_base_finds_impossible_the_memory_may_know():
    known = torch.tensor([[[1.0, 0.0]]])
    targets = Targets(known, torch.full((1, 2), -100.0).double(), torch.zeros(1, 2), torch.zeros(2), torch.zeros(2))
    expected = np.log(0.5) + (np.log(0.5) - 100)
    assert targets.log_likelihood(np.array([0.5])).item() == pytest.approx(expected, rel=1e-9)


def test_joined_parts_are_the_whole():
    parts = [some(n, seed) for seed, n in enumerate((5, 1, 8))]
    whole = Targets.join(parts)
    assert len(whole) == 14
    shares = np.array([0.3])
    np.testing.assert_allclose(whole.log_likelihood(shares), sum(part.log_likelihood(shares) for part in parts))


def test_remembered_weights_are_counted_as_quickly_and_as_exactly():
    rng = np.random.default_rng(5)

    def rows(n, **columns):
        keys = rng.normal(size=(n, 2)).astype(np.float32)
        labels = (keys[:, 0] > 0).astype(int)
        return rs.Encoded(keys, rng.normal(size=(n, 2)), labels, columns=columns)

    memory, asked = rs.Memory(rows(80, weight=rng.uniform(0, 2, 80).astype(np.float32))), rows(60)
    grid = {"k": [5, 20], "sigma": [0.1, 0.5], "temperature": [1.0, 2.0], "lmbda": [0.2, 0.5]}
    quick, slow = (rs.tune(rs.KNNLM(memory), data, grid, evidence=None) for data in (asked, iter([asked])))
    assert quick.best_params_ == slow.best_params_
    assert quick.results_["score"] == pytest.approx(slow.results_["score"], rel=1e-5)
    assert set(quick.results_) < set(slow.results_)  # the slow way counts right answers, too
    weighed = rows(60, weight=rng.uniform(0, 2, 60).astype(np.float32))
    with pytest.raises(InputError, match="some of the rows have a column 'weight'"):
        rs.tune(rs.KNNLM(memory), [asked, weighed], grid)
