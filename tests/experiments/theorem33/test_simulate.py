"""The simulation is the library's own ResMem, and its least squares are least squares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

import residua as rs
from experiments.theorem33.simulate import ball, bound, constrained_least_squares, nearest, risks


@pytest.mark.parametrize("d", [1, 2, 5])
def test_ball_is_isotropic_and_inside_its_radius(d):
    points = ball(np.random.default_rng(d), 40_000, d)
    assert (points**2).sum(axis=1).max() <= d + 2
    np.testing.assert_allclose(points.T @ points / len(points), np.eye(d), atol=0.03)
    # Uniform: the share within half the radius is (1/2)^d.
    assert ((points**2).sum(axis=1) <= (d + 2) / 4).mean() == pytest.approx(0.5**d, abs=0.01)


def test_constrained_least_squares_by_hand():
    # Loss 4 (a-1)² + b², ‖(a, b)‖ <= 1/2: along the first axis, where the target is.
    np.testing.assert_allclose(constrained_least_squares(np.diag([4.0, 1.0]), np.array([1.0, 0.0]), 0.5), [0.5, 0.0])
    np.testing.assert_allclose(constrained_least_squares(np.eye(2), np.array([0.3, 0.4]), 0.6), [0.3, 0.4])


@pytest.mark.parametrize("seed", range(4))
def test_constrained_least_squares_against_a_general_optimiser(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((12, 3))
    gram, target, radius = X.T @ X / 12, np.array([1.0, 0.0, 0.0]), 0.6

    def loss(theta):
        return (theta - target) @ gram @ (theta - target)

    inside = {"type": "ineq", "fun": lambda theta: radius**2 - theta @ theta}
    peer = minimize(loss, np.zeros(3), constraints=[inside], tol=1e-12)
    ours = constrained_least_squares(gram, target, radius)
    np.testing.assert_allclose(ours, peer.x, atol=1e-5)
    assert np.linalg.norm(ours) == pytest.approx(radius)
    assert loss(ours) <= peer.fun + 1e-9


@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(0.05, 0.95), st.integers(1, 10))
def test_constrained_least_squares_is_feasible_and_no_feasible_point_is_better(seed, d, radius, n):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    gram, target = X.T @ X / n, np.eye(d)[0]
    ours = constrained_least_squares(gram, target, radius)
    assert np.linalg.norm(ours) <= radius * (1 + 1e-9)
    others = rng.standard_normal((50, d))
    others *= radius * rng.uniform(size=(50, 1)) / np.linalg.norm(others, axis=1, keepdims=True)
    losses = np.einsum("id,de,ie->i", others - target, gram, others - target)
    assert (ours - target) @ gram @ (ours - target) <= losses.min() + 1e-9


def test_nearest_is_the_brute_force_one():
    rng = np.random.default_rng(0)
    train, test = ball(rng, 300, 3), ball(rng, 50, 3)
    squared = ((test[:, None] - train) ** 2).sum(axis=2)
    assert nearest(train, test).tolist() == squared.argmin(axis=1).tolist()


@pytest.mark.parametrize("d", [1, 3])
def test_risks_are_those_of_the_library_on_the_same_draw(d):
    n, radius, seed, test_points = 200, 0.5, 3, 400
    found = risks(d, n, (radius,), seed, test_points)
    rng = np.random.default_rng([seed, d, n])
    train, test = ball(rng, n, d), ball(rng, test_points, d)
    theta = constrained_least_squares(train.T @ train / n, np.eye(d)[0], radius)
    y, truth = train[:, 0], test[:, 0]

    memory = rs.Memory(rs.Encoded(train, train @ theta, y, task="regression"))
    said = rs.ResMem(memory, k=1, sigma=1.0).predict(rs.Encoded(test, test @ theta))
    assert np.mean((said - truth) ** 2) == pytest.approx(found["resmem"][0], rel=1e-3)

    labels = rs.Memory(rs.Encoded(train, np.zeros(n), y, task="regression"))
    said = rs.ResMem(labels, k=1, sigma=1.0).predict(rs.Encoded(test, np.zeros(test_points)))
    assert np.mean((said - truth) ** 2) == pytest.approx(found["knn"], rel=1e-3)

    # The base's risk is exact; over many points it is what is measured.
    many = ball(rng, 200_000, d)
    assert np.mean((many @ theta - many[:, 0]) ** 2) == pytest.approx(found["base"][0], rel=0.02)


def test_identities_of_the_proof():
    found = risks(3, 100, (0.2, 0.5, 0.8), 0, 500)
    assert all(found["holds"])
    for radius, base, t2 in zip((0.2, 0.5, 0.8), found["base"], found["t2"]):
        assert base >= (1 - radius) ** 2 * (1 - 1e-9)
        assert t2 == pytest.approx((1 - radius) ** 2 * found["knn"])


def test_bound_by_hand():
    # d = 2, L = 1/2, n = e^4: 4/4 e^(-8/3) + 4/4 [2 / e^4]^(1/2)
    assert bound(2, np.exp(4), 0.5) == pytest.approx(np.exp(-8 / 3) + np.sqrt(2) * np.exp(-2))
