"""Servers that hold an index: one in RAM, which may fail or lag at any call, milvus-lite, Milvus and PostgreSQL."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from residua.errors import EngineError
from residua.index import Index, RemoteIndex, Server, register_index
from residua.index.index import ENGINES


class Ram(Server):
    """What a server promises and no more: a search sees what was put when somebody last counted, and the nth call from
    now on may fail, before it does anything or after."""

    most = 16_384

    def __init__(self, name):
        self.identity = name
        self.held, self.seen, self.names, self.calls = {}, {}, {}, []
        self.fails, self.error = None, EngineError

    def __reduce__(self):
        return server, (self.identity,)

    def call(self, what):
        self.calls.append(what)
        if self.fails is not None:
            self.fails -= 1
            if self.fails < 0:
                raise self.error(f"the server is gone, in {what}")

    def there(self, name):
        name = self.names.get(name, name)
        if name not in self.held:
            raise EngineError(f"there is no collection {name}")
        return name

    def create(self, name, dim):
        self.call("create")
        self.held[name], self.seen[name] = {}, {}

    def put(self, name, rows, keys, new):
        self.call("put")
        held = self.held[self.there(name)]
        half = len(rows) // 2  # of a call that is cut off some arrives
        held |= zip(rows[:half].tolist(), keys[:half].copy())
        self.call("put the rest")
        assert not new or not held.keys() & set(rows[half:].tolist())
        held |= zip(rows[half:].tolist(), keys[half:].copy())

    def prepare(self, name, params):
        self.call("prepare")
        self.there(name)

    def remove(self, name, rows):
        self.call("remove")
        held = self.held[self.there(name)]
        for row in rows.tolist():
            held.pop(row, None)

    def count(self, name, below):
        self.call("count")
        name = self.there(name)
        self.seen[name] = dict(self.held[name])
        return sum(row < below for row in self.held[name])

    def rows(self, name, first, last):
        self.call("rows")
        return np.array([row for row in self.held[self.there(name)] if first <= row < last], np.int64)

    def keys(self, name, rows):
        self.call("keys")
        return np.array([self.held[self.there(name)][row] for row in rows.tolist()], np.float32)

    def nearest(self, name, queries, count, wide, below, params):
        self.call("nearest")
        seen = {row: key for row, key in self.seen[self.there(name)].items() if below is None or row < below}
        rows, keys = np.array(list(seen), np.int64), np.array(list(seen.values()), np.float32)
        squared = ((queries[:, None] - keys.reshape(len(rows), queries.shape[1])) ** 2).sum(axis=2)
        order = np.lexsort((np.broadcast_to(rows, squared.shape), squared), axis=1)[:, :count]
        found = np.full((len(queries), count), -1), np.full((len(queries), count), np.inf, np.float32)
        found[0][:, : order.shape[1]] = rows[order]
        found[1][:, : order.shape[1]] = np.take_along_axis(squared, order, 1)
        return found

    def tag(self, name, tag):
        self.call("tag")
        assert tag not in self.names
        self.names[tag] = self.there(name)

    def untag(self, tag):
        self.call("untag")
        del self.names[tag]

    def tagged(self, tag):
        self.call("tagged")
        return self.names.get(tag)

    def tags(self, name):
        self.call("tags")
        return [tag for tag, other in self.names.items() if other == name]

    def collections(self):
        return list(self.held)

    def drop(self, name):
        if self.fails is not None and self.fails <= 0 and not issubclass(self.error, Exception):
            return  # nobody is left to ask for it
        self.call("drop")
        self.names = {tag: other for tag, other in self.names.items() if other != name}
        self.held.pop(name, None)


SERVERS: dict[str, Ram] = {}


def server(name):
    return SERVERS[name]


@register_index("ram")
class InRam(RemoteIndex):
    """At ``ram://NAME``, a server of `SERVERS`."""

    def __init__(self, dim, device="cpu", address="", effort=None):
        super().__init__(dim, device, SERVERS[address.removeprefix("ram://")], "rows", effort=effort)


@pytest.fixture
def ram(request):
    """A server in RAM; its address is ``ram.address``."""
    server = SERVERS[request.node.name] = Ram(request.node.name)
    server.address = f"ram://{request.node.name}"
    yield server
    del SERVERS[request.node.name]


@pytest.fixture
def encoded():
    """``encoded(first, last)``: rows of a classification in clusters, always the same for the same numbers."""
    import residua as rs

    rng = np.random.default_rng(5)
    centres, labels = rng.normal(size=(6, 8)), rng.integers(6, size=4000)
    keys = (centres[labels] + 0.4 * rng.normal(size=(4000, 8))).astype(np.float32)
    logits = rng.normal(size=(4000, 6)) + 2 * np.eye(6)[labels]

    def rows(first, last, ids=None):
        return rs.Encoded(keys[first:last], logits[first:last], labels[first:last], ids)

    rows.keys = torch.from_numpy(keys)
    return rows


# --- servers of others --------------------------------------------------------------------------------------


class Child:
    """A server, the child of this process, in a network of its own; it dies with this process, however that ends."""

    child = None

    def address(self, name="rows", **options):
        options = "&".join(f"{key}={value}" for key, value in ({"timeout": 20} | options).items())
        return f"{self.place}/{name}?{options}"

    def start(self):
        """Start it; `wait` says when it answers."""
        command, where = self.command()
        with open(self.folder / "log", "ab") as log:
            command = ["setpriv", "--pdeathsig", "KILL", *command]
            self.child = subprocess.Popen(
                command, start_new_session=True, stdout=log, stderr=subprocess.STDOUT, **where
            )

    def wait(self, patience=120):
        """Until it answers: a port that is open is not enough."""
        until, index = time.monotonic() + patience, ENGINES.get(self.name)(2, "cpu", self.address(timeout=3))
        server = type(index.server)(index.server.address)
        while True:
            try:
                server.create("ready", 2)
                server.put("ready", np.arange(1), np.zeros((1, 2), np.float32), new=True)
                server.prepare("ready", {"kind": self.scan})
                assert server.count("ready", 2) == 1
                return server.drop("ready")
            except EngineError:
                if time.monotonic() > until or self.child.poll() is not None:
                    raise
                with contextlib.suppress(EngineError):
                    server.drop("ready")
                server, _ = type(server)(server.address), time.sleep(0.3)

    def processes(self):
        """Its process, and the children of that."""
        listed = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text()
        return [self.child.pid, *map(int, listed.split())]

    def signal(self, which):
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, which)

    def kill(self):
        """As a power cut does: when it returns, all its processes are gone."""
        if self.child is not None:
            processes = self.processes() if self.child.poll() is None else []
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self.child.wait()
            self.child = None
            while any(map(lives, processes)):
                time.sleep(0.01)

    def ready(self):
        """Start it again if it is gone."""
        if self.child is None or self.child.poll() is not None:
            self.kill()
            self.start()
            self.wait()
        return self


@contextlib.contextmanager
def running(server, variable, client, where):
    """A server, killed in the end; skipped where `variable` of the environment does not say what to start."""
    if not os.environ.get(variable):
        pytest.skip(f"no server to start ({variable}): make {where}")
    pytest.importorskip(client)
    assert [name for _, name in socket.if_nameindex()] == ["lo"], "a server is started in a network namespace alone"
    with contextlib.ExitStack() as stack:
        made = server(os.environ[variable], stack)
        stack.callback(made.kill)
        yield made.ready()
        gc.collect()  # what was never saved goes while it is there


def lives(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


UNPACK = """
import os, sys, milvus
folder, port = sys.argv[1], int(sys.argv[2])
server = milvus.MilvusServer(wait_for_started=False)
server.set_base_dir(folder)
server.config.set("proxy_port", port)
server.config.update()
server.config.set("common.session.ttl", 10)
server.config.resolve()
milvus._initialize_data_files(server.config.base_data_dir)
for name in ("logs", "run"):
    os.makedirs(os.path.join(folder, name), exist_ok=True)
"""


class Milvus(Child):
    """Milvus listens everywhere, and asks nobody. Asked politely to end it hangs."""

    name, scan, port = "milvus", "FLAT", 19530
    place = f"milvus://127.0.0.1:{port}"

    def __init__(self, python, stack):
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="milvus-")))
        unpack = [python, "-c", UNPACK, self.folder, str(self.port)]
        subprocess.run(unpack, check=True, timeout=120, capture_output=True)

    def configure(self, **changes):
        """Lines of its configuration, by their names, which are given once there."""
        file = self.folder / "configs" / "milvus.yaml"
        lines = file.read_text().splitlines()
        for name, value in changes.items():
            (at,) = (at for at, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
            lines[at] = lines[at].partition(":")[0] + f": {value}"
        file.write_text("\n".join(lines) + "\n")

    def command(self):
        variables = {"DEPLOY_MODE": "STANDALONE", "METRICS_PORT": "9091", "MILVUS_RUN_DIR": str(self.folder / "run")}
        variables = os.environ | variables | {"LD_LIBRARY_PATH": str(self.folder / "bin")}
        return [self.folder / "bin" / "milvus", "run", "standalone"], {"cwd": self.folder, "env": variables}


class PostgreSQL(Child):
    """PostgreSQL refuses to be root's, and asks everybody for a password."""

    name, scan, password = "postgresql", "exact", "a pass/word"
    place = "postgresql://postgres@127.0.0.1:5432/postgres"

    def __init__(self, programs, stack):
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postgresql-")))
        self.programs, self.by = Path(programs), []
        stack.enter_context(mock.patch.dict(os.environ, PGPASSWORD=self.password))
        if os.getuid() == 0:
            self.by = ["--reuid", "65534", "--regid", "65534", "--clear-groups"]
            os.chown(self.folder, 65534, 65534)
        setup, how = ["setpriv", *self.by, self.programs / "initdb"], {"cwd": self.folder, "capture_output": True}
        if subprocess.run([*setup, "--version"], **how).returncode:
            pytest.skip(f"{self.programs} cannot be run by a user who is not root")
        (self.folder / "password").write_text(self.password)
        (self.folder / "password").chmod(0o644)
        setup += ["-D", "data", "-U", "postgres", "-A", "scram-sha-256", "--pwfile", "password"]
        subprocess.run(setup, check=True, timeout=120, **how)

    def command(self):
        said = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}"]
        return [*self.by, self.programs / "postgres", "-D", self.folder / "data", *said], {"cwd": self.folder}

    def client(self, database="postgres", **options):
        """An administrator's connection."""
        psycopg = pytest.importorskip("psycopg")
        where = {"host": "127.0.0.1", "user": "postgres", "password": self.password, "dbname": database}
        return psycopg.connect(autocommit=True, connect_timeout=10, **where | options)


@pytest.fixture(scope="session")
def milvus_alone():
    with running(Milvus, "RESIDUA_MILVUS_PYTHON", "pymilvus", "milvus") as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_alone():
    with running(PostgreSQL, "RESIDUA_POSTGRESQL_BIN", "psycopg", "pgvector") as server:
        yield server


@pytest.fixture
def milvus(milvus_alone):
    """A Milvus server that answers."""
    return milvus_alone.ready()


@pytest.fixture
def postgresql(postgresql_alone):
    """A PostgreSQL server that answers."""
    return postgresql_alone.ready()


SERVED = (pytest.param("milvus", marks=pytest.mark.milvus), pytest.param("postgresql", marks=pytest.mark.postgresql))


@pytest.fixture(params=SERVED)
def served(request):
    """A server of others that answers."""
    return request.getfixturevalue(request.param)


@register_index("graph")
class Graph(Index):
    """usearch, as the guide to engines of one's own has it."""

    def __init__(self, dim, device="cpu", connectivity=16):
        super().__init__(dim, device, connectivity=connectivity)
        self._graph = self._empty()

    def _empty(self):
        import usearch.index

        return usearch.index.Index(ndim=self.dim, metric="l2sq", dtype="f32", **self.params)

    @property
    def n(self):
        return len(self._graph)

    def _build(self, keys):
        self._graph = self._empty()
        self._add(keys)

    def _add(self, keys):
        self._graph.add(np.arange(self.n, self.n + len(keys)), keys.float().cpu().numpy(), threads=1)

    def _propose(self, queries, count):
        found = self._graph.search(queries.cpu().numpy(), count, threads=1)
        squared = found.distances.reshape(len(queries), -1)
        return np.where(np.isfinite(squared), found.keys.astype(np.int64).reshape(squared.shape), -1), squared

    def _save(self, path):
        self._graph.save(str(path))

    def _load(self, path):
        self._graph.load(str(path))


FAISS = ("Flat", "SQ8", "PQ4x4fs", "IVF8,Flat", "IVF8,PQ4x4fs", "HNSW16", "auto", "knnlm")
ON_SERVERS = ("milvus-lite", *SERVED)


@pytest.fixture(params=["exact", *FAISS, "graph", "ram", *ON_SERVERS])
def engine(request):
    """What ``Memory(index=)`` takes, of every engine."""
    return index_of(request.param, request)


@pytest.fixture(params=["ram", *ON_SERVERS])
def remote(request):
    """The same, of those on a server."""
    return index_of(request.param, request)


@pytest.fixture(params=ON_SERVERS)
def on_server(request):
    """The same, of those on servers of others."""
    return index_of(request.param, request)


def index_of(name, request):
    if name in FAISS:
        pytest.importorskip("faiss")
    elif name == "graph":
        pytest.importorskip("usearch")
    elif name == "milvus-lite":
        pytest.importorskip("milvus_lite")
        return f"milvus://{request.getfixturevalue('tmp_path')}/lite.db/rows"
    elif name == "ram":
        return request.getfixturevalue("ram").address
    elif name in ("milvus", "postgresql"):
        return request.getfixturevalue(name).address()
    return name
