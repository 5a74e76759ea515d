"""Theorem 3.3's setting, simulated: a linear target, a base that may not reach it, and the nearest training point.

Covariates x are uniform on the ball of radius sqrt(d + 2) in R^d, where E[x xᵀ] = I. The target is <θ*, x> with
‖θ*‖ = 1, without noise; the class is ‖θ‖ <= L < 1, so the base's best is f_∞ = L <θ*, x>, its risk tends to (1 - L)².

Everything is linear, so with u = θ* - θ_n and x' the training point nearest to x the pointwise errors are exact:
base <u, x>, 1-NN <θ*, x - x'>, ResMem <u, x - x'>. The base's risk is ‖u‖² and needs no test points; T2 is (1 - L)²
times the risk of 1-NN. One search serves every L.
"""

import numpy as np
import torch
from scipy.optimize import brentq

from residua.index import make_index


def ball(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """n points uniform on the ball of radius sqrt(d + 2) in R^d, float64 (n, d).

    >>> points = ball(np.random.default_rng(0), 20_000, 3)
    >>> bool(np.abs(points.T @ points / 20_000 - np.eye(3)).max() < 0.05), bool((points**2).sum(axis=1).max() <= 5)
    (True, True)
    """
    directions = rng.standard_normal((n, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * (np.sqrt(d + 2) * rng.uniform(size=(n, 1)) ** (1 / d))


def constrained_least_squares(gram: np.ndarray, target: np.ndarray, radius: float) -> np.ndarray:
    """The θ with ‖θ‖ <= radius that minimises (θ - target)ᵀ gram (θ - target), exactly; the shortest where several do.

    Outside the constraint's reach that is the projection in the norm of `gram`: ``(gram + μ I)⁻¹ gram target`` with the
    μ > 0 at which it has length `radius`.

    `gram` is ``XᵀX / n`` (d, d), `target` θ* (d,), so that the data are y = X θ*, and `radius` L > 0.

    >>> constrained_least_squares(np.eye(2), np.array([3.0, 4.0]), 1.0).round(6).tolist()
    [0.6, 0.8]
    """
    eigenvalues, vectors = np.linalg.eigh(gram)
    eigenvalues = np.where(eigenvalues > 1e-12 * eigenvalues[-1], eigenvalues, 0.0)
    along = vectors.T @ target

    def coefficients(mu: float) -> np.ndarray:
        if mu == 0:
            return np.where(eigenvalues > 0, along, 0.0)
        return eigenvalues / (eigenvalues + mu) * along

    if np.linalg.norm(coefficients(0)) <= radius:
        return vectors @ coefficients(0)
    # ‖(gram + μ)⁻¹ gram target‖ <= λ_max ‖target‖ / μ, so the root is below this μ; its length falls as μ grows.
    highest = eigenvalues[-1] * np.linalg.norm(target) / radius
    mu = brentq(lambda mu: np.linalg.norm(coefficients(mu)) - radius, 0, highest, xtol=1e-15, rtol=1e-14)
    return vectors @ coefficients(mu)


def nearest(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Row of `train` nearest to each test point, int64 (m,)."""
    keys = torch.from_numpy(train.astype(np.float32))
    index = make_index("exact", n=len(keys), dim=keys.shape[1], device=keys.device)
    index.build(keys)
    return index.search(torch.from_numpy(test.astype(np.float32)), 1, keys).rows[:, 0].numpy()


def risks(d: int, n: int, radii: tuple[float, ...], seed: int, test_points: int) -> dict:
    """One draw of n training points in dimension d: every risk, for every L in `radii`.

    ``knn`` is the risk of 1-NN on the labels. Of each L there are ``base``, ``resmem``, ``t1`` (estimation error at x
    and at its neighbour), ``t2`` (residual's change from neighbour to x) and ``holds`` (resmem <= 3 (t1 + t2), over the
    same test points). Expectations that involve the nearest neighbour are over `test_points`.
    """
    rng = np.random.default_rng([seed, d, n])
    train, test = ball(rng, n, d), ball(rng, test_points, d)
    neighbours = train[nearest(train, test)]
    target = np.eye(d)[0]
    gram = train.T @ train / n
    gaps = test - neighbours
    knn = np.mean((gaps @ target) ** 2)
    out = {"knn": float(knn), "base": [], "resmem": [], "t1": [], "t2": [], "holds": []}
    for radius in radii:
        theta = constrained_least_squares(gram, target, radius)
        missed, estimation = target - theta, theta - radius * target
        resmem, t2 = np.mean((gaps @ missed) ** 2), (1 - radius) ** 2 * knn
        at_neighbour = np.mean((neighbours @ estimation) ** 2)
        sampled = np.mean((test @ estimation) ** 2) + at_neighbour + t2
        out["base"].append(float(missed @ missed))
        out["resmem"].append(float(resmem))
        out["t1"].append(float(estimation @ estimation + at_neighbour))
        out["t2"].append(float(t2))
        out["holds"].append(bool(resmem <= 3 * sampled * (1 + 1e-9)))
    return out


def bound(d: int, n, radius: float):
    """The theorem's right-hand side without its constant: ``d² L² n^(-2/3) + d² (1-L)² [log(n^(1/d)) / n]^(1/d)``."""
    n = np.asarray(n, dtype=float)
    return d**2 * radius**2 * n ** (-2 / 3) + d**2 * (1 - radius) ** 2 * (np.log(n) / d / n) ** (1 / d)
