"""Curves are what single readers score, and their shapes are judged right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import residua as rs
from experiments.cifar100.headline import LMBDA, PAPER
from experiments.cifar100.networks import encoded
from experiments.cifar100.sweeps import VALUES, dip, spread, sweeps


def test_points_of_the_curves_are_readers(small_cifar, small_weights):
    where = (small_weights, "here", 1.0, 0, "cpu")
    found = sweeps(*where)
    remembered, test = encoded(*where)
    memory = rs.Memory(remembered)
    assert found["k"]["values"] == [k for k in VALUES["k"] if k <= 120]
    for name, curve in found.items():
        assert len(curve["resmem"]) == len(curve["values"])
        for i in (0, 3, len(curve["values"]) - 1):
            settings = {**PAPER, name: curve["values"][i]}
            accuracy = (rs.ResMem(memory, **settings).predict(test) == test.labels).mean()
            assert curve["resmem"][i] == pytest.approx(100 * accuracy)
            mixed = [
                rs.KNNLM(memory, lmbda=lmbda, kernel="exponential", **settings).predict(test) == test.labels
                for lmbda in LMBDA
            ]
            assert curve["interpolation"][i] == pytest.approx(100 * max(map(np.mean, mixed)), abs=2)  # ties may round
            if name != "temperature":
                votes = rs.KNNLM(memory, lmbda=1.0, kernel="exponential", **settings)
                assert curve["label_knn"][i] == pytest.approx(100 * (votes.predict(test) == test.labels).mean())


def test_spread_is_over_the_papers_range():
    curve = {"values": [1, 27, 100, 500, 900], "resmem": [10.0, 60.0, 61.5, 61.0, 90.0]}
    assert spread("k", curve) == 1.5


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12))
def test_a_rise_and_a_fall_have_no_dip(values):
    up = sorted(values)
    assert dip([*up, 60, *reversed(up)]) == 0
    assert dip(up) == dip(up[::-1]) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9))
def test_dip_by_brute_force(values):
    peak = values.index(max(values))
    before = [values[i] - values[j] for i in range(peak + 1) for j in range(i, peak + 1)]
    after = [values[j] - values[i] for i in range(peak, len(values)) for j in range(i, len(values))]
    assert dip(values) == max(0, *before, *after)
    assert dip(values[::-1]) == dip(values) or values.count(max(values)) > 1
