"""How much of the model's words is kept: all, none, its head, or the largest residuals."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.core import DenseLogits, Head, HeadLogits, TopLogits
from residua.core.logits import AbsentLogits
from residua.errors import ParameterError, StorageError

WEIGHT = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
BIAS = np.random.default_rng(1).normal(size=6).astype(np.float32)


def head(weight=WEIGHT, bias=BIAS):
    return Head(torch.from_numpy(weight), None if bias is None else torch.from_numpy(bias))


def made(n=20, seed=2, h=True, spoil=0.0, bias=BIAS):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 3)).astype(np.float32)
    logits = keys @ WEIGHT.T + (0 if bias is None else bias)
    return rs.Encoded(keys, logits + spoil, rng.integers(0, 6, n), head=head(bias=bias) if h else None)


def test_full_keeps_every_logit():
    enc = made()
    np.testing.assert_array_equal(rs.Memory(enc).logits, enc.logits)


def test_none_keeps_nothing():
    memory = rs.Memory(made(), storage="none")
    assert memory.logits is None
    assert rs.KNNLM(memory, k=3).scores(made(4, 9)).shape == (4, 6)
    with pytest.raises(StorageError, match="storage='none'"):
        rs.ResMem(memory, k=3)


@pytest.mark.parametrize("bias", [BIAS, None])
def test_head_recomputes_them(bias):
    enc = made(bias=bias)
    memory = rs.Memory(enc, storage="head")
    memory.add(made(5, 3, bias=bias))
    expected = np.concatenate([enc.logits, made(5, 3, bias=bias).logits])
    np.testing.assert_allclose(memory.logits.dense(), expected, atol=1e-5)
    lazy = rs.Encoded(enc.keys, HeadLogits(head(bias=bias), torch.from_numpy(enc.keys)), enc.labels)
    np.testing.assert_allclose(rs.Memory(lazy, storage="head").logits.dense(), enc.logits, atol=1e-5)


def test_a_head_that_is_not_the_models_is_refused():
    with pytest.raises(StorageError, match="come without one"):
        rs.Memory(made(h=False), storage="head")
    with pytest.raises(StorageError, match=r"differ from the model's by up to 0\.5"):
        rs.Memory(made(spoil=0.5), storage="head")
    spoilt = [made(), made(3, spoil=[0.5, 0, 0, 0, 0, 0])]
    with pytest.raises(StorageError, match=r"differ"):
        rs.Memory(spoilt, storage="head")


@pytest.mark.parametrize("h", [True, False])
def test_every_later_batch_must_fit_the_head(h):
    memory = rs.Memory(made(), storage="head")
    with pytest.raises(StorageError, match="differ"):
        memory.add(made(4, h=h, spoil=0.2))
    enc = made(4, 5)
    other = rs.Encoded(enc.keys, HeadLogits(head(bias=BIAS + 0.2), torch.from_numpy(enc.keys)), enc.labels)
    with pytest.raises(StorageError, match="another model's layer"):
        memory.add(other)
    assert len(memory) == 20
    memory.add(made(4, 5, h=h))
    assert len(memory) == 24


def test_top_m_keeps_the_largest_residuals():
    enc = made(50)
    memory = rs.Memory(enc, storage="top-m", m=3, temperature=1.4)
    kept = memory.logits
    assert isinstance(kept, TopLogits)
    logits = enc.logits.dense().numpy().astype(np.float64) / 1.4
    said = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    residuals = np.eye(6)[enc.labels] - said
    largest = np.sort(np.argsort(-np.abs(residuals), axis=1)[:, :3], axis=1)
    np.testing.assert_array_equal(np.sort(kept.ids, axis=1), largest)
    assert kept.ids[:, 0].tolist() == enc.labels.tolist()
    stored = kept.probabilities(None, 1.4).numpy()
    np.testing.assert_allclose(stored, np.where(stored > 0, said, 0), atol=1e-6)
    assert ((stored > 0).sum(axis=1) == 3).all()


def test_top_m_serves_one_temperature():
    memory = rs.Memory(made(), storage="top-m", m=3, temperature=1.4)
    rs.ResMem(memory, k=2, temperature=1.4)
    for asked in (1.0, 1.4000001):
        with pytest.raises(StorageError, match=r"at temperature 1\.4.*storage='full'"):
            rs.ResMem(memory, k=2, temperature=asked)
    rs.ResMem(memory, k=0, temperature=2.0)  # no memory, no residuals
    rs.KNNLM(memory, k=2, temperature=2.0)


def test_top_m_is_for_classes():
    with pytest.raises(StorageError, match="regression"):
        rs.Memory(rs.Encoded([[0.0]], [0.0], [1.0]), storage="top-m")
    for bad in ({"m": 0}, {"temperature": 0.0}, {"temperature": -1.0}, {"temperature": float("nan")}):
        with pytest.raises(ParameterError, match="top-m"):
            rs.Memory(made(), storage="top-m", **bad)
    with pytest.raises(ParameterError, match=r"'half'.*'full'"):
        rs.Memory(made(), storage="half")


def test_bytes_per_row():
    always = {"key": 12, "label": 1, "id": 1, "active": 0, "index": 0}
    assert rs.Memory(made(), storage="none").bytes_per_row == always
    assert rs.Memory(made(), storage="head").bytes_per_row == always
    assert rs.Memory(made(), storage="full").bytes_per_row == always | {"logits": 24}
    top = {"top.ids": 8, "top.values": 8, "top.partition": 4}
    assert rs.Memory(made(), storage="top-m", m=2).bytes_per_row == always | top


@pytest.mark.parametrize("storage", ["top-m", "head"])
def test_wide_logits_are_looked_at_a_few_rows_at_a_time(storage, monkeypatch):
    expected = rs.Memory(made(), storage=storage, m=2)
    monkeypatch.setattr("residua.memory.storage.BLOCK", 20)  # three rows of six classes
    sizes, dense = [], DenseLogits.dense
    monkeypatch.setattr(DenseLogits, "dense", lambda self, i=None: sizes.append(len(self)) or dense(self, i))
    blocked = rs.Memory(made(), storage=storage, m=2)
    assert max(sizes) == 3 and sum(sizes) == len(blocked)
    monkeypatch.undo()
    assert torch.equal(blocked.logits.dense(), expected.logits.dense())


def test_labels_alone_need_no_logits():
    enc = made()
    bare = rs.Encoded(enc.keys, AbsentLogits(len(enc), enc.n_outputs), enc.labels)
    assert rs.Memory(bare, storage="none").labels.tolist() == enc.labels.tolist()
    for storage in ("full", "top-m"):
        with pytest.raises(StorageError, match="without logits"):
            rs.Memory(bare, storage=storage)
