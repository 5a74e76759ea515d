"""A small convolutional network trained on the handwritten digits, and memories of them."""

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
