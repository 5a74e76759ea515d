"""A model that was checked once reads as ``encode`` does."""

import numpy as np
import pytest
import torch
from torch import nn

import residua as rs
from residua.encoding.again import CheckedModel


def network(outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs)).eval()


class Pair(nn.Module):
    """Gives an embedding first, then its outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return hidden, self.last(hidden)


class Pictures(nn.Module):
    """A small convolutional network, whose key is averaged over space."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean(dim=(2, 3)))


SHAPES = {"plain": (4,), "pair": (4,), "pictures": (1, 6, 6), "lone": (4,), "probabilities": (4,)}


@pytest.mark.parametrize("kind", SHAPES)
def test_it_reads_as_encode_does(kind):
    torch.manual_seed(0)
    made = {"plain": network, "pair": Pair, "pictures": Pictures, "lone": lambda: network(1)}
    made["probabilities"] = lambda: nn.Sequential(network(), nn.Softmax(dim=1))
    model, x = made[kind](), np.random.default_rng(0).normal(size=(40, *SHAPES[kind])).astype(np.float32)
    y = np.arange(40) % (2 if kind == "lone" else 3)
    options = {"output": "probabilities"} if kind == "probabilities" else {}
    memory = rs.Memory(rs.encode(model, (x, y), **options))
    reader = rs.ResMem(memory, k=3, sigma=1.0)
    read, expected = CheckedModel(model, reader), rs.encode(model, x[:7], like=memory)
    for _ in range(2):
        found = read(x[:7])
        assert np.array_equal(found.keys, expected.keys) and found.ids is None and found.labels is None
        assert torch.equal(found.logits.dense(), expected.logits.dense())
        assert np.array_equal(reader.predict(found), reader.predict(expected))


def test_regression():
    model, x = network(1), np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    memory = rs.Memory(rs.encode(model, (x, x[:, 0].astype(np.float64))))
    read = CheckedModel(model, memory)
    read(x[:1])
    reader = rs.ResMem(memory, k=3, sigma=1.0)
    assert np.array_equal(reader.predict(read(x[:5])), reader.predict(rs.encode(model, x[:5], like=memory)))


def test_an_estimator():
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).normal(size=(60, 4))
    model = LogisticRegression().fit(x, x[:, 0] > 0)
    memory = rs.Memory(rs.encode(model, x, x[:, 0] > 0))
    read = CheckedModel(model, memory)
    for _ in range(2):
        assert np.allclose(read(x[:5].astype(np.float32)).keys, rs.encode(model, x[:5], like=memory).keys, atol=1e-6)


def test_another_model_is_refused():
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    memory = rs.Memory(rs.encode(network(), (x, np.arange(40) % 3)))
    with pytest.raises(rs.errors.SourceMismatchError):
        CheckedModel(network(seed=1), memory)(x[:1])


def test_the_model_is_left_as_it_was():
    x, model = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32), network()
    memory = rs.Memory(rs.encode(model, (x, np.arange(40) % 3)))
    model.train()
    read = CheckedModel(model, memory)
    read(x[:1]), read(x[:1])
    assert model.training and not any(one._forward_hooks for one in model.modules())
