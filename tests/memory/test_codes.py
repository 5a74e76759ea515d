"""Logits that the model's last layer recomputes from an index's codes of the keys."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch

import residua as rs
from residua.core import Head
from residua.errors import ParameterError, StorageError
from residua.index import DecodedKeys, Index, make_index, register_index
from residua.index.index import ENGINES

pytest.importorskip("faiss")
WEIGHT = np.random.default_rng(7).normal(size=(5, 16)).astype(np.float32)
BIAS = np.arange(5, dtype=np.float32)
MIDDLE = np.random.default_rng(8).normal(size=(5, 16)).astype(np.float32) * 3


def rows(n=400, seed=0, far=0.0, bias=True, labels=None, **more):
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 5, n)
    keys = (MIDDLE[which] + rng.normal(size=(n, 16)) / 2 + far).astype(np.float32)
    head = Head(torch.from_numpy(WEIGHT), torch.from_numpy(BIAS) if bias else None)
    labels = which if labels is None else labels(keys)
    return rs.Encoded(keys, head(torch.from_numpy(keys)).numpy(), labels, head=head, **more)


def compact(index="SQ8", data=None, **options):
    memory = rs.Memory(rows() if data is None else data, storage="head", index=index, **options)
    memory.discard_keys()
    return memory


KINDS = ["SQ8", "PQ16x4", "PQ16x4fs", "IVF4,SQ8", "IVF4,PQ16x4fs", "HNSW8,SQ8", "RR16,SQ8", "SQ8,RFlat", "Flat"]


@pytest.mark.filterwarnings("ignore:index .* finds too few:UserWarning")
@pytest.mark.parametrize("index", KINDS)
def test_what_the_codes_say_is_close_to_what_the_model_said(index, tmp_path):
    data = rows()
    memory = compact(index, data)
    said = memory.logits.dense()
    true = data.logits.dense()
    assert (said - true).square().mean() < 0.05 * true.var() and memory.keys is None
    memory.save(tmp_path)
    for one in (rs.Memory.load(tmp_path), rs.Memory.load(tmp_path, mmap=True), copy.copy(memory)):
        assert torch.equal(one.logits.dense(), said)
    assert torch.equal(pickle.loads(pickle.dumps(memory)).logits.dense(), said)


@pytest.mark.parametrize("far", [0.0, 1e6])
@pytest.mark.parametrize("bias", [True, False])
def test_far_from_the_origin_too(far, bias):
    data = rows(far=far, bias=bias)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a head in float32 at such keys
        memory = rs.Memory(data, storage="head", index="SQ8")
    kept = memory.logits.dense()
    memory.discard_keys()
    torch.testing.assert_close(memory.logits.dense(), kept, atol=0.5, rtol=1e-2)


def test_a_reader_answers_nearly_as_with_keys():
    data, asked = rows(), rows(200, seed=1)
    with_keys = rs.ResMem(rs.Memory(data, storage="head"), k=9, sigma=1.0)
    without = rs.ResMem(compact("SQ8", data), k=9, sigma=1.0)
    apart = np.abs(without.scores(asked) - with_keys.scores(asked))
    assert apart.mean() < 0.005 and (without.predict(asked) == with_keys.predict(asked)).mean() > 0.95
    for row in (3, 70):  # few rows are read by another way
        np.testing.assert_allclose(
            without.scores(asked[row : row + 1]), without.scores(asked)[row : row + 1], atol=1e-5
        )
    explained = rs.explain(without, asked[5])
    assert explained.labels.shape == (9,)


def test_edits_without_keys(tmp_path):
    memory = compact()
    memory.save(tmp_path)
    new = rows(30, seed=2)
    ids = memory.add(new)
    torch.testing.assert_close(memory.logits.dense()[-30:], new.logits.dense(), atol=0.5, rtol=0.1)
    memory.relabel(ids[:1], 4)
    memory.forget(ids[1:5])
    assert len(memory) == 426 and memory.logits.shape == (426, 5)
    memory.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    assert torch.equal(loaded.logits.dense(), memory.logits.dense()) and loaded.labels[400] == 4
    loaded.undo()
    assert loaded.logits.shape == (430, 5)
    loaded.forget(loaded.ids)
    assert loaded.logits.shape == (0, 5)
    with pytest.raises(StorageError):
        loaded.rebuild()


def test_regression_and_several_labels():
    for labels in (lambda keys: keys[:, :5] * 2 + 900, lambda keys: (keys[:, :5] > 0).astype(int)):
        data = rows(labels=labels)
        memory = rs.Memory(data, storage="head", index="SQ8")
        kept = memory.logits.dense()
        memory.discard_keys()
        torch.testing.assert_close(memory.logits.dense(), kept, atol=0.3, rtol=1e-2)
        reader = rs.ResMem(memory, k=3, sigma=1.0)
        assert np.isfinite(reader.predict(rows(20, seed=4, labels=labels))).all()


@pytest.mark.filterwarnings("ignore:index .* finds too few:UserWarning")
def test_codes_that_say_little_are_warned_of():
    memory = rs.Memory(rows(), storage="head", index="LSH")
    with pytest.warns(UserWarning, match=r"index 'LSH' .* differ from the model's by \d+% of their variance"):
        memory.discard_keys()


def test_an_engine_that_cannot_decode_is_refused_and_nothing_is_lost():
    if "undecoded" not in ENGINES:

        @register_index("undecoded")
        class Undecoded(Index):
            needs_keys = False
            n = 0

            def _build(self, keys):
                self._keys, self.n = keys.clone(), len(keys)

            def _add(self, keys):
                self._build(torch.cat([self._keys, keys]))

            def _propose(self, queries, count):
                found = torch.cdist(queries, self._keys).square().topk(count, largest=False)
                return found.indices, found.values

    memory = rs.Memory(rows(), storage="head", index="undecoded")
    with pytest.raises(StorageError, match="index 'undecoded' cannot say what keys its codes are of"):
        memory.discard_keys()
    assert memory.keys_kept and memory.logits.shape == (400, 5)
    assert memory.bytes_per_row["index"] == 64  # the copy that this engine keeps


def test_rows_are_read_like_a_tensor():
    index = make_index("SQ8", n=40, dim=16, device="cpu")
    index.build(torch.from_numpy(rows(40).keys))
    decoded = DecodedKeys(index, 40)
    every = decoded[:]
    assert every.shape == (40, 16) and every.dtype == torch.float32
    assert torch.equal(decoded[torch.tensor([[3, 0], [39, 3]])], every[torch.tensor([[3, 0], [39, 3]])])
    assert torch.equal(decoded[torch.arange(40) % 2 == 1], every[1::2]) and torch.equal(decoded[5:9], every[5:9])
    assert decoded[torch.empty(0, dtype=torch.int64)].shape == (0, 16)
    for bad in (-1, 40, 2**40):
        with pytest.raises(ParameterError, match="the index has 40 rows"):
            decoded[torch.tensor([bad])]
