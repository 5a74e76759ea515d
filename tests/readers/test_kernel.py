import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from residua.core import Neighbours
from residua.errors import ParameterError
from residua.readers.kernel import KERNELS, check_kernel, weigh


def near(distances, rows=None):
    distances = torch.tensor(distances, dtype=torch.float32)
    rows = torch.arange(distances.shape[1]).expand(distances.shape) if rows is None else torch.tensor(rows)
    return Neighbours(rows.masked_fill(distances.isinf() & (rows < 0), -1), distances)


def test_exponential_by_hand():
    weights = weigh(near([[0.0, 1.0, 2.0]]), sigma=1 / np.log(2))  # 1, 1/2, 1/4
    np.testing.assert_allclose(weights, [[4 / 7, 2 / 7, 1 / 7]], rtol=1e-6)
    assert weights.dtype == torch.float32


def test_gaussian_squares_the_distance():
    weights = weigh(near([[0.0, 1.0, 2.0]]), sigma=1 / np.log(2), kernel="gaussian")  # 1, 1/2, 1/16
    np.testing.assert_allclose(weights, np.array([[16, 8, 1]]) / 25, rtol=1e-6)


@given(
    st.lists(st.floats(0, 50, width=32), min_size=1, max_size=8),
    st.floats(0.01, 100),
    st.sampled_from(KERNELS),
    st.booleans(),
)
def test_the_formula_in_float64(distances, sigma, kernel, weighted):
    distances = np.sort(np.array(distances, np.float32))
    own = np.arange(len(distances)) % 3 + 0.5 if weighted else np.ones(len(distances))
    d = distances.astype(np.float64)
    logs = -(d**2 if kernel == "gaussian" else d) / sigma + np.log(own)
    expected = np.exp(logs - logs.max())
    expected /= expected.sum()
    given_weights = torch.from_numpy(own).float()[None] if weighted else None
    weights = weigh(near(distances[None].tolist()), sigma, kernel, given_weights)[0].numpy()
    np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-6)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    if not weighted:
        assert (np.diff(weights) <= 0).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sigma", [1e-300, 1e-45, 1e-30, 1e-3, 1.0, 1e30, 1e300])
@pytest.mark.parametrize("shift", [0.0, 1.0, 1e4, 1e18, 1e30])
def test_no_width_and_no_distance_gives_nan(kernel, sigma, shift):
    gap = max(1.0, shift * 1e-6)
    weights = weigh(near([[shift, shift + gap, np.inf]], [[4, 2, -1]]), sigma, kernel)
    assert weights.isfinite().all()
    assert weights.sum().item() == pytest.approx(1)
    assert weights[0, 0] >= weights[0, 1]
    assert weights[0, 2] == 0
    if sigma <= 1e-3:
        assert weights[0].tolist() == [1, 0, 0]  # the nearest alone, however far it is
    if sigma >= 1e300:
        assert weights[0].tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_far_neighbours_keep_their_ratio(kernel):
    weights = weigh(near([[1000.0, 1000.5]]), sigma=0.5 if kernel == "exponential" else 1000.25, kernel=kernel)
    ratio = weights[0, 1] / weights[0, 0]  # (1000.5² - 1000²) / 1000.25 = 1
    assert ratio.item() == pytest.approx(np.exp(-1), rel=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_missing_neighbours_weigh_nothing(kernel):
    found = near([[2.0, np.inf], [np.inf, np.inf]], [[5, -1], [-1, -1]])
    assert weigh(found, 1.0, kernel).tolist() == [[1, 0], [0, 0]]
    assert weigh(found, 1.0, kernel, torch.tensor([[3.0, 9.0], [1.0, 1.0]])).tolist() == [[1, 0], [0, 0]]
    assert weigh(near(np.zeros((2, 0)).tolist()), 1.0, kernel).shape == (2, 0)


def test_row_weights_multiply():
    own = torch.tensor([[1.0, 6.0, 0.0], [0.0, 0.0, 0.0]])
    weights = weigh(near([[0.0, 1.0, 1.0]] * 2), 1 / np.log(2), "exponential", own)
    np.testing.assert_allclose(weights, [[1 / 4, 3 / 4, 0], [0, 0, 0]], rtol=1e-6)


def test_an_important_row_may_be_far():
    """The largest weight is not always the nearest row's."""
    weights = weigh(near([[0.0, 200.0]]), 1.0, "exponential", torch.tensor([[1e-38, 1e38]]))
    expected = 1e-38 / (1e-38 + 1e38 * np.exp(-200))
    assert weights[0, 0].item() == pytest.approx(expected, rel=1e-3)


def test_kernels_by_name():
    assert [check_kernel(name) for name in KERNELS] == ["exponential", "gaussian"]
    with pytest.raises(ParameterError, match=r"'rbf'.*'exponential', 'gaussian'"):
        check_kernel("rbf")
