"""The probe: the same function answers alike, and another does not."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
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


class Ruled(ClassifierMixin, BaseEstimator):
    """An estimator whose rule is code, which no attribute shows."""

    def __init__(self, rule=None):
        self.rule = rule

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):
        return self.rule(np.asarray(X))

    def predict(self, X):
        return self.classes_[(self.decision_function(X) > 0).astype(int)]


def table(n=60):
    X = np.random.default_rng(0).normal(size=(n, 3)) * [1, 100, 1e-3] + [0, 5000, 1]
    return X, (X[:, 0] > 0).astype(int)


def ruled(rule):
    return Ruled(rule).fit(*table())


def test_another_rule_of_an_estimator_is_refused():
    def slope(X):
        return X[:, 0] + X[:, 1] / 5000

    enc = rs.encode(ruled(slope), table(), progress=False)
    assert len(enc.source.probe.answers) == 2 * 4 * 3
    assert all(low < 5000 < high for low, high in [(enc.source.probe.low[1], enc.source.probe.high[1])])
    rs.encode(ruled(lambda X: X[:, 0] + X[:, 1] / 5000), table(), like=rs.Memory(enc), progress=False)
    with pytest.raises(SourceMismatchError, match="the same made-up inputs"):
        rs.encode(ruled(lambda X: X[:, 0] * X[:, 1] / 5000), table(), like=rs.Memory(enc), progress=False)


@pytest.mark.parametrize("kind", ["array", "frame", "list"])
def test_the_probe_of_a_table_is_of_its_ranges_alone(kind):
    pandas = pytest.importorskip("pandas")
    X, y = table()
    rows = {"array": X, "frame": pandas.DataFrame(X, columns=list("abc")), "list": X.tolist()}[kind]
    forest = RandomForestClassifier(5, random_state=0).fit(rows, y)
    enc = rs.encode(forest, rows, y, progress=False)
    np.testing.assert_array_equal(enc.source.probe.low, X.min(axis=0))
    np.testing.assert_array_equal(enc.source.probe.high, X.max(axis=0))
    again = rs.encode(copy.deepcopy(forest), rows[:10] if kind != "frame" else rows.iloc[:10], like=enc, progress=False)
    assert again.source.probe == enc.source.probe == Source.from_json(enc.source.to_json()).probe


def test_rows_that_are_no_numbers_have_no_probe():
    pandas = pytest.importorskip("pandas")
    rows = pandas.DataFrame({"a": list("xyxyxy")})
    model = Ruled(lambda X: (X[:, 0] == "x") - 0.5).fit(rows, [0, 1] * 3)
    enc = rs.encode(model, rows, [1, 0] * 3, key=lambda X: (X[["a"]] == "x").to_numpy(float), progress=False)
    assert enc.source.probe is None


class Mute(nn.Module):
    def forward(self, x):
        return torch.rand(len(x), 3)


def test_a_model_of_which_nothing_is_known_is_named():
    with pytest.warns(UserWarning, match="this Mute shows no numbers that it learned"):
        rs.encode(Mute().eval(), torch.zeros(4, 2), [0, 1, 2, 0], key=":input", progress=False)
