import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residua.uncertainty.quantiles import needed, parted, threshold


@given(st.integers(1, 60), st.floats(0.05, 0.99))
def test_the_threshold_is_the_promised_order_statistic(n, confidence):
    scores = np.random.default_rng(n).permutation(n).astype(float)
    rank = math.ceil(round((n + 1) * confidence, 9))
    assert threshold(scores, confidence) == (rank - 1 if rank <= n else np.inf)
    assert math.isfinite(threshold(scores, confidence)) == (n >= needed(confidence))
    np.testing.assert_array_equal(
        threshold(np.stack([scores, -scores], axis=1), confidence)[0], threshold(scores, confidence)
    )


@pytest.mark.parametrize(("n", "confidence"), [(19, 0.9), (50, 0.9), (33, 0.7)])
def test_new_rows_are_covered_at_the_exact_rate_of_few_calibrating_ones(n, confidence):
    draws = np.random.default_rng(0).exponential(size=(8000, n + 1))
    covered = np.mean([row[-1] <= threshold(row[:-1], confidence) for row in draws])
    exact = math.ceil((n + 1) * confidence) / (n + 1)
    assert abs(covered - exact) < 4 * math.sqrt(exact * (1 - exact) / len(draws))


def test_groups_by_distance_keep_the_rate_though_their_edges_are_estimated():
    rng, covered, n, confidence = np.random.default_rng(0), [], 54, 0.8
    for _ in range(3000):
        distance = rng.uniform(size=n + 1)
        score = rng.exponential(size=n + 1) * np.exp(6 * distance)  # one threshold for all fails the far ones
        edges, kept = parted(distance[:-1], 5)
        groups = np.searchsorted(edges, distance)
        inside = kept & (groups[:-1] == groups[-1])
        covered.append((distance[-1], score[-1] <= threshold(score[:-1][inside], confidence), inside.sum()))
    distance, covered, size = np.array(covered).T
    assert set(size) == {10}  # all but the four edges, in five groups of a size
    exact = math.ceil(11 * confidence) / 11
    for far in (distance > 0.8, distance < 0.2, np.ones(len(distance), bool)):
        assert abs(covered[far].mean() - exact) < 4 * math.sqrt(exact * (1 - exact) / far.sum())


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 7.0, math.inf]), min_size=1, max_size=40))
def test_alike_distances_make_fewer_groups_and_lose_no_more_rows(distances):
    edges, kept = parted(np.array(distances), 5)
    assert (np.diff(edges) > 0).all() and len(edges) <= 4
    assert (~kept).sum() == (4 if len(distances) > 5 else 0)
