"""Queries whose true neighbours are known: their lists, and the recall measured by them, are those of brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.index import GroundTruth, Index
from residua.index.ground_truth import DEPTH, QUERIES


def some(n, at=0.0, seed=0, dim=4):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)) + at


def everything(n):
    return torch.ones(n, dtype=torch.bool)


def brute(queries, keys, first):
    """Row numbers and squared distances, float64, of the DEPTH nearest keys from row `first` on."""
    squared = (queries[:, None].double() - keys[None, first:].double()).square().sum(dim=2)
    rows = torch.arange(first, len(keys)).expand(len(queries), -1)
    order = np.lexsort((rows.numpy(), squared.float().numpy()))[:, :DEPTH]
    return rows.gather(1, torch.from_numpy(order)), squared.gather(1, torch.from_numpy(order))


class Scripted(Index):
    """Answers from keys of its own, as if each had been moved: codes of a kind."""

    needs_keys = False

    def __init__(self, dim, device="cpu", **params):
        super().__init__(dim, device, **params)
        self.codes = torch.empty(0, dim)

    @property
    def n(self):
        return len(self.codes)

    def _build(self, keys):
        self.codes = keys.clone()

    def _add(self, keys):
        self.codes = torch.cat([self.codes, keys])

    def _propose(self, queries, count):
        squared = torch.cdist(queries.double(), self.codes.double()).square()
        found = squared.topk(min(count, self.n), dim=1, largest=False)
        return found.indices, found.values.float()


def scripted(codes):
    index = Scripted(codes.shape[1])
    index._build(codes)
    index._remember_all(len(codes))
    return index


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=5), st.booleans(), st.integers(0, 99))
def test_lists_are_those_of_brute_force(sizes, whole, seed):
    """Also where many keys are the same distance away."""
    keys = some(30 + sum(sizes), seed=seed, dim=2)
    keys = keys.round() if whole else keys
    truth, n, drawn = GroundTruth.none(2).drawn(keys[:30], 0, everything(30)), 30, 0
    for number, size in enumerate(sizes):
        truth, n = truth.appended(keys[n : n + size], n), n + size
        if number == 1 and size > 1:
            truth, drawn = truth.drawn(keys[n - size : n], n - size, everything(size)), n
    assert len(truth) <= QUERIES and truth.drawn_at == (drawn or 30)
    for first in truth.since.unique().tolist():
        of = truth.since == first
        rows, squared = brute(truth.queries[of], keys[:n], first)
        assert torch.equal(truth.rows[of][:, : rows.shape[1]], rows)
        torch.testing.assert_close(truth.squared[of][:, : rows.shape[1]].double(), squared, atol=1e-5, rtol=1e-5)
        assert (truth.rows[of][:, rows.shape[1] :] == -1).all() and truth.squared[of][:, rows.shape[1] :].isinf().all()


def test_no_query_is_a_key():
    keys = some(500)
    truth = GroundTruth.none(4).drawn(keys, 0, everything(500))
    assert len(truth) == QUERIES and torch.cdist(truth.queries, keys).min() > 1e-3


def test_recall_is_that_of_brute_force():
    keys = some(600)
    truth, remembered = GroundTruth.none(4).drawn(keys, 0, everything(600)), everything(600)
    remembered[::3] = False
    noisy = keys + some(600, seed=1) / 4
    index = scripted(noisy)
    for forgotten in (torch.empty(0, dtype=torch.int64), (~remembered).nonzero()[:, 0]):
        index.forget(forgotten)
        here = everything(600)
        here[forgotten] = False
        rows = here.nonzero()[:, 0]
        true, seen = (
            rows[torch.cdist(truth.queries, of[rows]).topk(50, largest=False).indices] for of in (keys, noisy)
        )
        expected = np.mean([len(set(a) & set(b)) / 50 for a, b in zip(true.tolist(), seen.tolist())])
        found = truth.recall(index, here)
        assert found.value == pytest.approx(expected, abs=1e-3) and 0.4 < found.value < 0.9
        assert (found.k, found.queries, found.n, found.rows) == (50, QUERIES, len(rows), 600)
    assert truth.recall(scripted(keys), everything(600)).value == 1.0


@pytest.mark.parametrize("lost", ["as one place", "far away"])
def test_rows_that_codes_cannot_tell_apart_or_lost_are_missed(lost):
    """Whether they are all found, in any order, or none of them."""
    old, new = some(1000), some(400, at=20.0, seed=1)
    codes = torch.cat([old, new * 0 + 20 if lost == "as one place" else new * 0 - 1e4])
    truth = GroundTruth.none(4).drawn(old, 0, everything(1000)).appended(new, 1000).drawn(new, 1000, everything(400))
    index = scripted(codes)
    measured = truth.recall(index, everything(1400))
    assert measured.value < 0.3 and measured.queries == QUERIES // 2
    with pytest.warns(UserWarning, match="building the memory again"):
        truth.keep_recall_true(index, everything(1400))
    assert index.recall == measured
    truth.keep_recall_true(index, everything(1400))  # nothing new: nothing is said


def test_copies_beyond_the_depth_are_no_misses():
    """Of rows in one place any is as good as another."""
    keys = torch.cat([some(300), torch.ones(4 * DEPTH, 4)])
    truth = GroundTruth.none(4).drawn(keys, 0, everything(len(keys)))
    index = scripted(keys)
    index._propose = lambda queries, count: backwards(keys, queries, count)
    assert truth.recall(index, everything(len(keys))).value == 1.0


def backwards(keys, queries, count):
    """The nearest keys, of equal ones the last first."""
    squared = (queries[:, None] - keys).square().sum(dim=2).flip(1).sort(dim=1, stable=True)
    return len(keys) - 1 - squared.indices[:, :count], squared.values[:, :count]


def test_where_nothing_is_known():
    keys = some(50)
    index = scripted(keys)
    assert GroundTruth.none(4).recall(index, everything(50)) is None
    assert len(GroundTruth.none(4).drawn(keys[:1], 0, everything(1))) == 0
    assert len(GroundTruth.none(4).drawn(keys, 0, ~everything(50))) == 0
    truth = GroundTruth.none(4).drawn(keys, 0, everything(50))
    assert truth.recall(index, ~everything(50)) is None
    few = everything(50)
    few[2:] = False
    index.forget(torch.arange(2, 50))
    assert truth.recall(index, few).value == 1.0


def test_queries_beyond_what_distances_hold_are_not_drawn():
    keys = some(60).clamp(-1, 1) * (torch.finfo(torch.float32).max / 16) ** 0.5  # as far as a schema lets them be
    truth = GroundTruth.none(4).drawn(keys, 0, everything(60)).appended(keys, 60)
    assert 0 < len(truth) < 60 and truth.squared[truth.rows >= 0].isfinite().all()


def test_a_sliding_window_leaves_half_of_those_drawn_before():
    truth, n = GroundTruth.none(4), 0
    for step in range(6):
        keys = some(100, seed=step)
        truth, n = truth.appended(keys, n).drawn(keys, n, everything(100)), n + 100
    counts = [int((truth.born == born).sum()) for born in range(100, 700, 100)]
    assert sum(counts) == QUERIES == 2 * counts[-1] and sum(counts[:3]) < sum(counts[3:5])
