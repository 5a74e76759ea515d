"""A reader and its memory in one folder."""

import errno
import json
import os

import numpy as np
import pytest

import residua as rs
from residua.errors import MemoryFileError


def made(n=20, seed=0):
    rng = np.random.default_rng(seed)
    return rs.Encoded(rng.normal(size=(n, 2)), rng.normal(size=(n, 3)), rng.integers(0, 3, n))


READERS = {
    "resmem": lambda memory: rs.ResMem(memory, k=5, sigma=0.3, temperature=1.4, kernel="gaussian", epsilon=0.01),
    "resmem logits": lambda memory: rs.ResMem(memory, k=5, space="logits"),
    "resmem as given": lambda memory: rs.ResMem(memory, k=np.int64(5), sigma=np.float32(0.3), epsilon=np.float32(0.5)),
    "knnlm": lambda memory: rs.KNNLM(memory, k=5, lmbda=0.7, sigma=2.0, kernel="exponential"),
    "no memory": lambda memory: rs.KNNLM(memory, k=0),
    "gated": lambda memory: rs.ResMem(memory, k=5, gate=0.8),
    "adaptive": lambda memory: rs.KNNLM(memory, k=5, lmbda=rs.AdaptiveLambda([0.5], [0.7, 0.1])),
}


@pytest.mark.parametrize("name", READERS)
def test_what_was_saved_comes_back(name, tmp_path):
    reader, query = READERS[name](rs.Memory(made())), made(7, 1)
    reader.save(tmp_path / "r")
    loaded = rs.load(str(tmp_path / "r"))
    assert type(loaded) is type(reader) and loaded.params == reader.params
    np.testing.assert_array_equal(loaded.scores(query), reader.scores(query))
    np.testing.assert_array_equal(loaded.predict_proba(query), reader.predict_proba(query))


def test_readers_that_hold_readers_come_back(tmp_path):
    memory, query = rs.Memory(made()), made(9, 1)
    query.ids = np.arange(9) // 4
    inner = rs.KNNLM(memory, k=5, lmbda=rs.AdaptiveLambda([0.5], [0.7, 0.1]), gate=0.9)
    outer = rs.ContinuousCache(rs.ContinuousCache(inner, window=3, theta=0.5), window=7, lmbda=0.3)
    memory.forget(memory.ids[3:])  # fewer than k: no error
    outer.save(tmp_path)
    loaded = rs.load(tmp_path)
    assert loaded.over.over.params == inner.params and loaded.over.theta == 0.5 and loaded.theta == outer.theta
    np.testing.assert_array_equal(loaded.scores(query), outer.scores(query))


@pytest.mark.parametrize("left", [3, 0])
def test_k_may_exceed_what_forgetting_left(left, tmp_path):
    reader, query = rs.ResMem(rs.Memory(made()), k=9, temperature=1.4), made(7, 1)
    reader.memory.forget(reader.memory.ids[left:])
    reader.save(tmp_path)
    loaded = rs.load(tmp_path)
    assert loaded.k == 9
    np.testing.assert_array_equal(loaded.scores(query), reader.scores(query))
    for each in (loaded, reader):
        each.memory.add(made(30, 2))
    np.testing.assert_array_equal(loaded.scores(query), reader.scores(query))
    np.testing.assert_allclose(loaded.scores(query), rs.ResMem(loaded.memory, 9, loaded.sigma, 1.4).scores(query))


def test_a_top_m_memory_and_its_temperature(tmp_path):
    memory = rs.Memory(made(), storage="top-m", m=2, temperature=1.4)
    rs.ResMem(memory, k=4, temperature=1.4).save(tmp_path)
    assert rs.load(tmp_path).params["temperature"] == 1.4


def test_a_memory_alone_is_no_reader(tmp_path):
    rs.Memory(made()).save(tmp_path)
    with pytest.raises(MemoryFileError, match=r"holds no reader\.json.*rs\.Memory\.load"):
        rs.load(tmp_path)
    with pytest.raises(MemoryFileError, match="nowhere"):
        rs.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"reader": "Oracle", "params": {"k": 1}}',
        '{"reader": ["ResMem"], "params": {"k": 1}}',
        '{"reader": "ResMem"}',
        '{"reader": "ResMem", "params": {}}',
        '{"reader": "ResMem", "params": {"k": "many"}}',
        '{"reader": "ResMem", "params": {"k": 1, "sigmb": 1}}',
        '{"reader": "ResMem", "params": {"k": 1, "sigma": -1}}',
        '{"reader": "KNNLM", "params": {"k": 1, "lmbda": {"edges": [1]}}}',
        '{"reader": "ContinuousCache", "params": {"window": 3}}',
        '{"reader": "ContinuousCache", "params": {"over": {"reader": "KNNLM"}}}',
    ],
)
def test_a_spoilt_reader_file_is_named(content, tmp_path):
    rs.ResMem(rs.Memory(made()), k=2).save(tmp_path)
    (tmp_path / "reader.json").write_text(content)
    with pytest.raises(MemoryFileError, match=r"reader\.json"):
        rs.load(tmp_path)


def test_a_spoilt_memory_is_told_apart(tmp_path):
    rs.ResMem(rs.Memory(made()), k=2).save(tmp_path)
    next(tmp_path.glob("rows-*")).unlink()
    with pytest.raises(MemoryFileError, match=r"rows-.* is missing"):
        rs.load(tmp_path)


def test_a_failed_save_keeps_the_earlier_reader(tmp_path, monkeypatch):
    reader = rs.ResMem(rs.Memory(made()), k=2)
    reader.save(tmp_path)
    replace = os.replace

    def refuse(part, path):
        if path.name == "reader.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(MemoryFileError, match=r"reader\.json: No space left"):
            reader.with_params(k=3).save(tmp_path)
    assert rs.load(tmp_path).k == 2
    assert not list(tmp_path.glob("*.part"))
    assert json.loads((tmp_path / "reader.json").read_text())["reader"] == "ResMem"
