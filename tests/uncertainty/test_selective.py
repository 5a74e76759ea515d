import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from residua.uncertainty.selective import risk_coverage, sure_enough


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_the_curve_counts_the_most_confident_first(rows):
    confidence, wrong = (np.array(column) for column in zip(*rows))
    curve = risk_coverage(confidence, wrong)
    assert curve[-1] == np.mean(wrong)
    best = np.flatnonzero(confidence == confidence.max())[0]
    assert curve[0] == wrong[best]


def test_a_perfect_order_has_the_smallest_area():
    wrong = np.arange(10) >= 7
    assert risk_coverage(-np.arange(10.0), wrong).mean() < risk_coverage(np.arange(10.0), wrong).mean()


def test_the_risk_is_kept_as_often_as_is_promised():
    rng, broken, answered = np.random.default_rng(0), 0, []
    for _ in range(300):
        confidence = rng.uniform(size=2000)
        edge = sure_enough(confidence, rng.uniform(size=2000) > confidence, 0.15, 0.9)
        answered.append(1 - min(max(edge, 0), 1))
        broken += answered[-1] / 2 > 0.15  # the true risk beyond an edge e is (1 - e) / 2: kept from .7 on
    assert broken / 300 < 0.1 + 3 * math.sqrt(0.09 / 300)
    assert np.mean(answered) > 0.15  # of .3 that could be answered, were the risk known


def test_nothing_is_vouched_for_without_evidence_and_everything_with_enough():
    assert sure_enough(np.linspace(0, 1, 20), np.zeros(20, bool), 0.05, 0.95) == math.inf
    assert sure_enough(np.linspace(0, 1, 2000), np.zeros(2000, bool), 0.05, 0.95) == -math.inf
    assert sure_enough(np.full(500, 0.5), np.ones(500, bool), 0.3, 0.95) == math.inf
