"""A share by the nearest neighbour's distance."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.core import Neighbours
from residua.errors import ParameterError


def test_buckets():
    share = rs.AdaptiveLambda([1, 2.5], [0.9, 0.5, 0.1])
    nearest = torch.tensor([[0.0, 9.0], [1.0, 9.0], [1.1, 9.0], [2.5, 9.0], [7.0, 9.0], [torch.inf, torch.inf]])
    near = Neighbours(torch.tensor([[0, 1]] * 5 + [[-1, -1]]), nearest)
    assert share(near).tolist() == torch.tensor([[0.9], [0.9], [0.5], [0.5], [0.1], [0.1]]).tolist()
    assert share(near.first(0)).shape == (6, 1)
    assert rs.AdaptiveLambda((), (0.3,))(near).tolist() == torch.full((6, 1), 0.3).tolist()


def test_reads_as_one_lmbda_for_each_query():
    rng = np.random.default_rng(0)
    memory = rs.Memory(rs.Encoded(rng.normal(size=(50, 2)), rng.normal(size=(50, 3)), rng.integers(0, 3, 50)))
    test = rs.Encoded(2 * rng.normal(size=(40, 2)), rng.normal(size=(40, 3)))
    nearest = memory.search(test.keys, 1).distances[:, 0].numpy()
    reader = rs.KNNLM(memory, k=5, lmbda=rs.AdaptiveLambda([0.2, 0.6], [0.8, 0.4, 0.0]))
    read = reader.scores(test)
    for low, high, lmbda in ((-1, 0.2, 0.8), (0.2, 0.6, 0.4), (0.6, np.inf, 0.0)):
        bucket = (nearest > low) & (nearest <= high)
        assert bucket.sum() > 3
        np.testing.assert_allclose(read[bucket], reader.with_params(lmbda=lmbda).scores(test)[bucket], atol=1e-6)
    everything = np.tile(np.arange(50), (40, 1))
    np.testing.assert_array_equal(reader.scores(test, everything), reader.with_params(k=0).scores(test))


def test_json():
    share = rs.AdaptiveLambda((1.5,), (0.25, 1))
    assert share.to_json() == {"edges": [1.5], "shares": [0.25, 1.0]}
    assert rs.AdaptiveLambda.from_json(share.to_json()) == share


@pytest.mark.parametrize(
    ("edges", "shares", "match"),
    [
        ([1], [0.5], "1 edges and 1 shares"),
        ([2, 1], [0.1, 0.2, 0.3], "ascending"),
        ([1, 1], [0.1, 0.2, 0.3], "ascending"),
        ([float("nan")], [0.1, 0.2], "finite"),
        ([float("inf")], [0.1, 0.2], "finite"),
        ([1], [0.1, 1.2], "between 0 and 1"),
        ([1], [0.1, float("nan")], "between 0 and 1"),
        (["far"], [0.1, 0.2], "expected numbers"),
        (1, [0.1, 0.2], "expected numbers"),
    ],
)
def test_bad_parameters(edges, shares, match):
    with pytest.raises(ParameterError, match=match):
        rs.AdaptiveLambda(edges, shares)
