"""Whose index files are opened."""

import os
import stat
import subprocess
import sys

import pytest
import torch

import residua as rs
from residua.errors import MemoryFileError, ParameterError
from residua.index import load_index, make_index
from residua.index.trust import SECRET, check_factory, check_params, is_ours, secret, sign

ABOUT = {"engine": "faiss", "dim": 4, "params": {"factory": "Flat"}}
KEYS = torch.randn((60, 4), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of one's own, and no secret in the environment."""
    monkeypatch.delenv(SECRET, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "data"))
    return tmp_path


def test_a_secret_is_made_once_and_is_this_users_alone(home):
    first = secret()
    file = home / "data" / "residua" / "secret"
    assert len(first) == 64 and secret() == first == file.read_bytes()
    assert [one.name for one in file.parent.iterdir()] == ["secret"]
    if os.name != "nt":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        file.chmod(0o644)
        with pytest.warns(UserWarning, match="not this user's alone"):
            assert secret() != first


def test_a_home_that_cannot_be_written_gives_a_secret_of_the_process(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "file"))
    monkeypatch.setenv("LOCALAPPDATA", str(home / "file"))
    assert secret() == secret() and len(secret()) == 32
    code = "import residua.index.trust as t, sys; sys.stdout.write(t.secret().hex())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other != secret().hex()


def test_a_fleet_shares_a_secret(home, monkeypatch):
    file = home / "a.faiss"
    file.write_bytes(b"bytes")
    monkeypatch.setenv(SECRET, "the same on all machines")
    given = sign(file, ABOUT)
    assert not (home / "data").exists() and is_ours(file, ABOUT | {"mac": given})
    monkeypatch.setenv(SECRET, "of another fleet's machines")
    assert not is_ours(file, ABOUT | {"mac": given})
    monkeypatch.setenv(SECRET, "short")
    with pytest.raises(ParameterError, match="at least 16"):
        secret()


@pytest.mark.parametrize(
    "changed",
    [{"params": {"factory": "IVF9,Flat"}}, {"dim": 5}, {"engine": "other"}, {"mac": None}, {"mac": "é"}, {"mac": 3}],
)
def test_what_was_changed_is_not_ours(home, changed):
    file = home / "a.faiss"
    file.write_bytes(b"bytes")
    about = ABOUT | {"mac": sign(file, ABOUT)}
    assert is_ours(file, about) and not is_ours(file, about | changed)
    file.write_bytes(b"bytez")
    assert not is_ours(file, about)


@pytest.mark.parametrize(
    "factory",
    [*("IVF100000000,Flat", "HNSW100000", "PQ4x24", "PCA1000000,Flat", "IMI2x16,Flat", "RQ4000x8", "LSH1000000000")],
)
def test_a_folder_asks_for_no_index_larger_than_it_can_use(factory):
    with pytest.raises(MemoryFileError, match=r"more than its rows can use.*trust=True"):
        check_factory(factory, 16)


@pytest.mark.parametrize(
    "factory", ["IVF4096_HNSW32,PQ32x4fs,RFlat", "OPQ16_64,IVF65536,PQ16x8", "SQfp16", "PCA64,SQ8"]
)
def test_what_people_ask_for_is_no_such_index(factory):
    check_params({"factory": factory, "nprobe": 64, "efSearch": 512, "train_on": 2**22}, 128)
    with pytest.raises(MemoryFileError):
        check_params({"factory": factory, "nprobe": 1e9}, 128)


def test_an_index_file_that_is_not_ours_is_built_anew(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    index = make_index("HNSW8", n=60, dim=4, device="cpu")
    index.build(KEYS)
    index.save(tmp_path, "a")
    asked = {"folder": tmp_path, "forgotten": torch.tensor([3]), "device": "cpu"}
    ours = load_index(index.to_json(), keys=None, n=60, **asked)
    assert ours.n == 60 and ours.to_json() == index.to_json()
    monkeypatch.setenv(SECRET, "of somebody else's residua")
    with pytest.warns(UserWarning, match=r"built anew from the keys; .* trust=True \(--trust\)"):
        built = load_index(index.to_json(), keys=KEYS, **asked)
    assert built.n == 60 and built.to_json()["file"] is None and 3 not in built.search(KEYS[3:4], 5, KEYS).rows
    with pytest.raises(MemoryFileError, match=r"no keys to build the index anew from; .* trust=True"):
        load_index(index.to_json(), keys=None, n=60, **asked)
    trusted = load_index(index.to_json(), keys=None, n=60, trust=True, **asked)
    assert load_index(trusted.to_json(), keys=None, n=60, **asked).n == 60  # whom one trusts once, one has signed


def test_a_memory_of_somebody_else_is_trusted_once(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    memory = rs.Memory(rs.Encoded(KEYS, torch.zeros(60, 2), [0, 1] * 30), index="HNSW8")
    memory.discard_keys()
    rs.ResMem(memory, k=3).save(tmp_path)
    monkeypatch.setenv(SECRET, "of somebody else's residua")
    with pytest.raises(MemoryFileError, match="trust=True"):
        rs.Memory.load(tmp_path)
    rs.load(tmp_path, trust=True).memory.save(tmp_path)
    assert len(rs.Memory.load(tmp_path)) == 60
