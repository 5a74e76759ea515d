"""Milvus alone: answers larger than it gives, TLS and a token."""

import subprocess
import time

import numpy as np
import pytest

import residua as rs
from residua.errors import EngineError
from residua.index import Milvus

pytestmark = [pytest.mark.milvus, pytest.mark.slow]


def test_large_answers(milvus):
    rng = np.random.default_rng(3)
    keys = rng.normal(size=(17_000, 8)).astype(np.float32)
    rows = rs.Encoded(keys, np.zeros((17_000, 2)), rng.integers(2, size=17_000))
    memory, exact = rs.Memory(rows, index=milvus.address()), rs.Memory(rows)
    assert memory.recall.value > 0.98
    for k in (1024, 16_376, 16_384, 17_000):  # of the last two more is wanted than the server gives: a scan
        found, true = memory.search(keys[:2] + 0.1, k), exact.search(keys[:2] + 0.1, k)
        share = np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found.rows, true.rows)])
        assert found.found.all() and share > 0.99 and (found.distances.diff(dim=1) >= 0).all()
    memory.forget(range(0, 17_000, 2))
    assert memory.search(keys[:2], 8500).found.all()
    assert set(memory.search(keys[:2], 8600).rows[0].tolist()) == {-1, *range(1, 17_000, 2)}


def own_neighbours(memory):
    return memory.search(memory.keys[::9], 1).rows[:, 0].tolist() == list(range(0, len(memory), 9))


@pytest.fixture
def secured(milvus, tmp_path):
    """The same server, which asks who is there, and is asked by TLS alone."""
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-keyout", "key.pem"]
    try:
        subprocess.run([*made, "-out", "cert.pem", *names], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate with")
    pem = {"serverPemPath": tmp_path / "cert.pem", "serverKeyPath": tmp_path / "key.pem"}
    milvus.kill()
    milvus.configure(authorizationEnabled="true", tlsMode=1, **pem)
    milvus.start()
    try:
        yield f"milvus://127.0.0.1:{milvus.port}/safe?timeout=5&ca={tmp_path}/cert.pem&server_name=localhost"
    finally:
        milvus.kill()
        milvus.configure(authorizationEnabled="false", tlsMode=0)
        milvus.start()
        milvus.wait()


def test_tls_and_a_token(secured, encoded, tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDUA_MILVUS_TOKEN", "root:Milvus")
    until = time.monotonic() + 60
    while True:
        try:
            memory = rs.Memory(encoded(0, 300), index=secured)
            break
        except EngineError:
            assert time.monotonic() < until
            time.sleep(0.5)
    memory.save(tmp_path / "memory")
    assert own_neighbours(rs.Memory.load(tmp_path / "memory", index=secured))
    monkeypatch.delenv("RESIDUA_MILVUS_TOKEN")
    given = secured.replace("//", "//root:Milvus@")
    assert own_neighbours(rs.Memory.load(tmp_path / "memory", index=given))
    assert own_neighbours(rs.Memory.load(tmp_path / "memory", index=Milvus(8, "cpu", secured, token="root:Milvus")))
    for wrong in (secured, secured.replace("//", "//root:wrong@"), given.partition("?")[0] + "?timeout=2"):
        with pytest.raises(EngineError) as error:
            rs.Memory.load(tmp_path / "memory", index=wrong)
        assert "wrong" not in str(error.value)
    for file in (tmp_path / "memory").iterdir():
        assert b"root" not in file.read_bytes() and b"127.0.0.1" not in file.read_bytes()
