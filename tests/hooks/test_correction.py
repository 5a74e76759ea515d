"""What an attached model answers: its reader's own predictions, in the model's own form."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import residua as rs
from residua.errors import EncodeError, KeyModuleError, NonFiniteError, ParameterError, ShapeError


class Wrap(nn.Module):
    def __init__(self, net, change):
        super().__init__()
        self.net, self.change = net, change

    def forward(self, x):
        return self.change(self.net(x))


def make(memory, name):
    return {
        "ResMem": lambda: rs.ResMem(memory, k=20, temperature=1.3),
        "ResMem, one neighbour": lambda: rs.ResMem(memory, k=1, sigma=0.5),
        "ResMem in the exponent": lambda: rs.ResMem(memory, k=20, space="exponent", temperature=2.0),
        "kNN-LM": lambda: rs.KNNLM(memory, k=30, lmbda=0.4),
        "label k-NN": lambda: rs.KNNLM(memory, k=7, lmbda=1.0, kernel="exponential"),
    }[name]()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResMem", "ResMem, one neighbour", "ResMem in the exponent", "kNN-LM", "label k-NN"])
def test_softmax_is_predict_proba_and_argmax_is_predict(model, memory, parts, name):
    reader, (x, _) = make(memory, name), parts[1]
    enc = rs.encode(model, x, progress=False)
    with rs.attach(model, reader):
        out = model(x)
    np.testing.assert_allclose(torch.softmax(out, 1), reader.predict_proba(enc), atol=1e-5)
    np.testing.assert_array_equal(out.argmax(1), reader.predict(enc))
    assert out.isfinite().all()
    # The comparison means something only where the memory changes predictions.
    assert (out.argmax(1) != model(x).argmax(1)).any()


def test_the_memory_improves_the_model_as_the_reader_says(model, reader, parts):
    x, y = parts[1]
    base = (model(x).argmax(1) == y).float().mean()
    with rs.attach(model, reader):
        attached = (model(x).argmax(1) == y).float().mean()
    assert attached > base + 0.02


@pytest.mark.parametrize("batch", [0, 1, 3, 2500])
def test_any_batch_size(model, reader, parts, batch):
    x = parts[1][0].repeat(9, 1, 1, 1)
    with rs.attach(model, reader):
        whole = model(x)
        part = model(x[:batch])
    torch.testing.assert_close(part, whole[:batch], atol=1e-4, rtol=1e-4)


def test_storage_and_index_of_the_memory_do_not_matter(model, parts):
    enc = rs.encode(model, parts[0], progress=False)
    x = parts[1][0]
    outs = []
    for options in ({}, {"storage": "head"}, {"storage": "top-m", "m": 10}):
        with rs.attach(model, rs.ResMem(rs.Memory(enc, **options), k=5, sigma=1.0)):
            outs.append(model(x))
    torch.testing.assert_close(outs[0], outs[1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(outs[0], outs[2], atol=1e-3, rtol=1e-3)


FORMS = {
    "object": (lambda out: SimpleNamespace(logits=out, loss=3.0), lambda out: out.logits, lambda out: out.loss),
    "dict": (lambda out: {"logits": out, "loss": 3.0}, lambda out: out["logits"], lambda out: out["loss"]),
    "tuple": (lambda out: (out, "state"), lambda out: out[0], lambda out: out[1]),
}


@pytest.mark.parametrize("form", FORMS)
def test_output_forms(model, parts, form):
    change, logits, rest = FORMS[form]
    wrapped = Wrap(model, change).eval()
    reader = rs.ResMem(rs.Memory(rs.encode(wrapped, parts[0], progress=False)), k=20)
    x = parts[1][0]
    with rs.attach(wrapped, reader):
        out = wrapped(x)
    expected = reader.predict_proba(rs.encode(wrapped, x, progress=False))
    np.testing.assert_allclose(torch.softmax(logits(out), 1), expected, atol=1e-5)
    assert rest(out) == (3.0 if form != "tuple" else "state")


@pytest.mark.parametrize("flat", [False, True])
def test_a_lone_logit_comes_back_as_log_odds(parts, flat):
    (x, y), (new, _) = parts
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 1))
    net = Wrap(net, (lambda out: out[:, 0]) if flat else (lambda out: out)).eval()
    enc = rs.encode(net, (x, (y > 4).long()), progress=False)
    reader = rs.ResMem(rs.Memory(enc), k=10)
    with rs.attach(net, reader):
        out = net(new)
    assert out.shape == ((len(new),) if flat else (len(new), 1))
    p = reader.predict_proba(rs.encode(net, new, task="classification", progress=False))
    np.testing.assert_allclose(torch.sigmoid(out.reshape(-1)), p[:, 1], atol=1e-5)
    np.testing.assert_array_equal(out.reshape(-1) > 0, p.argmax(1))


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression_gives_corrected_predictions(parts, outputs):
    (x, y), (new, _) = parts
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, outputs)).eval()
    targets = torch.stack([y.float(), -y.float()], 1)[:, :outputs]
    enc = rs.encode(net, (x, targets[:, 0] if outputs == 1 else targets), progress=False)
    reader = rs.ResMem(rs.Memory(enc), k=10)
    with rs.attach(net, reader):
        out = net(new)
    expected = reader.predict(rs.encode(net, new, progress=False))
    assert out.shape == (len(new), outputs)
    np.testing.assert_allclose(out.reshape(expected.shape), expected, rtol=1e-5)
    assert (out - net(new)).abs().max() > 1


def test_dtype_is_the_models(model, reader, parts):
    x, _ = parts[1]
    expected = torch.tensor(reader.predict_proba(rs.encode(model, x, progress=False)))
    with rs.attach(model, reader), torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x)
    assert out.dtype == torch.bfloat16
    assert (torch.softmax(out.float(), 1) - expected).abs().mean() < 0.01
    for dtype in (torch.float64, torch.bfloat16):
        with rs.attach(model.to(dtype), reader):
            out = model(x.to(dtype))
        assert out.dtype == dtype
        assert (torch.softmax(out.float(), 1) - expected).abs().mean() < 0.02


class Precise(nn.Module):
    """A network that computes in float32 under any autocast, so that only its memory could differ."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.net(x)


def test_autocast_does_not_reach_the_memory(model, parts):
    precise, x = Precise(model).eval(), parts[1][0]
    memory = rs.Memory(rs.encode(precise, parts[0], progress=False), storage="head")
    with rs.attach(precise, rs.ResMem(memory, k=5, sigma=1.0)):
        out = precise(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(precise(x), out)


@pytest.mark.parametrize("nothing", ["k=0", "empty memory"])
def test_no_memory_is_the_models_own_output_object(model, parts, nothing):
    memory = rs.Memory(rs.encode(model, (parts[0][0][:5], parts[0][1][:5]), progress=False))
    reader = rs.ResMem(memory, k=0 if nothing == "k=0" else 3)
    if nothing == "empty memory":
        memory.forget(memory.ids)
    seen = []
    model.fc.register_forward_hook(lambda module, args, out: seen.append(out))
    with rs.attach(model, reader):
        assert model(parts[1][0][:2]) is seen[0]


@pytest.mark.parametrize("nothing", ["k=0", "empty memory"])
def test_a_temperature_without_memory_is_the_readers_own_answer(model, parts, nothing):
    memory = rs.Memory(rs.encode(model, (parts[0][0][:5], parts[0][1][:5]), progress=False))
    reader = rs.ResMem(memory, k=0 if nothing == "k=0" else 3, temperature=1.4)
    if nothing == "empty memory":
        memory.forget(memory.ids)
    expected = reader.predict_proba(rs.encode(model, parts[1], progress=False))
    with torch.no_grad():
        np.testing.assert_allclose(expected, (model(parts[1][0]) / 1.4).softmax(dim=1), atol=1e-6)
    with rs.attach(model, reader):
        np.testing.assert_allclose(model(parts[1][0]).softmax(dim=1), expected, atol=1e-6)


def test_a_reader_of_texts_refuses_rows_without_order(model, memory, parts):
    reader = rs.ContinuousCache(rs.KNNLM(memory, k=3))
    with rs.attach(model, reader), pytest.raises(ParameterError, match="depends on the text before"):
        model(parts[1][0])


def test_training_mode_is_the_base_with_its_gradients(model, reader, parts):
    x, y = parts[1]
    with rs.attach(model, reader):
        model.train()
        torch.manual_seed(3)
        out = model(x)
        torch.nn.functional.cross_entropy(out, y).backward()
        assert model.conv.weight.grad.abs().sum() > 0
        model.eval()
        corrected = model(x)
    torch.manual_seed(3)
    torch.testing.assert_close(out, model.train()(x))
    assert not corrected.requires_grad
    assert model.eval()(x).requires_grad


def test_inference_mode_first_and_gradients_after(model, reader, parts):
    x = parts[1][0]
    with rs.attach(model, reader):
        with torch.inference_mode():
            one = model(x)
        two = model(x)
    assert torch.equal(one, two)


def test_edits_of_the_memory_show_at_once(model, parts):
    (x, y), (new, _) = parts
    memory = rs.Memory(rs.encode(model, (x, y), progress=False))
    with rs.attach(model, rs.ResMem(memory, k=1, sigma=1.0)):
        wrong = (model(new[:1]).argmax(1) + 1) % 10
        ids = memory.add(rs.encode(model, (new[:1], wrong), progress=False))
        assert model(new[:1]).argmax(1) == wrong
        memory.forget(ids)
        assert model(new[:1]).argmax(1) != wrong


def test_threads_read_their_own_keys(model, reader, parts):
    x = parts[1][0]
    barrier = threading.Barrier(4)
    answers = {}

    def wait(*_):  # between its key and its answer, until all threads are there
        barrier.wait(timeout=20)

    waiting = model.fc.register_forward_hook(wait)

    def work(i):
        answers[i] = model(x[40 * i : 40 * (i + 1)])

    with rs.attach(model, reader):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    waiting.remove()
    enc = rs.encode(model, x[:160], progress=False)
    found = torch.cat([answers[i] for i in range(4)])
    np.testing.assert_allclose(torch.softmax(found, 1), reader.predict_proba(enc), atol=1e-5)


def test_a_failed_forward_pass_leaves_nothing_behind(model, reader, parts):
    x = parts[1][0]
    broken = model.fc.register_forward_hook(lambda *_: 1 / 0)
    with rs.attach(model, reader):
        with pytest.raises(ZeroDivisionError):
            model(x)
        broken.remove()
        first = model(x)
        assert torch.equal(first, model(x))


def test_nan_keys_are_refused(model, reader, parts):
    x = parts[1][0][:4].clone()
    x[2] = torch.nan
    with rs.attach(model, reader), pytest.raises(NonFiniteError, match=r"'fc:input' gave NaN.*1 of 4"):
        model(x)


def test_a_key_module_that_runs_twice_is_refused(model, memory, parts):
    twice = Wrap(model, lambda out: out).eval()
    twice.forward = lambda x: twice.net(x) + twice.net(x)
    bare = rs.ResMem(rs.Memory(rs.Encoded(*rows(memory))), k=3)
    with rs.attach(twice, bare, key="net.fc:input"), pytest.raises(KeyModuleError, match="ran 2 times"):
        twice(parts[1][0])


def rows(memory):
    return memory.keys, memory.logits, memory.labels


def test_keys_and_outputs_of_another_width_are_refused(model, memory, parts):
    keys, logits, labels = rows(memory)
    x = parts[1][0]
    narrow = rs.ResMem(rs.Memory(rs.Encoded(keys[:, :5], logits, labels)), k=3)
    with rs.attach(model, narrow, key="fc:input"), pytest.raises(ShapeError, match=r"keys are \(n, 5\)"):
        model(x)
    wide = rs.ResMem(rs.Memory(rs.Encoded(keys, torch.zeros(len(keys), 12), labels)), k=3)
    with rs.attach(model, wide, key="fc:input"), pytest.raises(ShapeError, match=r"gave 10 outputs.*has 12"):
        model(x)
    wrapped = Wrap(model, lambda out: "text").eval()
    with (
        rs.attach(wrapped, rs.ResMem(rs.Memory(rs.Encoded(keys, logits, labels))), key="net.fc:input"),
        pytest.raises(EncodeError, match="returned str"),
    ):
        wrapped(x)
