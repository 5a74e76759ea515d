"""A small convolutional network trained on the handwritten digits, and memories of them; language models by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import residua as rs


class Net(nn.Module):
    def __init__(self, outputs=10):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(6 * 16, 12)
        self.fc = nn.Linear(12, outputs)

    def forward(self, x):
        maps = nn.functional.max_pool2d(self.conv(x).relu(), 2)
        return self.fc(self.hidden(self.drop(maps.flatten(1))).relu())


def trained(outputs, x, loss, steps=40):
    torch.manual_seed(0)
    net = Net(outputs)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(net(x)).backward()
        optimiser.step()
    return net.eval()


@pytest.fixture(scope="session")
def digits():
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(labels)


@pytest.fixture(scope="session")
def parts(digits):
    """(x, y) to train on and remember, and (x, y) never seen."""
    x, y = digits
    return (x[:600], y[:600]), (x[600:900], y[600:900])


@pytest.fixture(scope="session")
def fitted(parts):
    (x, y), _ = parts
    return trained(10, x, lambda out: nn.functional.cross_entropy(out, y))


@pytest.fixture
def model(fitted):
    copy = Net()
    copy.load_state_dict(fitted.state_dict())
    return copy.eval()


@pytest.fixture(scope="session")
def memory(fitted, parts):
    return rs.Memory(rs.encode(fitted, parts[0], progress=False))


@pytest.fixture
def reader(memory):
    return rs.ResMem(memory, k=20, temperature=1.3)


# The arithmetic of attached language models, by hand: dense, float64, from an independent capture.


def states_by_hand(model, memory, ids, **inputs):
    """Keys (t, d) and base probabilities (t, V) of one sequence without padding."""
    caught = {}
    module = model.get_submodule(memory.source.key.removesuffix(":input"))
    hook = module.register_forward_pre_hook(lambda _, args: caught.update(key=args[0].detach()))
    with torch.no_grad():
        logits = model(ids, **inputs).logits[0]
    hook.remove()
    return caught["key"].reshape(len(logits), -1).double().numpy(), torch.softmax(logits.double(), dim=1).numpy()


def knn_by_hand(model, reader, ids, **inputs):
    """kNN-LM's log-probabilities (t, V) of one sequence, its kernel gaussian and its temperature 1."""
    keys, base = states_by_hand(model, reader.memory, ids, **inputs)
    rows, labels = np.asarray(reader.memory.keys, np.float64), reader.memory.labels
    out = []
    for key, p in zip(keys, base, strict=True):
        squared = ((rows - key) ** 2).sum(axis=1)
        near = np.argsort(squared, kind="stable")[: reader.k]
        weights = np.exp(-(squared[near] - squared[near].min()) / reader.sigma)
        knn = np.bincount(labels[near], weights / weights.sum(), len(p))
        out.append(np.log(reader.lmbda * knn + (1 - reader.lmbda) * p))
    return np.stack(out)


def cache_by_hand(model, reader, ids, **inputs):
    """The log-probabilities (t, V) of a cache over the model alone (Grave et al.), for the last sequence given."""
    keys, base = states_by_hand(model, reader.memory, ids, **inputs)
    tokens, out = inputs.get("decoder_input_ids", ids)[0].numpy(), []
    for t, p in enumerate(base):
        past = np.arange(max(0, t - reader.window), t)
        if len(past):
            similar = reader.theta * keys[past] @ keys[t]
            weights = np.exp(similar - similar.max())
            cached = np.bincount(tokens[past + 1], weights / weights.sum(), len(p))
            p = reader.lmbda * cached + (1 - reader.lmbda) * p
        out.append(np.log(p))
    return np.stack(out)


@pytest.fixture(scope="session")
def by_hand():
    return SimpleNamespace(states=states_by_hand, knn=knn_by_hand, cache=cache_by_hand)
