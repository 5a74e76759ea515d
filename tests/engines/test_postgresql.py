"""PostgreSQL alone: never fewer rows than there are, connections that are lost, rights, TLS and names."""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import EngineError
from residua.index import PostgreSQL

pytestmark = [pytest.mark.postgresql, pytest.mark.slow]


def own_neighbours(memory):
    return memory.search(memory.keys[::9], 1).rows[:, 0].tolist() == list(range(0, len(memory), 9))


def at(options="", user="postgres", database="postgres"):
    return f"postgresql://{user}@127.0.0.1/{database}/rows?timeout=20{options}"


@pytest.mark.parametrize(
    ("kind", "params", "least"),
    [("HNSW", {}, 0.9), ("HNSW", {"ef": 1}, 0.9), ("IVFFlat", {"lists": 60, "probes": 30}, 0.5), ("exact", {}, 1)],
)
def test_never_fewer_rows_than_there_are(kind, params, least, postgresql):
    rng = np.random.default_rng(4)
    keys, queries = (rng.normal(size=(n, 8)).astype(np.float32) for n in (12_000, 3))
    index = PostgreSQL(8, "cpu", at(), kind=kind, **params)
    index.build(torch.from_numpy(keys))
    squared = ((queries[:, None].astype(float) - keys) ** 2).sum(axis=2)
    gone = squared[0].argsort()[:10_800]  # nine in ten, the nearest of the first query
    index.server.remove(index.place, gone)
    left = np.setdiff1d(np.arange(12_000), gone)
    for below in (None, 6000, 40, 0):
        some = left if below is None else left[left < below]
        for k in (1, 40, 53, 1000, 1001, 5000):
            rows, near = index.server.nearest(index.place, queries, k, 4 * k, below, index.params)
            n = min(k, len(some))
            assert (rows[:, :n] >= 0).all() and (rows[:, n:] == -1).all() and np.isinf(near[:, n:]).all()
            true = some[squared[:, some].argsort(axis=1)[:, :n]]
            share = [len(np.intersect1d(a, b)) / max(n, 1) for a, b in zip(rows[:, :n], true)]
            assert np.isin(rows[:, :n], some).all() and (not n or np.mean(share) >= least)
            exact = np.take_along_axis(squared, rows[:, :n], axis=1)
            np.testing.assert_allclose(near[:, :n], exact, rtol=1e-5)
            assert (np.diff(near[:, :n], axis=1) >= 0).all()
    index.drop()


def test_many_lists_are_learned_from_few_rows(postgresql):
    """Learning takes room by the lists, not by the table, and a server that is not told so refuses."""
    keys = np.random.default_rng(3).normal(size=(20_000, 4)).astype(np.float32)
    index = PostgreSQL(4, "cpu", at(), kind="IVFFlat", lists=1500, probes=40)
    index.build(torch.from_numpy(keys))
    assert index.recall is not None and index.recall.value > 0.8
    index.drop()


def test_a_memory_with_little_left(postgresql, encoded, tmp_path):
    for storage in ("full", "none"):
        memory = rs.Memory(encoded(0, 3000), index=at(), storage=storage)
        if storage == "none":
            memory.discard_keys()
        memory.save(tmp_path / storage)
        near = memory.search(encoded.keys[:1], 2700).rows[0]
        memory.forget(near.tolist())
        memory.save(tmp_path / storage)
        again = rs.Memory.load(tmp_path / storage, index=at())
        for k in (1, 40, 53, 299, 300):
            for one in (memory, again):
                found = one.search(encoded.keys[:3], k)
                assert found.found.all() and not np.isin(found.rows, near).any()


def test_connections_that_are_lost(postgresql, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 300), index=at())
    memory.save(tmp_path)
    before = memory.search(encoded.keys[:20], 5).rows
    with postgresql.client() as administrator:
        for ask in (
            lambda: (memory.search(encoded.keys[:20], 5).rows == before).all(),
            lambda: memory.add(encoded(300, 310)) is not None and memory.save(tmp_path) is None,
            lambda: memory.forget(range(5)) and memory.save(tmp_path) is None,
            lambda: len(rs.Memory.load(tmp_path, index=at())) == 305,
        ):
            ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'residua'"
            assert administrator.execute(ended).fetchone()[0]
            assert ask()
    found, over = [], threading.Event()

    def searches():
        while not over.is_set():
            found.append(memory.search(encoded.keys[5:20], 1).rows[:, 0].tolist())

    searching = threading.Thread(target=searches)
    searching.start()
    time.sleep(0.5)
    postgresql.kill()  # and started by this thread: a server ends with the one that started it
    postgresql.start()
    postgresql.wait()
    over.set()
    searching.join()
    assert len(found) > 1 and all(rows == list(range(5, 20)) for rows in found)
    assert memory.index.server.count(memory.index.place, 10**9) == 305


def test_many_threads_and_forked_processes(postgresql, encoded):
    memory = rs.Memory(encoded(0, 300), index=at("&application_name=threads"))
    wrong, sizes = [], []

    def reads():
        for _ in range(5):
            if memory.search(encoded.keys[:70], 1).rows[:, 0].tolist() != list(range(70)):
                wrong.append(1)

    threads = [threading.Thread(target=reads) for _ in range(20)]
    with postgresql.client() as administrator:
        [thread.start() for thread in threads]
        while any(thread.is_alive() for thread in threads):
            held = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'threads'"
            sizes += administrator.execute(held).fetchone()
        [thread.join() for thread in threads]
    assert not wrong and 1 < max(sizes) <= 8
    server, place, near = memory.index.server, memory.index.place, encoded.keys[:9] - memory.schema.key_centre.float()
    asked = lambda: server.nearest(place, near.numpy(), 1, 4, None, {})[0][:, 0].tolist()  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(asked() != list(range(9)))
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert asked() == list(range(9))


FORKS = """
import os, sys, numpy as np, residua as rs
memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]), index=sys.argv[1])
if os.fork() == 0:
    sys.exit()  # as any process ends
assert os.wait()[1] == 0
assert memory.search(np.eye(3), 1).rows[:, 0].tolist() == [0, 1, 2]
"""


def test_a_forked_process_that_ends_leaves_its_parent_all(postgresql):
    done = subprocess.run([sys.executable, "-c", FORKS, at()], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_two_folders_of_one_collection_name(postgresql, encoded, tmp_path):
    one, two = (rs.Memory(encoded(first, first + 300), index=at()) for first in (0, 1000))
    one.save(tmp_path / "one"), two.save(tmp_path / "two")
    live, other = (rs.Memory.open(tmp_path / name, index=at()) for name in ("one", "two"))
    live.forget([0]), other.forget([1])
    live.undo()
    assert own_neighbours(live) and other.ids.tolist() == [0, *range(2, 300)]
    assert own_neighbours(rs.Memory.load(tmp_path / "one", index=at()))
    shut = rs.Memory.load(tmp_path / "two", index=at())
    assert shut.search(encoded.keys[1000:1009], 1).rows[:, 0].tolist()[2:] == list(range(2, 9))


EDITOR = """
import sys, numpy as np, residua as rs
folder, address, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
live, rng = rs.Memory.open(folder, index=address), np.random.default_rng(first)
for row in range(first, first + 15):
    live.add(rs.Encoded(rng.normal(size=(2, 8)), np.zeros((2, 6)), [1, 2], [2 * row, 2 * row + 1]))
    live.forget([2 * row])
"""


def test_two_processes_edit_one_folder(postgresql, encoded, tmp_path):
    rs.Memory(encoded(0, 200), index=at()).save(tmp_path)
    command = [sys.executable, "-c", EDITOR, tmp_path, at()]
    editors = [subprocess.Popen([*command, first], stderr=subprocess.PIPE, text=True) for first in ("1000", "2000")]
    for editor in editors:
        assert editor.wait(60) == 0, editor.stderr.read()
        editor.stderr.close()
    again = rs.Memory.load(tmp_path, index=at())
    own = [2 * row + 1 for first in (1000, 2000) for row in range(first, first + 15)]
    assert sorted(again.ids.tolist()) == [*range(200), *own]
    near = again.column("id")[again.search(again.keys, 1).rows[:, 0]]
    assert near.tolist() == again.ids.tolist()
    assert again.index.server.count(again.index.place, 10**9) == 230


@pytest.mark.parametrize("dim", [1, 2000])
def test_keys_of_one_dimension_and_of_many(dim, postgresql):
    rng = np.random.default_rng(1)
    keys = rng.normal(size=(60, dim)).astype(np.float16)
    keys[30:40] = keys[:10]  # twins
    memory = rs.Memory(rs.Encoded(keys, np.zeros((60, 2)), np.arange(60) % 2), index=at())
    exact = rs.Memory(rs.Encoded(keys, np.zeros((60, 2)), np.arange(60) % 2))
    assert (memory.search(keys, 60).rows == exact.search(keys, 60).rows).all()
    memory.forget(range(60))
    assert not memory.search(keys[:1], 3).found.any()


def test_a_table_that_somebody_dropped(postgresql, encoded, tmp_path):
    memory = rs.Memory(encoded(0, 300), index=at())
    memory.save(tmp_path)
    with postgresql.client() as administrator:
        administrator.execute(f"DROP TABLE residua.{memory.index.place}")
    with pytest.raises(EngineError, match=f'search of {memory.index.place} .*relation "residua.*does not exist'):
        memory.search(encoded.keys[:1], 1)
    with pytest.warns(UserWarning, match="has no collection"):
        again = rs.Memory.load(tmp_path, index=at())
    again.save(tmp_path)
    assert own_neighbours(rs.Memory.load(tmp_path, index=at()))


@pytest.fixture
def odd(postgresql):
    """A database and a user without rights, of odd names."""
    with postgresql.client() as administrator:
        administrator.execute("""CREATE DATABASE "a/b ""c"" %s {} é" """)
        administrator.execute("""CREATE ROLE "o'user@x:y" LOGIN PASSWORD 'pass-word'""")
        yield (
            lambda password="pass-word": (
                f"postgresql://o%27user%40x%3Ay:{password}@127.0.0.1/a%2Fb%20%22c%22%20%25s%20%7B%7D%20%C3%A9/rows?timeout=5"
            )
        )
        administrator.execute("""DROP DATABASE "a/b ""c"" %s {} é" WITH (FORCE)""")
        administrator.execute("""DROP ROLE "o'user@x:y" """)


def test_rights(odd, postgresql, encoded, tmp_path):
    make = lambda: rs.Memory(encoded(0, 100), index=odd())  # noqa: E731
    since = time.monotonic()
    with pytest.raises(EngineError, match="password authentication failed") as error:
        rs.Memory(encoded(0, 100), index=odd("wrong-word"))
    assert time.monotonic() - since < 2 and "word" not in str(error.value).replace("password", "")
    with pytest.raises(EngineError, match="administrator run CREATE EXTENSION vector"):
        make()
    with postgresql.client('a/b "c" %s {} é') as administrator:
        administrator.execute("CREATE SCHEMA elsewhere")
        administrator.execute("CREATE EXTENSION vector SCHEMA elsewhere")
        administrator.execute("""GRANT USAGE ON SCHEMA elsewhere TO "o'user@x:y" """)
        with pytest.raises(EngineError, match=r"permission denied.*administrator run CREATE SCHEMA residua"):
            make()
        administrator.execute("""CREATE SCHEMA residua AUTHORIZATION "o'user@x:y" """)
        memory = make()
        memory.save(tmp_path)
        assert own_neighbours(rs.Memory.load(tmp_path, index=odd()))
        administrator.execute("""ALTER ROLE "o'user@x:y" SET statement_timeout = 1""")
        administrator.execute("""ALTER ROLE "o'user@x:y" SET default_transaction_isolation = serializable""")
        administrator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'o''user%'")
        assert own_neighbours(make())
        administrator.execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
        with pytest.raises(EngineError, match=r"has pgvector 0.7.4, and kind='HNSW' needs 0.8: run ALTER EXTENSION"):
            make()
        assert own_neighbours(rs.Memory(encoded(0, 100), index=odd(), index_params={"kind": "exact"}))


def test_a_database_that_is_not_there(postgresql, encoded):
    with pytest.raises(EngineError, match='database "nowhere" does not exist'):
        rs.Memory(encoded(0, 100), index=at(database="nowhere"))


def test_a_socket_and_a_password_file(postgresql, encoded, tmp_path, monkeypatch):
    monkeypatch.delenv("PGPASSWORD")
    (tmp_path / "pgpass").write_text("*:*:*:postgres:a pass/word\n")
    (tmp_path / "pgpass").chmod(0o600)
    address = f"postgresql://postgres@/postgres/rows?host={postgresql.folder}&passfile={tmp_path}/pgpass"
    memory = rs.Memory(encoded(0, 100), index=address)
    assert own_neighbours(memory)
    assert own_neighbours(rs.Memory(encoded(0, 100), index=at().replace("postgres@", "postgres:a%20pass%2Fword@")))


class Encrypted(threading.Thread):
    """What encrypts a server's connections: it agrees to TLS as PostgreSQL does, and passes on what it hears."""

    def __init__(self, certificate):
        super().__init__(daemon=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port, self.passed = self.door.getsockname()[1], 0

    def run(self):
        while True:
            try:
                client, _ = self.door.accept()
                assert client.recv(8)[4:] == bytes.fromhex("04d2162f")  # SSLRequest
                client.sendall(b"S")
                client = self.context.wrap_socket(client, server_side=True)
                server = socket.create_connection(("127.0.0.1", 5432))
            except ssl.SSLError:
                client.close()  # who does not trust this one
                continue
            except OSError:
                return  # the door is closed
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self.passes, args=(source, target), daemon=True).start()

    def passes(self, source, target):
        try:
            while heard := source.recv(65536):
                target.sendall(heard)
                self.passed += len(heard)
        except OSError:
            pass
        finally:
            target.close()


def test_tls(postgresql, encoded, tmp_path):
    for name in ("server", "other"):
        (tmp_path / name).mkdir()
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-keyout", "key.pem"]
        made += ["-out", "cert.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        try:
            subprocess.run(made, cwd=tmp_path / name, check=True, capture_output=True, timeout=60)
        except FileNotFoundError:
            pytest.skip("no openssl to make a certificate with")
    between = Encrypted(tmp_path / "server")
    between.start()
    address = f"postgresql://postgres@127.0.0.1:{between.port}/postgres/rows?timeout=5&channel_binding=disable"
    full = f"{address}&sslmode=verify-full&sslrootcert={tmp_path}"
    try:
        assert own_neighbours(rs.Memory(encoded(0, 100), index=f"{full}/server/cert.pem"))
        assert between.passed > 1000
        with pytest.raises(EngineError, match="certificate verify failed"):
            rs.Memory(encoded(0, 100), index=f"{full}/other/cert.pem")
        with pytest.raises(EngineError, match="does not support SSL"):  # the server itself has no TLS
            rs.Memory(encoded(0, 100), index=at("&sslmode=require"))
    finally:
        between.door.close()
