"""Fitted weights: the least loss there is, the base without a reason, and scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from residua.readers.weights import LogitFeatures, log_losses


def made(n=60, outputs=4, columns=3, several=False, seed=0):
    """A base that is right too seldom, a column that knows more, and noise."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (n, outputs)) if several else rng.integers(0, outputs, n)
    hot = truth if several else np.eye(outputs)[truth]
    table = rng.normal(size=(columns, n, outputs))
    table[1] += 0.8 * hot
    return LogitFeatures(torch.from_numpy(table.astype(np.float32)), torch.from_numpy(truth))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_the_least_loss(several, penalty):
    features = made(several=several)
    weight = torch.linspace(0, 2, 60)

    def objective(weights):
        each = log_losses(features.logits(weights), features.truth).numpy() * weight.numpy()
        return each.sum() / weight.sum().item() + penalty * ((weights - [1, 0, 0]) ** 2).sum()

    found = LogitFeatures(features.columns, features.truth, weight).fitted(penalty)
    by_search = minimize(objective, [1.0, 0, 0], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-9})
    np.testing.assert_allclose(found, by_search.x, atol=3e-3)
    assert found[1] > 0.05


def test_rows_of_no_weight_and_strong_penalties():
    features = made()
    strong = features.fitted(1e6)
    np.testing.assert_allclose(strong, [1, 0, 0], atol=1e-5)
    half = (torch.arange(60) < 30).float()
    alone = features[half.bool()].fitted(0.1)
    np.testing.assert_allclose(LogitFeatures(features.columns, features.truth, half).fitted(0.1), alone, atol=1e-4)
    joined = LogitFeatures.join([features[half.bool()], features[~half.bool()]])
    np.testing.assert_allclose(joined.fitted(0.1), features.fitted(0.1), atol=1e-4)
    assert len(joined) == 60
    nothing = LogitFeatures(torch.zeros(2, 5, 3), torch.zeros(5, dtype=torch.int64))
    np.testing.assert_allclose(nothing.fitted(0.1), [1, 0], atol=1e-6)
