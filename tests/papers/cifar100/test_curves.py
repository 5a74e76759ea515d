"""A point of a curve against the same numbers made by hand from the network's own keys and logits."""

import numpy as np
import pytest
from scipy.special import softmax

from residua.papers.cifar100.curves import point
from residua.papers.cifar100.networks import encoded


def test_point_is_what_the_equations_give(small_cifar, small_weights):
    found = point(small_weights, "here", 1.0, 0, "cpu")
    remembered, test = encoded(small_weights, "here", 1.0, 0, "cpu")
    keys, logits = (part.astype(np.float64) for part in (remembered.keys, remembered.logits.dense().numpy()))
    queries, said = (part.astype(np.float64) for part in (test.keys, test.logits.dense().numpy()))
    residuals = np.eye(logits.shape[1])[remembered.labels] - softmax(logits / 1.4, axis=1)
    distances = np.linalg.norm(queries[:, None] - keys, axis=2)
    near = np.argsort(distances, axis=1)[:, :53]
    weights = softmax(-np.take_along_axis(distances, near, axis=1) / 0.7, axis=1)
    scores = softmax(said / 1.4, axis=1) + np.einsum("qk,qkl->ql", weights, residuals[near])
    expected = 100 * np.mean(scores.argmax(axis=1) == test.labels)
    base = 100 * np.mean(said.argmax(axis=1) == test.labels)
    reader = found["readers"]["resmem_paper"]
    assert reader["accuracy"] == pytest.approx(expected)
    assert found["base"] == pytest.approx(base)
    assert reader["gain"][0] == pytest.approx(expected - base)
    assert reader["gain"][1] <= reader["gain"][0] <= reader["gain"][2]
    tuned = [found["readers"][name]["accuracy"] for name in ("resmem_tuned", "interpolation_tuned")]
    assert found["difference"][0] == pytest.approx(tuned[0] - tuned[1])


def test_smaller_share_is_all_that_is_remembered(small_cifar, small_weights):
    found = point(small_weights, "here", 0.5, 0, "cpu")
    assert (found["memory"], found["n"]) == (60, 60)
