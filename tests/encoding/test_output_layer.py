"""The default key: the input of the layer that says what the model says."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import residua as rs
from residua.encoding.output_layer import output_layer
from residua.errors import KeyModuleError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def found(model, x):
    model.eval()
    with torch.no_grad():
        return output_layer(model, lambda: [model(x)], len(x))


class Two(nn.Module):
    """A body, and heads of which `says` makes the output."""

    def __init__(self, says):
        super().__init__()
        self.body, self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 3)
        self.says = says

    def forward(self, x):
        h = self.body(x).tanh()
        return self.says(self.first(h), self.second(h.square()))


class Cosine(nn.Module):
    """A head of somebody's own: the angle to each class's vector, times ten."""

    def __init__(self, width, classes):
        super().__init__()
        self.classes = nn.Parameter(torch.randn(classes, width))

    def forward(self, x):
        return 10 * F.normalize(x) @ F.normalize(self.classes).T


class Squeezed(nn.Module):
    """A convolutional network whose last linear layer is a gate of channels, and whose head is a convolution."""

    def __init__(self, head):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), head
        self.down, self.up = nn.Linear(8, 2), nn.Linear(2, 8)

    def forward(self, x):
        maps = self.conv(x)
        gate = self.up(self.down(maps.mean((2, 3))).relu()).sigmoid()
        maps = maps * gate[:, :, None, None]
        return self.head(maps.mean((2, 3), keepdim=True)).flatten(1)


@pytest.mark.parametrize(
    ("says", "key"),
    [
        (lambda a, b: a, "first"),
        (lambda a, b: b, "second"),
        (lambda a, b: a.softmax(1), "first"),
        (lambda a, b: 100 * a.softmax(1), "first"),
        (lambda a, b: a.log_softmax(1), "first"),
        (lambda a, b: a.sigmoid(), "first"),
        (lambda a, b: 3 * a, "first"),
        (lambda a, b: a + 0.1 * b, "first"),  # an auxiliary head, the last to run
    ],
)
def test_of_two_heads_the_one_whose_output_is_said(says, key):
    assert found(Two(says), torch.randn(8, 4)) == f"{key}:input"


def test_heads_that_are_no_linear_layer():
    net = Squeezed(nn.Conv2d(8, 3, 1))
    x = torch.randn(8, 1, 6, 6)
    assert found(net, x) == "head:input"
    assert found(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), Cosine(6, 3)), torch.randn(8, 4)) == "2:input"
    maps = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Conv2d(5, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert found(maps, x) == "1:input"
    scaled = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3), nn.BatchNorm1d(3))
    assert found(scaled, torch.randn(8, 4)) == "1:input"


def test_a_convolution_as_head_is_encoded_and_attached():
    net = Squeezed(nn.Conv2d(8, 3, 1)).eval()
    x, y = torch.randn(30, 1, 6, 6), torch.arange(30) % 3
    enc = rs.encode(net, (x, y))
    assert enc.keys.shape == (30, 8)
    reader = rs.ResMem(rs.Memory(enc), k=3)
    with torch.no_grad(), rs.attach(net, reader):
        np.testing.assert_allclose(net(x).softmax(1), reader.predict_proba(enc, exclude=None), atol=1e-6)


def test_a_head_that_is_no_layer_is_said_with_a_module_that_is_not_the_outputs():
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm = nn.Linear(20, 6), nn.LayerNorm(6)
            self.classes = nn.Parameter(torch.randn(3, 6))

        def forward(self, x):
            return F.normalize(self.norm(self.fc(x))) @ self.classes.T

    x = torch.randn(8, 20)
    with pytest.warns(UserWarning, match="no layer gives the outputs of Parent.*'fc'.*such as key='norm'"):
        assert found(Parent(), x) == "fc:input"
    model = Parent().eval()
    assert rs.encode(model, x, key="norm").keys.shape == (8, 6)


def test_what_is_made_of_several_layers_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        found(Two(lambda a, b: a + b), torch.randn(8, 4))
    assert "not those of one layer alone" in caplog.text


def test_the_last_to_run_and_not_the_last_defined():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.Linear(5, 3), nn.Linear(4, 5)

        def forward(self, x):
            return self.second(self.first(x))

    assert found(Backwards(), torch.randn(1, 4)) == "second:input"
    assert found(nn.Linear(4, 2), torch.randn(3, 4)) == ":input"
    same = nn.Linear(2, 2)
    nn.init.eye_(same.weight)
    assert found(same, torch.randn(3, 2)) == ":input"


def test_no_layer_and_one_that_runs_twice():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return self.fc(self.fc(x))

    model = Shared()
    with pytest.raises(KeyModuleError, match=r"'fc', ran 2 times"):
        found(model, torch.randn(2, 3))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    pooled = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1))
    pooled.forward = lambda x: pooled[:4](x)[:, :2] * 2
    with pytest.raises(KeyModuleError, match=r"no nn\.Linear ran.*key='3'"):
        found(pooled, torch.randn(2, 1, 6, 6))


def test_one_row_and_a_lone_logit():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1), nn.Sigmoid())
    assert found(net, torch.randn(8, 4)) == "2:input"
    assert found(net, torch.randn(1, 4)) == "2:input"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("levit_128s", "head.linear"),
        ("volo_d1_224", "head"),
        ("mobilenetv3_small_050", "classifier"),
        ("deit_tiny_distilled_patch16_224", "head"),
    ],
)
def test_timm(name, key):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, pretrained=False, num_classes=7)
    assert found(model, torch.randn(2, 3, 224, 224)).startswith(key)
