"""Key capture: what flows in or out of one module, and hooks that always leave."""

import pytest
import torch
from torch import nn

from residua.encoding.capture import Capture, pooled
from residua.errors import KeyModuleError


def hooks_in(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class Shortcut(nn.Module):
    """A residual block that works in place on its norm's output, as torchvision's do."""

    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.BatchNorm2d(3), nn.Linear(3, 2)

    def forward(self, x):
        out = self.norm(x)
        out += 100
        return self.fc(out.relu_().mean((2, 3)))


def test_output_and_input_of_a_module():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x = torch.randn(6, 4)
    inner = model[1](model[0](x))
    for key, expected in (("1", inner), ("2:input", inner), ("2:output", model(x)), ("0:input", x)):
        with Capture(model, key) as capture:
            model(x)
            torch.testing.assert_close(capture.take(), expected)
    assert hooks_in(model) == 0


def test_later_work_in_place_does_not_reach_the_key():
    model = Shortcut().eval()
    x = torch.randn(2, 3, 4, 4)
    with Capture(model, "norm") as capture:
        model(x)
    with Capture(model, "norm") as capture, torch.no_grad():
        model(x)
        torch.testing.assert_close(capture.take(), model.norm(x).mean((2, 3)))
    with Capture(model, "norm", pool=False) as capture, torch.no_grad():
        model(x)
        torch.testing.assert_close(capture.take(), model.norm(x))


def test_input_passed_by_name_and_output_in_a_tuple():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.rnn = nn.Linear(3, 2), nn.GRU(2, 4, batch_first=True)

        def forward(self, x):
            return self.rnn(self.fc(input=x))[0]

    model, x = Named(), torch.randn(5, 7, 3)
    with Capture(model, "fc:input") as capture:
        model(x)
        torch.testing.assert_close(capture.take(), x.mean(1))
    with Capture(model, "rnn") as capture, torch.no_grad():
        states = model(x)
        torch.testing.assert_close(capture.take(), states.mean(1))


@pytest.mark.parametrize(
    ("module", "shape", "axes"),
    [
        (nn.BatchNorm2d(3), (2, 3, 4, 5), (2, 3)),
        (nn.Conv3d(3, 3, 1), (2, 3, 4, 5, 6), (2, 3, 4)),
        (nn.LayerNorm(5), (2, 3, 4, 5), (1, 2)),
        (nn.Conv1d(3, 3, 1), (2, 3, 7), (2,)),
        (nn.ReLU(), (2, 7, 3), (1,)),
        (nn.Linear(3, 3), (2, 7, 3), (1,)),
    ],
)
def test_pooling_averages_everything_but_channels(module, shape, axes):
    values = torch.randn(shape)
    torch.testing.assert_close(pooled(values, module), values.mean(axes))


def test_pooling_of_other_ranks_and_dtypes():
    assert pooled(torch.ones(3), nn.ReLU()).shape == (3, 1)
    assert pooled(torch.ones(2, 1, 2, 1, 2, 3), nn.ReLU()).shape == (2, 12)
    half = pooled(torch.full((2, 3, 300, 300), 4.0, dtype=torch.float16), nn.ReLU())  # its sum overflows float16
    assert half.dtype == torch.float32
    assert half.eq(4).all()
    with pytest.raises(KeyModuleError, match="single number"):
        pooled(torch.tensor(1.0), nn.ReLU())


def test_missing_module_lists_near_names():
    model = nn.ModuleDict({"layer4": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    with pytest.raises(KeyModuleError, match=r"no module 'layer5'.*'layer4'"):
        Capture(model, "layer5")
    with pytest.raises(KeyModuleError, match="':input'"):
        Capture(model, "head:grad")


def test_a_module_that_runs_twice_or_never():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.fc(self.fc(x))

    model = Shared()
    for key, times in (("fc", 2), ("unused", 0)):
        with Capture(model, key) as capture, pytest.raises(KeyModuleError, match=f"ran {times} times"):
            model(torch.zeros(1, 3))
            capture.take()
    assert hooks_in(model) == 0


def test_a_failed_forward_leaves_neither_hooks_nor_stale_keys():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    model[1].weight.data = torch.zeros(3, 6)  # the second layer fails after the key was caught
    with Capture(model, "0") as capture:
        with pytest.raises(RuntimeError):
            model(torch.zeros(2, 4))
        model[1].weight.data = torch.zeros(3, 5)
        model(torch.ones(7, 4))
        assert len(capture.take()) == 7
    with pytest.raises(ZeroDivisionError), Capture(model, "0"):
        1 / 0  # noqa: B018
    assert hooks_in(model) == 0
