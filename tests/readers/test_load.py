"""A reader and its memory in one folder."""

import errno
import json
import os
import sys

import numpy as np
import pytest

import residua as rs
from residua.errors import MemoryFileError, StorageError
from residua.folder import MANIFEST, checksum, read_manifest
from residua.readers import register_reader


def made(n=20, seed=0):
    rng = np.random.default_rng(seed)
    return rs.Encoded(rng.normal(size=(n, 2)), rng.normal(size=(n, 3)), rng.integers(0, 3, n))


READERS = {
    "resmem": lambda memory: rs.ResMem(memory, k=5, sigma=0.3, temperature=1.4, kernel="gaussian", epsilon=0.01),
    "resmem exponent": lambda memory: rs.ResMem(memory, k=5, space="exponent"),
    "resmem as given": lambda memory: rs.ResMem(memory, k=np.int64(5), sigma=np.float32(0.3), epsilon=np.float32(0.5)),
    "knnlm": lambda memory: rs.KNNLM(memory, k=5, lmbda=0.7, sigma=2.0, kernel="exponential"),
    "no memory": lambda memory: rs.KNNLM(memory, k=0),
    "skipping": lambda memory: rs.ResMem(memory, k=5, skip=0.8),
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


def test_what_version_0_1_called_a_gate_is_read_as_skip(tmp_path):
    """Also in the reader under another."""
    memory = rs.Memory(made())
    reader = rs.ResMem(memory, k=5, skip=0.8)
    for number, saved in enumerate((reader, rs.ContinuousCache(reader, theta=1.0))):
        saved.save(tmp_path := tmp_path / str(number))
        manifest = read_manifest(tmp_path)
        text = json.dumps(manifest.pop("reader"))
        assert text.count('"skip"') == 1
        del manifest["edits"]  # nothing was edited
        described(tmp_path, manifest | {"format": 3})
        (tmp_path / "reader.json").write_text(text.replace('"skip"', '"gate"'))
        loaded = rs.load(tmp_path)
        assert getattr(loaded, "over", loaded).params == reader.params
        loaded.memory.forget(loaded.memory.ids[:1])
        loaded.memory.save(tmp_path)  # as it is written today: within the manifest
        assert not (tmp_path / "reader.json").exists()
        assert rs.load(tmp_path).to_json() == loaded.to_json()


def described(folder, manifest):
    """Write this manifest, with its own checksum."""
    (folder / MANIFEST).write_text(json.dumps(manifest | {"crc32": checksum(manifest)}))


def test_a_reader_is_one_with_its_memory(tmp_path):
    """It stays when that memory is saved again, and goes with it when another one is saved there."""
    memory = rs.Memory(made())
    reader = rs.ResMem(memory, k=5)
    reader.save(tmp_path)
    memory.forget(memory.ids[:1])
    memory.save(tmp_path)
    assert rs.load(tmp_path).k == 5
    loaded = rs.Memory.load(tmp_path)
    loaded.forget(loaded.ids[:1])
    loaded.save(tmp_path)
    assert rs.load(tmp_path).k == 5 and len(rs.load(tmp_path).memory) == len(loaded)
    loaded.rebuild()
    rs.ResMem(loaded, k=3).save(tmp_path)
    assert rs.load(tmp_path).k == 3
    rs.Memory(made()).save(tmp_path)
    with pytest.raises(MemoryFileError, match="holds no reader"):
        rs.load(tmp_path)


def test_readers_that_hold_readers_come_back(tmp_path):
    memory, query = rs.Memory(made()), made(9, 1)
    query.ids = np.arange(9) // 4
    inner = rs.KNNLM(memory, k=5, lmbda=rs.AdaptiveLambda([0.5], [0.7, 0.1]), skip=0.9)
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


class Unregistered(rs.KNNLM):
    """Nobody could load it."""


def test_a_class_that_is_not_registered_is_not_saved(tmp_path):
    memory = rs.Memory(made())
    for reader in (Unregistered(memory, k=3), rs.ContinuousCache(Unregistered(memory, k=3), theta=1.0)):
        with pytest.raises(StorageError, match=r"Unregistered is not registered.*@residua\.readers\.register_reader"):
            reader.save(tmp_path / "r")
        assert not (tmp_path / "r").exists()
    kept = rs.ResMem(memory, k=2)
    kept.save(tmp_path / "r")
    memory.forget(3)
    with pytest.raises(StorageError, match="not registered"):
        Unregistered(memory, k=3).save(tmp_path / "r")
    assert rs.load(tmp_path / "r").params == kept.params and len(rs.load(tmp_path / "r").memory) == 20


@register_reader
class Fixed(rs.KNNLM):
    """Without most of the parameters that it inherits."""

    def __init__(self, memory, sigma=None):
        super().__init__(memory, 3, 1.0, sigma)


def test_a_class_with_fewer_parameters_than_its_parent(tmp_path):
    memory, query = rs.Memory(made()), made(7, 1)
    reader = Fixed(memory, sigma=0.5)
    assert reader.params == {"sigma": 0.5} and reader.with_params(sigma=2.0).params == {"sigma": 2.0}
    reader.save(tmp_path)
    np.testing.assert_array_equal(rs.load(tmp_path).scores(query), reader.scores(query))


@register_reader
class Odd(rs.KNNLM):
    """With a parameter that JSON does not know."""

    def __init__(self, memory, k=None, odd=None):
        super().__init__(memory, k)
        self.odd = odd


def test_a_parameter_that_is_not_json_is_not_saved(tmp_path):
    memory = rs.Memory(made())
    with pytest.raises(StorageError, match=r"parameters of this Odd are not all JSON types .*to_json"):
        Odd(memory, 3, odd=object()).save(tmp_path / "r")
    assert not (tmp_path / "r").exists()
    Odd(memory, 3, odd=[1, {"two": None}]).save(tmp_path / "r")
    assert rs.load(tmp_path / "r").odd == [1, {"two": None}]


@pytest.mark.parametrize("under", [False, True])
def test_an_unknown_class_names_its_module_and_imports_nothing(under, tmp_path, monkeypatch):
    (tmp_path / "elsewhere_of_a_test.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    about = {"reader": "Oracle", "module": "elsewhere_of_a_test", "params": {"k": 1}}
    if under:
        about = {"reader": "ContinuousCache", "module": "elsewhere_of_a_test", "params": {"over": about, "window": 3}}
    rs.ResMem(rs.Memory(made()), k=2).save(tmp_path / "r")
    described(tmp_path / "r", read_manifest(tmp_path / "r") | {"reader": about})
    with pytest.raises(MemoryFileError, match=r"'Oracle'.*registered.*import the module.*elsewhere_of_a_test"):
        rs.load(tmp_path / "r")
    assert "elsewhere_of_a_test" not in sys.modules


def test_a_memory_alone_is_no_reader(tmp_path):
    rs.Memory(made()).save(tmp_path)
    with pytest.raises(MemoryFileError, match=r"holds no reader.*rs\.Memory\.load"):
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
        '{"reader": "KNNLM", "params": {"k": 1}}',
        '{"reader": "ContinuousCache", "params": {"window": 3}}',
        '{"reader": "ContinuousCache", "params": {"over": {"reader": "KNNLM"}}}',
    ],
)
def test_a_spoilt_reader_file_is_named(content, tmp_path):
    rs.Memory(made()).save(tmp_path)
    described(tmp_path, read_manifest(tmp_path) | {"format": 3})
    (tmp_path / "reader.json").write_text(content)
    with pytest.raises(MemoryFileError, match=r"reader"):
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
        if path.name == MANIFEST:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(MemoryFileError, match=r"manifest\.json: No space left"):
            reader.with_params(k=3).save(tmp_path)
    assert rs.load(tmp_path).k == 2
    assert not list(tmp_path.glob("*.part"))
