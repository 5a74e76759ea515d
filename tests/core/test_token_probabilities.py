"""Sparse probabilities against dense ones in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from residua.core import DenseLogits, Softmax, TokenProbabilities, merge
from residua.core import token_probabilities as module


def dense(p: TokenProbabilities) -> np.ndarray:
    """The definition, row by row."""
    own = torch.softmax(p.logits.dense().double() / p.temperature, dim=1).numpy()
    out = own * p.scale.double().numpy()
    for row, (ids, values) in enumerate(zip(p.ids.tolist(), p.values.double().tolist(), strict=True)):
        for token, value in zip(ids, values, strict=True):
            if token >= 0:
                out[row, token] += value
    return out if p.floor is None else np.maximum(out, own * p.floor.double().numpy())


def made(seed, q=6, width=7, entries=9, temperature=1.3):
    """An interpolation with a distribution over random, repeating tokens, some of them missing."""
    rng = torch.Generator().manual_seed(seed)
    logits = DenseLogits(2 * torch.randn(q, width, generator=rng))
    ids = torch.randint(-1, width, (q, entries), generator=rng)
    values = torch.rand(q, entries, generator=rng).masked_fill_(ids < 0, 0)
    values /= values.sum(dim=1, keepdim=True).clamp_min(1e-9)
    share = torch.rand(q, 1, generator=rng) * (values.sum(dim=1, keepdim=True) > 0)
    return TokenProbabilities.of(logits, temperature).mix(share, ids, values)


def check(p: TokenProbabilities):
    expected = dense(p)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(p.log_probabilities().exp(), expected, atol=1e-6)
    columns = [p.log_prob(torch.full((len(p),), token)) for token in range(expected.shape[1])]
    np.testing.assert_allclose(torch.stack(columns, dim=1), np.log(expected), rtol=1e-5, atol=1e-4)
    chosen = expected[np.arange(len(p)), p.argmax().numpy()]
    np.testing.assert_allclose(chosen, expected.max(axis=1), rtol=1e-5)


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 20), st.integers(0, 9))
def test_equals_the_dense_formula(seed, width, entries, q):
    p = made(seed, q, width, entries)
    if q:
        check(p)
        check(p.mix(0.3, torch.zeros(q, 2).long(), torch.full((q, 2), 0.5)))


@pytest.mark.parametrize("name", ["ENTRIES", "SCRATCH"])
def test_blocks_are_one_answer(name, monkeypatch):
    whole, ids = made(3, q=11), made(3, q=11).ids
    merged = merge(ids, whole.values)
    monkeypatch.setattr(module, name, 10)
    parts = made(3, q=11)
    check(parts)
    torch.testing.assert_close(parts.argmax(), whole.argmax())
    torch.testing.assert_close(parts.log_probabilities(), whole.log_probabilities())
    for one, other in zip(merge(ids, whole.values), merged, strict=True):
        torch.testing.assert_close(one, other)


def test_the_base_alone_keeps_its_logarithms():
    logits = torch.tensor([[0.0, -300.0, 5.0]])
    p = TokenProbabilities.of(DenseLogits(logits))
    torch.testing.assert_close(p.log_prob(torch.tensor([1])), torch.log_softmax(logits, dim=1)[:, 1])
    torch.testing.assert_close(p.log_probabilities(), torch.log_softmax(logits, dim=1))
    mixed = p.mix(0.5, torch.tensor([[2, -1]]), torch.tensor([[1.0, 0.0]]))
    expected = torch.log_softmax(logits, dim=1)[:, 1] + np.log(0.5)
    torch.testing.assert_close(mixed.log_prob(torch.tensor([1])), expected)
    torch.testing.assert_close(mixed.log_probabilities()[:, 1], expected)


def test_a_lowered_favourite_gives_way_to_any_token():
    """The base's best token is lowered: the likeliest has no entry."""
    base = Softmax(DenseLogits(torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.5, 0.1, 0.3, 0.1]]).log()))
    ids, values = torch.tensor([[0, 1], [0, 1]]), torch.tensor([[-0.3, 0.1], [-0.1, 0.1]])
    lowered = TokenProbabilities(base, torch.full((2, 1), 1.25), ids, values, torch.full((2, 1), 0.25))
    assert lowered.argmax().tolist() == [2, 0]
    expected = [[0.325, 0.225, 0.375, 0.125], [0.525, 0.225, 0.375, 0.125]]
    np.testing.assert_allclose(lowered.log_probabilities().exp(), expected, atol=1e-6)


def test_the_floor_decides():
    base = Softmax(DenseLogits(torch.tensor([[0.5, 0.5]]).log()))
    p = TokenProbabilities(base, torch.ones(1, 1), torch.tensor([[0]]), torch.tensor([[-0.6]]), torch.tensor([[1e-9]]))
    np.testing.assert_allclose(p.log_prob(torch.tensor([0])), np.log(0.5e-9), rtol=1e-6)
    mixed = p.mix(0.25, torch.tensor([[1]]), torch.ones(1, 1))
    np.testing.assert_allclose(mixed.at(torch.tensor([0])), 0.75 * 0.5e-9, rtol=1e-5)


def test_at():
    p = made(1, q=3)
    tokens = torch.tensor([[0, 6], [3, 3], [1, 2]])
    np.testing.assert_allclose(p.at(tokens), np.take_along_axis(dense(p), tokens.numpy(), axis=1), atol=1e-6)
    np.testing.assert_allclose(p.at(tokens[:, 0]), p.at(tokens)[:, 0])
    assert p.at(tokens[:, :0]).shape == (3, 0)


@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(0, 12))
def test_merge(seed, q, entries):
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(-1, 5, (q, entries)))
    values = torch.from_numpy(rng.normal(size=(q, entries)).astype(np.float32)).masked_fill_(ids < 0, 0)
    once, summed = merge(ids, values)
    for row in range(q):
        found = {i: v for i, v in zip(once[row].tolist(), summed[row].tolist(), strict=True) if i >= 0}
        assert len(found) == (once[row] >= 0).sum()
        expected = {i: values[row][ids[row] == i].sum().item() for i in ids[row].tolist() if i >= 0}
        assert found == pytest.approx(expected, abs=1e-6)
        assert (summed[row][once[row] < 0] == 0).all()
