"""The probe: the same function answers alike, and another does not."""

import copy

import pytest
import torch
from torch import nn

import residua as rs
from residua.core import Source
from residua.errors import SourceMismatchError


class Net(nn.Module):
    """A network whose activation is code, which no parameter shows."""

    def __init__(self, activation=torch.relu):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.activation = nn.Linear(6, 8), nn.Linear(8, 3), activation
        self.eval()

    def forward(self, x):
        return self.last(self.activation(self.first(x)))


class Adapted(nn.Module):
    """A linear layer and a low-rank change of it, as PEFT keeps them."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer, self.down, self.up = base_layer, nn.Linear(6, 2, bias=False), nn.Linear(2, 8, bias=False)

    def forward(self, x):
        return self.base_layer(x) + self.up(self.down(x))

    def merged(self):
        layer = copy.deepcopy(self.base_layer)
        layer.weight.data += self.up.weight @ self.down.weight
        return layer


def encoded(model, **options):
    torch.manual_seed(1)
    return rs.encode(model, torch.randn(20, 6), torch.arange(20) % 3, key="last:input", progress=False, **options)


def reader_of(model):
    return rs.ResMem(rs.Memory(encoded(model)), k=2)


def test_another_function_of_the_same_parameters_is_refused():
    reader = reader_of(Net())
    with rs.attach(Net(), reader):
        pass
    with pytest.raises(SourceMismatchError, match="the same made-up inputs"):
        rs.attach(Net(torch.tanh), reader)
    with pytest.raises(SourceMismatchError, match="the same made-up inputs"):
        encoded(Net(torch.tanh), like=reader)


def test_merged_adapters_are_the_same_and_others_are_not():
    adapted = Net()
    adapted.first = Adapted(adapted.first)
    reader, merged = reader_of(adapted), Net()
    merged.first = adapted.first.merged()
    with rs.attach(merged, reader):
        pass
    encoded(merged, like=reader)
    with pytest.raises(SourceMismatchError, match="exists on one side only"):
        rs.attach(Net(), reader)  # without the adapter


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_copy_is_accepted(dtype):
    with rs.attach(Net().to(dtype), reader_of(Net())):
        pass


def test_the_probe_is_stored_and_is_the_same_again():
    enc = encoded(Net())
    assert enc.source.probe == encoded(Net()).source.probe
    assert enc.source.probe.answers
    assert Source.from_json(enc.source.to_json()) == enc.source


def test_tokens_are_drawn_within_the_range_seen():
    model = nn.Sequential(nn.EmbeddingBag(5, 4), nn.Linear(4, 3)).eval()
    enc = rs.encode(model, torch.arange(20).reshape(10, 2) % 5, torch.arange(10) % 3, progress=False)
    assert (enc.source.probe.low, enc.source.probe.high, enc.source.probe.whole) == (0, 4, True)
    assert enc.source.probe.answers


class Random(Net):
    def forward(self, x):
        return super().forward(x + torch.randn_like(x))


def test_a_model_that_does_not_repeat_itself_has_no_probe():
    assert encoded(Random()).source.probe is None


def test_hooks_of_the_users_are_not_called_for_nothing():
    model, calls = Net(), []
    reader = reader_of(model)
    model.first.register_forward_hook(lambda *_: calls.append(1))
    with rs.attach(model, reader):
        assert not calls
    assert encoded(model).source.probe is None
