"""Probabilities of a few touched classes against dense ones in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from residua.core import DenseLogits, Softmax, SparseProbabilities
from residua.core.probabilities import merge


def dense(p: SparseProbabilities) -> np.ndarray:
    """The definition, row by row."""
    own = torch.softmax(p.softmax.logits.dense().double() / p.softmax.temperature, dim=1).numpy()
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
    return SparseProbabilities.of(Softmax(logits, temperature)).mix(1 - share, ids, values * share)


def check(p: SparseProbabilities, expected=None):
    expected = dense(p) if expected is None else expected
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
        check(p.mix(torch.full((q, 1), 0.7), torch.zeros(q, 2).long(), torch.full((q, 2), 0.15)))


def test_more_rows_than_are_worked_on_at_once():
    """A vocabulary of which few rows fit into the working memory: as each row alone."""
    width, whole = 300_000, made(3, q=11, width=300_000, entries=40)
    log_probabilities, best = whole.log_probabilities(), whole.argmax()
    np.testing.assert_allclose(log_probabilities.exp().sum(dim=1), 1, atol=1e-4)
    ids, values = merge(whole.ids, whole.values)
    for row in range(11):
        part = slice(row, row + 1)
        alone = SparseProbabilities(whole.softmax[part], whole.scale[part], whole.ids[part], whole.values[part])
        torch.testing.assert_close(alone.log_probabilities(), log_probabilities[part])
        assert alone.argmax().tolist() == best[part].tolist() == log_probabilities[part].argmax(dim=1).tolist()
        found, expected = (torch.zeros(width).index_add_(0, i.clamp_min(0), v) for i, v in (
            (ids[row], values[row]), (whole.ids[row], whole.values[row])
        ))  # fmt: skip
        torch.testing.assert_close(found, expected)
        kept = ids[row][ids[row] >= 0]
        assert len(kept.unique()) == len(kept)


def test_the_base_alone_keeps_its_logarithms():
    logits = torch.tensor([[0.0, -300.0, 5.0]])
    p = SparseProbabilities.of(Softmax(DenseLogits(logits)))
    torch.testing.assert_close(p.log_prob(torch.tensor([1])), torch.log_softmax(logits, dim=1)[:, 1])
    torch.testing.assert_close(p.log_probabilities(), torch.log_softmax(logits, dim=1))
    mixed = p.mix(torch.tensor([[0.5]]), torch.tensor([[2, -1]]), torch.tensor([[0.5, 0.0]]))
    expected = torch.log_softmax(logits, dim=1)[:, 1] + np.log(0.5)
    torch.testing.assert_close(mixed.log_prob(torch.tensor([1])), expected)
    torch.testing.assert_close(mixed.log_probabilities()[:, 1], expected)


def test_a_lowered_favourite_gives_way_to_any_token():
    """The base's best token is lowered: the likeliest has no entry."""
    base = Softmax(DenseLogits(torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.5, 0.1, 0.3, 0.1]]).log()))
    ids, values = torch.tensor([[0, 1], [0, 1]]), torch.tensor([[-0.3, 0.1], [-0.1, 0.1]])
    lowered = SparseProbabilities(base, torch.full((2, 1), 1.25), ids, values, torch.full((2, 1), 0.25))
    assert lowered.argmax().tolist() == [2, 0]
    expected = [[0.325, 0.225, 0.375, 0.125], [0.525, 0.225, 0.375, 0.125]]
    np.testing.assert_allclose(lowered.log_probabilities().exp(), expected, atol=1e-6)


def test_the_floor_decides():
    base = Softmax(DenseLogits(torch.tensor([[0.5, 0.5]]).log()))
    p = SparseProbabilities(base, torch.ones(1, 1), torch.tensor([[0]]), torch.tensor([[-0.6]]), torch.tensor([[1e-9]]))
    np.testing.assert_allclose(p.log_prob(torch.tensor([0])), np.log(0.5e-9), rtol=1e-6)
    np.testing.assert_allclose(p.log_probabilities()[:, 0], np.log(0.5e-9), rtol=1e-6)


@given(
    st.integers(0, 10**6), st.integers(2, 9), st.integers(0, 14), st.sampled_from([1e-9, 0.1, 0.9, 1]), st.booleans()
)
def test_changed_is_the_floored_score_renormalised(seed, width, entries, floor, some):
    """``p ∝ max(scale * p_T + entries, floor * p_T)`` in float64, of all rows or of some."""
    rng = torch.Generator().manual_seed(seed)
    base = Softmax(DenseLogits(2 * torch.randn(6, width, generator=rng)), 1.3)
    asked = torch.tensor([0, 2, 5]) if some else None
    q = 3 if some else 6
    ids = torch.randint(-1, width, (q, entries), generator=rng)
    signed = bool(seed % 2)
    values = torch.randn(q, entries, generator=rng) if signed else torch.rand(q, entries, generator=rng)
    values = (values / max(entries, 1)).masked_fill_(ids < 0, 0)
    left = values.sum(dim=1, keepdim=True) if not signed else torch.zeros(q, 1)
    scale = 1 - left  # what is added was taken away before
    if signed:  # entries that sum to 0
        values -= (ids >= 0) * values.sum(dim=1, keepdim=True) / (ids >= 0).sum(dim=1, keepdim=True).clamp_min(1)
    p = SparseProbabilities.changed(base, scale, (ids, values), signed, floor, asked)

    expected = torch.softmax(base.logits.dense().double() / 1.3, dim=1)
    for row, place in enumerate(range(6) if asked is None else asked.tolist()):
        score = expected[place] * scale[row].double()
        score.index_add_(0, ids[row].clamp_min(0), values[row].double())
        proper = torch.maximum(score, floor * expected[place])
        expected[place] = proper / proper.sum()
    check(p, expected.numpy())


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
