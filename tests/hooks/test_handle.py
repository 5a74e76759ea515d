"""Attaching and detaching: the model is itself again by every exit."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import residua as rs
from residua.errors import EncodeError, InputError, KeyModuleError, ParameterError, SourceMismatchError
from residua.hooks import Handle


def hooks_in(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.fixture
def x(parts):
    return parts[1][0][:20]


def bare(memory):
    return rs.Memory(rs.Encoded(memory.keys, memory.logits, memory.labels))


def test_attaching_is_in_place_and_leaves_parameters_alone(model, reader, x):
    base, state, names = model(x), copy.deepcopy(model.state_dict()), set(vars(model))
    forward = type(model).forward
    with rs.attach(model, reader) as handle:
        assert handle.attached
        assert handle.model is model
        assert handle.key == "fc:input"
        assert hooks_in(model) > 0
        assert not torch.equal(model(x), base)
        assert model.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert model.forward.__func__ is forward
        assert set(vars(model)) == names
    assert not handle.attached
    assert hooks_in(model) == 0
    assert torch.equal(model(x), base)


def test_detaching_by_hand_and_twice(model, reader, x):
    base = model(x)
    handle = rs.attach(model, reader)
    assert not torch.equal(model(x), base)
    handle.detach()
    handle.detach()
    assert torch.equal(model(x), base)
    with pytest.raises(InputError, match="was detached"), handle:
        pass


def test_an_error_in_the_block_detaches(model, reader, x):
    with pytest.raises(ZeroDivisionError), rs.attach(model, reader):
        _ = 1 / 0
    assert hooks_in(model) == 0


def test_a_lost_handle_leaves_the_memory_attached_and_is_found_again(model, reader, x):
    base = model(x)
    rs.attach(model, reader)
    gc.collect()
    assert not torch.equal(model(x), base)
    handle = Handle.of(model)
    assert handle.attached and handle.reader is reader
    handle.detach()
    assert hooks_in(model) == 0 and not handle.attached
    with pytest.raises(InputError, match="no memory is attached"):
        Handle.of(model)


def test_nothing_keeps_a_forgotten_model_alive(model, reader, x):
    copied = copy.deepcopy(model)
    handle = rs.attach(copied, reader)
    copied(x)
    gone = weakref.ref(copied)
    del handle, copied
    gc.collect()
    assert gone() is None


def test_a_model_in_training_mode_is_warned_of(model, reader):
    model.train()
    with pytest.warns(UserWarning, match=r"training mode.*model\.eval\(\)"), rs.attach(model, reader):
        pass
    model.eval()


def test_attaching_twice_is_refused(model, reader, x):
    with rs.attach(model, reader) as handle:
        with pytest.raises(InputError, match=r"Net has a memory attached already.*handle\.reader = reader"):
            rs.attach(model, reader)
        assert handle.attached
    with rs.attach(model, reader):
        pass


def test_disabled_blocks_nest_and_end_with_an_error(model, reader, x):
    base = model(x)
    with rs.attach(model, reader) as handle:
        changed = model(x)
        with handle.disabled():
            assert torch.equal(model(x), base)
            with handle.disabled():
                assert torch.equal(model(x), base)
            assert torch.equal(model(x), base)
        assert torch.equal(model(x), changed)
        with pytest.raises(ZeroDivisionError), handle.disabled():
            _ = 1 / 0
        assert torch.equal(model(x), changed)


def test_another_reader_takes_over(model, reader, memory, parts, x):
    enc = rs.encode(model, x, progress=False)
    with rs.attach(model, reader) as handle:
        for other in (rs.KNNLM(memory, k=5, lmbda=1.0), rs.ResMem(bare(memory), k=2, sigma=1.0)):
            handle.reader = other
            assert handle.reader is other
            np.testing.assert_allclose(torch.softmax(model(x), 1), other.predict_proba(enc), atol=1e-5)
        with pytest.warns(UserWarning, match="10 of 64 outputs"):
            foreign = rs.ResMem(rs.Memory(rs.encode(nn.Flatten(), parts[0], key="", progress=False)), k=0)
        with pytest.raises(SourceMismatchError):
            handle.reader = foreign
        elsewhere = rs.ResMem(rs.Memory(rs.encode(model, parts[0], key="hidden", progress=False)))
        with pytest.raises(SourceMismatchError, match="'hidden' here and from 'fc:input' there"):
            handle.reader = elsewhere
        with pytest.raises(ParameterError, match="where a reader is expected"):
            handle.reader = memory
        assert handle.reader is other


def test_another_models_memory_is_refused(model, reader):
    with torch.no_grad():
        model.conv.weight *= 1.01
    with pytest.raises(SourceMismatchError, match=r"parameter 'conv\.weight' has other numbers"):
        rs.attach(model, reader)
    assert hooks_in(model) == 0


def test_a_wrapped_model_is_the_same_and_its_key_is_found(model, reader, x, parts):
    wrapped = nn.DataParallel(model).eval()
    with rs.attach(model, reader):
        expected = model(x)
    with rs.attach(wrapped, reader):
        assert torch.equal(wrapped(x), expected)
    memory = rs.Memory(rs.encode(wrapped, parts[0], progress=False))
    assert memory.source.key == "module.fc:input"
    with rs.attach(model, rs.ResMem(memory, **reader.params)):
        torch.testing.assert_close(model(x), expected)


def test_an_estimators_memory_is_refused(model, parts):
    x, y = parts[0][0].reshape(600, -1).numpy(), parts[0][1].numpy()
    base = LogisticRegression(C=0.01).fit(x, y)
    memory = rs.Memory(rs.encode(base, x, y))
    with pytest.raises(SourceMismatchError, match="LogisticRegression"):
        rs.attach(model, rs.ResMem(memory))
    with pytest.raises(EncodeError, match=r"residua\.sklearn\.ResMemClassifier"):
        rs.attach(base, rs.ResMem(memory))


def test_other_keys_of_the_same_model(model, parts, x):
    enc = rs.encode(model, parts[0], key="conv", progress=False)
    reader = rs.ResMem(rs.Memory(enc), k=3)
    with rs.attach(model, reader) as handle:
        out = model(x)
    assert handle.key == "conv"
    expected = reader.predict_proba(rs.encode(model, x, key="conv", progress=False))
    np.testing.assert_allclose(torch.softmax(out, 1), expected, atol=1e-5)
    with pytest.raises(SourceMismatchError, match="keys come from 'conv' here"):
        rs.attach(model, reader, key="fc:input")


def test_a_model_that_is_one_layer(parts, x):
    net = nn.Linear(64, 10).eval()
    flat = parts[0][0].reshape(-1, 64), parts[0][1]
    reader = rs.ResMem(rs.Memory(rs.encode(net, flat, progress=False)), k=3)
    new = x.reshape(-1, 64)
    with rs.attach(net, reader) as handle:
        out = net(new)
    assert handle.key == ":input"
    np.testing.assert_allclose(
        torch.softmax(out, 1), reader.predict_proba(rs.encode(net, new, progress=False)), atol=1e-5
    )


def test_a_memory_of_bare_arrays_needs_a_key(model, memory, x):
    reader = rs.ResMem(bare(memory), k=20, temperature=1.3)
    with pytest.raises(ParameterError, match="does not know which layer"):
        rs.attach(model, reader)
    with pytest.raises(KeyModuleError, match="no module 'fcc'"):
        rs.attach(model, reader, key="fcc:input")
    with rs.attach(model, reader, key="fc:input"):
        out = model(x)
    with rs.attach(model, rs.ResMem(memory, k=20, temperature=1.3)):
        torch.testing.assert_close(out, model(x))


def test_what_is_no_reader_or_no_plain_module(model, reader, memory):
    with pytest.raises(ParameterError, match="got a Memory where a reader is expected"):
        rs.attach(model, memory)
    with pytest.raises(EncodeError, match="is compiled"):
        rs.attach(torch.compile(model, backend="eager"), reader)


def test_a_copy_of_an_attached_model_is_not_attached(model, reader, x):
    base = model(x)
    with rs.attach(model, reader):
        changed = model(x)
        copied = copy.deepcopy(model)
        for _ in range(3):
            assert torch.equal(copied(x), base)
        assert torch.equal(model(x), changed)
        with rs.attach(copied, reader):
            assert torch.equal(copied(x), changed)
    assert torch.equal(copied(x), base)


def test_an_attached_model_is_not_pickled(model, reader, x):
    with rs.attach(model, reader), pytest.raises(InputError, match="detach it before pickling"):
        pickle.dumps(model)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(x), model(x))


def test_repr_says_what_is_attached_to_what(model, reader):
    with rs.attach(model, reader) as handle:
        assert repr(handle).startswith("Handle(Net, key='fc:input', attached, ResMem(Memory(600 rows")
    assert "detached" in repr(handle)


def test_a_memory_that_was_here_before_is_not_checked_again(model, reader, memory, monkeypatch):
    other = rs.ResMem(bare(memory), k=2, sigma=1.0)
    with rs.attach(model, reader) as handle:
        handle.reader = other
        monkeypatch.setattr("residua.hooks.handle._key_of", lambda *_: pytest.fail("it was checked again"))
        for one in (reader, other, reader):
            handle.reader = one
            assert handle.reader is one
