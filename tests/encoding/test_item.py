"""Torch models of every way of speaking: what is encoded is the model, and what is attached speaks like it."""

import copy
import logging
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn

import residua as rs
from residua.core import Source
from residua.errors import EncodeError, ParameterError, SourceMismatchError

Pair = namedtuple("Pair", ["features", "scores"])


class Net(nn.Module):
    """Two layers; `says` makes the output of the hidden layer's values and the logits."""

    def __init__(self, says, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.fc, self.says = nn.Linear(6, 8), nn.Linear(8, classes), says

    def forward(self, x):
        h = self.hidden(x).tanh()
        return self.says(h, 6 * self.fc(h))


X = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
KINDS = {
    "logits": lambda h, f: f,
    "log-probabilities": lambda h, f: f.log_softmax(1),
    "probabilities": lambda h, f: f.softmax(1),
    "percentages": lambda h, f: 100 * f.softmax(1),
}


def labels(classes=4):
    """Mostly what the model says, so that its memory has something to correct."""
    y = Net(KINDS["logits"], classes)(X).argmax(1)
    y[::5] = (y[::5] + 1) % classes
    return y


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_base_is_the_model_and_the_kind_is_said(kind, dtype, caplog):
    model = Net(KINDS[kind]).to(dtype)
    with caplog.at_level(logging.INFO, logger="residua"):
        enc = rs.encode(model, (X.to(dtype), labels()))
    expected = copy.deepcopy(model)
    expected.says = KINDS["probabilities"]
    p = expected(X.to(dtype)).float().detach()
    np.testing.assert_allclose(enc.logits.probabilities(), p, atol=1e-6 if dtype == torch.float32 else 0.02)
    assert enc.source.output == kind
    assert f"outputs are {kind}" in caplog.text
    assert Source.from_json(enc.source.to_json()) == enc.source


@pytest.mark.parametrize("kind", KINDS)
def test_attached_models_speak_as_they_did(kind):
    model = Net(KINDS[kind]).eval()
    enc = rs.encode(model, (X, labels()))
    reader = rs.ResMem(rs.Memory(enc[:150]), k=5)
    queries = rs.encode(model, X[150:], like=enc)
    with rs.attach(model, reader) as handle:
        said = model(X[150:])
        with handle.disabled():
            base = model(X[150:])
    assert (said != base).any()
    p = torch.from_numpy(reader.predict_proba(queries))
    kept = base.logsumexp(dim=1, keepdim=True)  # log-probabilities and logits keep what the model's own sum to
    expected = {"probabilities": p, "percentages": 100 * p}.get(kind, p.log() + kept)
    torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("float_labels", [True, False])
def test_a_sigmoid_column(flat, float_labels):
    model = Net(lambda h, f: f.sigmoid()[:, 0] if flat else f.sigmoid(), classes=1).eval()
    y = (model(X).reshape(-1) > 0.5).long()
    y[::5] = 1 - y[::5]
    enc = rs.encode(model, (X, y.float() if float_labels else y))
    assert (enc.task, enc.n_outputs, enc.source.output) == ("classification", 2, "probabilities")
    np.testing.assert_allclose(enc.logits.probabilities()[:, 1], model(X).detach().reshape(-1), atol=1e-6)
    reader = rs.ResMem(rs.Memory(enc), k=5)
    with rs.attach(model, reader):
        said = model(X[:9])
    assert said.shape == ((9,) if flat else (9, 1))
    np.testing.assert_allclose(said.reshape(-1), reader.predict_proba(enc[:9])[:, 1], atol=1e-5)


def test_one_row_is_read_as_the_memorys_rows_were():
    model = Net(KINDS["logits"]).eval()
    enc = rs.encode(model, (X, labels()))
    model.says = lambda h, f: f.softmax(1)
    with pytest.raises(SourceMismatchError, match="taken for"):
        rs.Memory(enc).add(rs.encode(model, (X, labels())))
    with pytest.raises(SourceMismatchError, match="made-up inputs"):
        rs.encode(model, X[:1], like=enc)
    model.says = lambda h, f: (f - f).exp() / f.shape[1]  # one row might be probabilities by chance
    assert rs.encode(model, X[:1]).source.output == "probabilities"
    model.says = KINDS["logits"]
    one = rs.encode(model, X[:1], like=enc)
    np.testing.assert_allclose(np.asarray(one.logits), model(X[:1]).detach(), atol=1e-6)
    assert rs.encode(model, X[:1], output="logits").source.output == "logits"


def test_a_folder_of_before_kinds_were_known_still_fits():
    enc = rs.encode(Net(KINDS["logits"]), (X, labels()))
    old = enc.source.to_json()
    del old["output"], old["item"]
    Source.from_json(old).require(enc.source)


@pytest.mark.parametrize(
    "says, output, item",
    [
        (lambda h, f: (h, f), "auto", 1),  # the last layer's answer is found by itself
        (lambda h, f: (h, f.softmax(1)), 1, 1),
        (lambda h, f: [h, f], -1, -1),
        (lambda h, f: {"features": h, "scores": f}, "scores", "scores"),
        (
            lambda h, f: {"features": h, "probabilities": f.softmax(1)},
            ("probabilities", "probabilities"),
            "probabilities",
        ),
        (lambda h, f: Pair(h, f), "scores", "scores"),
    ],
    ids=["tuple", "probabilities in a tuple", "list", "dict", "probabilities in a dict", "named tuple"],
)
def test_an_item_of_what_is_returned(says, output, item):
    class Last(Net):
        def forward(self, x):  # the last layer's own answer is among the items
            h = self.hidden(x).tanh()
            return self.says(h, self.fc(h))

    model = Last(says).eval()
    y = Last(KINDS["logits"])(X).argmax(1)
    y[::5] = (y[::5] + 1) % 4
    enc = rs.encode(model, (X, y), output=output)
    np.testing.assert_allclose(enc.logits.probabilities(), Last(KINDS["probabilities"])(X).detach(), atol=1e-6)
    assert enc.source.item == item
    assert rs.encode(model, X[:3], like=enc).n_outputs == 4
    reader = rs.ResMem(rs.Memory(enc), k=5)
    with rs.attach(model, reader):
        returned = model(X[:9])
    kept = returned["features"] if isinstance(returned, dict) else returned[0]
    assert type(returned) is type(model(X[:9]))
    torch.testing.assert_close(kept, model.hidden(X[:9]).tanh())
    said = returned[item] if isinstance(item, int) or isinstance(returned, dict) else getattr(returned, item)
    p = said.softmax(1) if enc.source.output == "logits" else said
    np.testing.assert_allclose(p.detach(), reader.predict_proba(enc[:9]), atol=1e-5)


def test_a_function_picks_the_outputs_and_is_not_stored(tmp_path):
    model = Net(lambda h, f: (h, (f, None))).eval()
    pick = lambda returned: returned[1][0]  # noqa: E731
    enc = rs.encode(model, (X, labels()), output=pick)
    np.testing.assert_allclose(np.asarray(enc.logits), Net(KINDS["logits"])(X).detach(), atol=1e-5)
    assert rs.encode(model, X[:2], like=enc, output=pick).n_outputs == 4
    again = rs.encode(model, X[:2], like=rs.Memory(enc)).logits.dense()
    torch.testing.assert_close(again, enc.logits.dense()[:2])  # batches of other sizes may round otherwise
    enc.save(tmp_path / "enc.npz")
    with pytest.raises(ParameterError, match="pass output= with it again"):
        rs.encode(model, X[:2], like=rs.Encoded.load(tmp_path / "enc.npz"))
    with pytest.raises(EncodeError, match="output=1"):
        rs.attach(model, rs.ResMem(rs.Memory(enc), k=5))


def test_doubt_about_a_tuple_is_a_warning_and_a_wrong_item_an_error():
    model = Net(lambda h, f: (h[:, :4], f)).eval()  # 6 * fc is no layer's own answer
    with pytest.warns(UserWarning, match="output=1"):
        rs.encode(model, X)
    with pytest.raises(EncodeError, match="no item 5"):
        rs.encode(model, X, output=5)
    with pytest.raises(EncodeError, match="no item 'head'"):
        rs.encode(model, X, output="head")
    with pytest.raises(ParameterError, match="expected one of 'logits'"):
        rs.encode(model, X, output=2.5)


# Embedders: keys, and no classes


class Embedder(nn.Module):
    """Points on a sphere of 32 dimensions, by an untrained layer: their labels are another matter."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.embed = nn.Linear(6, 24), nn.Linear(24, 32)

    def forward(self, x):
        return nn.functional.normalize(self.embed(self.body(x).relu()), dim=1)


QUADRANT = (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long()


def test_an_embedder_taken_for_a_classifier_is_noticed():
    with pytest.warns(UserWarning, match=r"4 of 32 outputs.*output=None"):
        rs.encode(Embedder(), (X, QUADRANT))


def test_an_embedders_output_is_the_key_and_its_base_knows_nothing():
    model = Embedder().eval()
    enc = rs.encode(model, (X[:150], QUADRANT[:150]), output=None)
    np.testing.assert_allclose(enc.keys, model(X[:150]).detach(), atol=1e-6)
    assert (enc.source.key, enc.source.output, enc.task, enc.n_outputs) == (":output", "none", "classification", 4)
    assert not np.asarray(enc.logits).any()
    assert rs.encode(model, (X, QUADRANT), output=None, key="body").dim == 24


def test_label_knn_over_an_embedder(tmp_path):
    model = Embedder().eval()
    memory = rs.Memory(rs.encode(model, (X[:150], QUADRANT[:150]), output=None))
    reader = rs.KNNLM(memory, k=5, lmbda=1.0)
    reader.save(tmp_path / "mem")
    reader = rs.load(tmp_path / "mem")
    test = rs.encode(model, (X[150:], QUADRANT[150:]), like=reader)
    assert (reader.predict(test) == test.labels).mean() > 0.45
    one_class = rs.encode(model, (X[:3], torch.zeros(3, dtype=torch.long)), like=reader)
    assert one_class.n_outputs == rs.encode(model, X[:1], like=reader).n_outputs == 4
    assert rs.evaluate(reader, test).base_accuracy < 0.5


def test_an_embedder_of_targets():
    enc = rs.encode(Embedder(), (X, X[:, 0].clone()), output=None)
    assert (enc.task, enc.n_outputs) == ("regression", 1)


def test_what_an_embedder_cannot_do():
    model = Embedder().eval()
    with pytest.raises(ParameterError, match="like=memory"):
        rs.encode(model, X, output=None)
    enc = rs.encode(model, (X, QUADRANT), output=None)
    with pytest.raises(EncodeError, match="embedder's keys"):
        rs.attach(model, rs.KNNLM(rs.Memory(enc), k=5, lmbda=1.0))
    with pytest.raises(SourceMismatchError, match="taken for none"):
        enc.source.require(rs.encode(model, X, key=":output").source)
