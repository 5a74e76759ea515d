"""The members of the family are the readers they are said to be."""

import numpy as np
import pytest

import residua as rs
from experiments.cifar100.family import KERNELS, MEMBERS, answers, crossfit, family
from experiments.cifar100.networks import encoded


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)

    def part(n):
        labels = rng.integers(0, 4, n)
        keys = np.eye(4)[labels] + 0.5 * rng.standard_normal((n, 4))
        return rs.Encoded(keys, keys * 2 + rng.standard_normal((n, 4)), labels)

    return rs.Memory(part(140)), part(50)


@pytest.mark.parametrize("kernel", KERNELS)
def test_members_are_resmem_and_interpolation(data, kernel):
    memory, test = data
    settings, right = answers(memory, test, kernel)
    assert len(settings) == len(right)
    tried = np.random.default_rng(1).permutation(len(settings))
    resmem = [i for i in tried if MEMBERS["resmem"](*settings[i, 3:])][:15]
    mixed = [i for i in tried if MEMBERS["interpolation"](*settings[i, 3:])][:15]
    for i in resmem:
        k, sigma, temperature, _, _ = settings[i]
        reader = rs.ResMem(memory, int(k), sigma, temperature, kernel=kernel)
        assert (right[i] == (reader.predict(test) == test.labels)).mean() > 0.97  # a tie may round either way
    for i in mixed:
        k, sigma, temperature, a, _ = settings[i]
        reader = rs.KNNLM(memory, int(k), a / (1 + a), sigma, temperature, kernel=kernel)
        assert (right[i] == (reader.predict(test) == test.labels)).mean() > 0.97


def test_crossfit_takes_the_best_allowed_setting_of_the_other_half():
    rng = np.random.default_rng(0)
    right, allowed = rng.random((30, 21)) < 0.6, rng.random(30) < 0.5
    found, chosen = crossfit(right, allowed)
    for half, number in enumerate(chosen):
        assert allowed[number]
        assert right[number, 1 - half :: 2].sum() == right[allowed][:, 1 - half :: 2].sum(axis=1).max()
        assert found[half::2].tolist() == right[number, half::2].tolist()


def test_family_of_a_network(small_cifar, small_weights):
    found = family(small_weights, "here", 1.0, 0, "cpu", "exponential")
    assert found["members"]["interpolation"]["over_interpolation"] == [0, 0, 0, 1]
    assert [b for b, _ in found["by_b"]] == sorted({b for b, _ in found["by_b"]})
    for member in found["members"].values():
        assert len(member["chosen"]) == 2
    # b = 0 is interpolation, whoever asks.
    assert found["by_b"][0][1] == found["members"]["interpolation"]["accuracy"]
    assert len(encoded(small_weights, "here", 1.0, 0, "cpu")[0]) == 120
