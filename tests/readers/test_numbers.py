"""Targets and predictions of any offset and scale are corrected as float64 would, or refused; through every door."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge

import residua as rs
from residua.errors import NonFiniteError
from residua.sklearn import ResMemRegressor

OFFSETS = [0.0, 1e6, -4.5e6, 1e9, 1e12]
SCALES = [1e-20, 1e-6, 1.0, 1e6, 1e18]
WHERE = [(offset, 1.0) for offset in OFFSETS] + [(0.0, scale) for scale in SCALES if scale != 1]


def data(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    return x, x @ [1.0, -2.0, 0.5], x @ [1.0, -2.0, 0.5] + np.sin(3 * x[:, 0])  # what is said, what is true


def shares(keys, queries, k, sigma):
    distances = np.sqrt(np.square(queries[:, None] - keys).sum(axis=2))
    rows = np.argsort(distances, axis=1)[:, :k]
    weights = np.exp(-np.take_along_axis(distances, rows, axis=1) / sigma)
    return rows, weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("offset", "scale"), WHERE)
@pytest.mark.parametrize("lmbda", [None, 0.4])
def test_arrays(offset, scale, lmbda):
    (x, said, y), (queries, asked, truth) = data(200, 0), data(40, 1)
    said, y, asked, truth = (offset + scale * values for values in (said, y, asked, truth))
    memory = rs.Memory(rs.Encoded(x, said, y))
    if lmbda is None:
        reader = rs.ResMem(memory, k=7, sigma=0.5)
    else:
        reader = rs.KNNLM(memory, k=7, sigma=0.5, lmbda=lmbda, kernel="exponential")
    rows, weights = shares(x, queries, 7, 0.5)
    if lmbda is None:
        expected = asked + (weights * (y - said)[rows]).sum(axis=1)
    else:
        expected = (1 - lmbda) * asked + lmbda * (weights * y[rows]).sum(axis=1)
    close = {"rtol": 1e-12, "atol": 1e-5 * scale}
    np.testing.assert_allclose(reader.predict(rs.Encoded(queries, asked)), expected, **close)
    np.testing.assert_allclose(memory.labels, y, rtol=1e-12, atol=1e-6 * scale)
    result = rs.evaluate(reader, rs.Encoded(queries, asked, truth))
    assert result.mse == pytest.approx(np.square(expected - truth).mean(), rel=1e-4)
    assert result.base_mse == pytest.approx(np.square(asked - truth).mean(), rel=1e-9 if scale != 1 else 1e-3)
    why = rs.explain(reader, rs.Encoded(queries, asked)[3])
    np.testing.assert_allclose(why.scale * why.base + why.contributions.sum(axis=0), why.scores, **close)
    grid = {"k": [7], "sigma": [0.5]} | ({} if lmbda is None else {"lmbda": [lmbda]})
    swept = rs.tune(reader, rs.Encoded(queries, asked, truth), grid)
    assert swept.results_["squared_error"].tolist() == pytest.approx([result.base_mse, result.mse], rel=1e-4)
    assert swept.k == 7


@pytest.mark.parametrize("scale", [1e40, 1e300])
def test_what_float32_differences_cannot_hold_is_refused(scale):
    x, said, y = data(200, 0)
    with pytest.raises(NonFiniteError, match="float32"):
        rs.Memory(rs.Encoded(x, scale * said, scale * y))


def test_a_base_that_is_far_from_its_targets_is_refused():
    x, said, y = data(200, 0)
    rs.Memory(rs.Encoded(x, said + 100.0, y))
    with pytest.raises(NonFiniteError, match="typically 1e\\+06 away from the targets"):
        rs.Memory(rs.Encoded(x, said + 1e6, y))
    rs.Memory(rs.Encoded(x, said + 1e6, y + 1e6))


class Line(torch.nn.Module):
    """What ``data`` says, in float64."""

    def __init__(self, offset, scale):
        super().__init__()
        self.inner = torch.nn.Linear(3, 3, bias=False).double()
        self.outer = torch.nn.Linear(3, 1).double()
        with torch.no_grad():
            self.inner.weight.copy_(torch.eye(3))
            self.outer.weight.copy_(scale * torch.tensor([[1.0, -2.0, 0.5]]))
            self.outer.bias.fill_(offset)

    def forward(self, x):
        return self.outer(self.inner(x))


@pytest.mark.parametrize("moved", [0.0, 4.5e6, 1e9])
@pytest.mark.parametrize(("offset", "scale"), WHERE)
def test_torch(offset, scale, moved):
    (x, _, y), (queries, _, _) = data(200, 0), data(40, 1)
    model, asked, y = (
        Line(offset + scale * moved / 2, scale).eval(),
        torch.from_numpy(queries + moved),
        offset + scale * y,
    )
    enc = rs.encode(model, (torch.from_numpy(x + moved), torch.from_numpy(y)), task="regression")
    reader = rs.ResMem(rs.Memory(enc), k=7, sigma=0.5)
    rows, weights = shares(x, queries, 7, 0.5)
    with torch.no_grad():
        said, alone = (model(part)[:, 0].numpy() for part in (torch.from_numpy(x + moved), asked))
        expected = alone + (weights * (y - said)[rows]).sum(axis=1)
        close = {"rtol": 1e-12, "atol": 1e-5 * scale}
        np.testing.assert_allclose(reader.predict(rs.encode(model, asked, like=reader.memory)), expected, **close)
        with rs.attach(model, reader):
            np.testing.assert_allclose(model(asked)[:, 0], expected, **close)


@pytest.mark.parametrize("moved", [0.0, 4.5e6, 1e9, 1e12])
def test_classes(moved):
    """Label k-NN among float64 keys of a torch model, and of an estimator by a callable key."""
    (x, said, _), (queries, asked, _) = data(300, 0), data(100, 1)
    labels, rows = (said > 0).astype(int), shares(x, queries, 1, 1.0)[0][:, 0]
    model = Line(0.0, 1.0).eval()
    enc = rs.encode(model, (torch.from_numpy(x + moved), labels), key="inner", output="logits", task="classification")
    reader = rs.KNNLM(rs.Memory(enc), k=1, lmbda=1.0, epsilon=1e-6)
    found = rs.encode(model, torch.from_numpy(queries + moved), like=reader.memory)
    exact = 1.0 if moved < 1e12 else 0.95  # whose own last digit is 1e-4 there
    assert (reader.predict(found) == labels[rows]).mean() >= exact
    estimator = LogisticRegression().fit(x, labels)
    made = rs.encode(estimator, x, labels, key=lambda X: X + moved)
    reader = rs.KNNLM(rs.Memory(made), k=1, lmbda=1.0, epsilon=1e-6)
    asked = rs.encode(estimator, queries, like=reader.memory, key=lambda X: X + moved)
    assert (reader.predict(asked) == labels[rows]).mean() >= exact


@pytest.mark.parametrize("moved", [0.0, 4.5e6, 1e9])
@pytest.mark.parametrize(("offset", "scale"), WHERE)
def test_estimators(offset, scale, moved):
    (x, _, y), (queries, _, _) = data(200, 0), data(40, 1)
    base = Ridge(alpha=1e-6).fit(x + moved, offset + scale * y)
    model = ResMemRegressor(FrozenEstimator(base), k=7, sigma=0.5).fit(x + moved, offset + scale * y)
    mean, spread = (x + moved).mean(axis=0), (x + moved).std(axis=0)
    said, asked = base.predict(x + moved), base.predict(queries + moved)
    rows, weights = shares((x + moved - mean) / spread, (queries + moved - mean) / spread, 7, 0.5)
    expected = asked + (weights * (offset + scale * y - said)[rows]).sum(axis=1)
    np.testing.assert_allclose(model.predict(queries + moved), expected, rtol=1e-11, atol=1e-4 * scale)
