"""PostgreSQL with pgvector as an index: rows of a table in a database that others run.

A collection is a table of the schema ``residua``, and tags are rows of another one there. Each call is a transaction
that may be sent a second time, for nobody knows of one whose connection was lost whether it took place. No setting of a
session is relied on, so that there may be a pooler in between. pgvector's graphs and lists may find fewer rows than
there are: whoever gets fewer than asked for is answered by a scan of the table.
"""

from __future__ import annotations

import atexit
import functools
import math
import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, TypeVar
from urllib.parse import quote, unquote

import numpy as np
import torch

from residua.errors import EngineError, ParameterError
from residua.index.connected import Address, ConnectedServer, Parts, check_params, required
from residua.index.index import register_index
from residua.index.nearest import blocks
from residua.index.pool import Pool
from residua.index.remote import RemoteIndex, end_unsaved

T = TypeVar("T")
Statement = tuple[Any, Any]  # and its parameters

_WAIT = 0.2  # seconds between two looks at a server that is away
_NUMBERS = 2**20  # of keys in one call
_INDEXED = 2**17  # the same, where each key goes into a graph
_LISTED = 8192  # row numbers in one call
_ASKED = 64  # queries in one call
_SCANNED = 8  # the same, where each reads the whole table
_BEAM = 1000  # the widest of a graph
_BUILDING = 2**30  # bytes for making an index, at most
_LONGEST = 50  # characters of a collection's name: a table's has 63, with what makes it unique
_SINCE = (0, 8)  # the pgvector that looks further where it found too few
_OPTIONS = (
    *("host", "port", "passfile", "application_name", "target_session_attrs", "channel_binding", "require_auth"),
    *("sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey", "sslcrl", "gssencmode"),
)
_EXPECTED = "postgresql://host:5432/database/collection"
_TAGS = "residua.tags"
_AWAY = ("refused", "starting up", "shutting down", "recovery", "no such file", "unexpectedly", "reset", "too many")
_AWAY += ("lost synchronization",)  # what came over a connection made no sense: another one is made
_AGAIN = ("57P01", "57P02", "57P03", "40001", "40P01", "23505")  # shut down, or another one was first
_FULL = ("53100", "53200")  # no room on a disk, in memory, or in the shared memory of a container

_VECTORS = "SELECT nspname, extversion FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace"
_VECTORS += " WHERE extname = 'vector'"
_PATH = f"SELECT set_config('search_path', (SELECT quote_ident(nspname) FROM ({_VECTORS}) AS vectors), true)"
_SET = "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS settings (name, value)"
_INDEXES = "SELECT amname FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = relam"
_INDEXES += " WHERE indrelid = {text}::regclass AND indisvalid"
_DIM = "SELECT atttypmod FROM pg_attribute WHERE attrelid = {text}::regclass AND attname = 'key'"
_MEMORY = """SELECT set_config('maintenance_work_mem', greatest(pg_size_bytes(current_setting('maintenance_work_mem')),
    least(2 * pg_table_size({text}), %s), %s) / 1024 || 'kB', true)"""


class _Kind(NamedTuple):
    method: str | None  # of PostgreSQL's indexes
    dims: int


_KINDS = {"HNSW": _Kind("hnsw", 2000), "IVFFlat": _Kind("ivfflat", 2000), "exact": _Kind(None, 16_000)}


def address_of(address: str | None) -> Address:
    """What `address` says; ``ParameterError`` where it is none."""
    said = Parts.of(address, "postgresql", _EXPECTED, _OPTIONS, _LONGEST)
    url, database = said.url, said.path.removeprefix("/")
    if not database:
        raise ParameterError(f"the address of index 'postgresql' names no database; expected {_EXPECTED}")
    given: dict[str, Any] = {"host": unquote(url.hostname or ""), "port": url.port, "dbname": database}
    given |= {"user": unquote(url.username or "")} | said.options
    host = f"[{given['host']}]" if ":" in given["host"] else given["host"]
    uri = f"postgresql://{quote(given['user'])}{'@' if given['user'] else ''}{host}"
    uri += f"{':' if given['port'] else ''}{given['port'] or ''}/{quote(database, safe='')}"
    options = tuple(sorted((name, value) for name, value in given.items() if value))
    return Address(uri, said.collection, unquote(url.password or ""), said.timeout, options)


class PostgreSQLServer(ConnectedServer):
    """A database of PostgreSQL with pgvector, as psycopg speaks to it."""

    most: ClassVar[int] = 2**17
    title: ClassVar[str] = "PostgreSQL"
    variable: ClassVar[str] = "PGPASSWORD"

    def __init__(self, address: Address):
        super().__init__(address)
        self._pools: dict[int, Pool] = {}  # by process: one that was forked has connections of its own

    def create(self, name: str, dim: int) -> None:
        def work(client: Any) -> None:
            client.execute("SELECT pg_advisory_xact_lock(hashtext('residua'))")
            if not client.execute(_VECTORS).fetchone():
                client.execute("CREATE EXTENSION vector")
                client.execute(_PATH)
            if not _there(client, _TAGS):
                if not client.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'residua'").fetchone():
                    client.execute("CREATE SCHEMA residua")  # by IF NOT EXISTS it would need more rights
                client.execute(f"CREATE TABLE {_TAGS} (tag text PRIMARY KEY, name text NOT NULL)")
            columns = f"(row bigint PRIMARY KEY, key vector({dim}) NOT NULL)"
            client.execute(_of(name, f"CREATE TABLE IF NOT EXISTS {{}} {columns}"))

        self._ask("create", name, work)

    def put(self, name: str, rows: np.ndarray, keys: np.ndarray, new: bool) -> None:
        for part in blocks(len(rows), keys.shape[1] + 128, _NUMBERS if new else _INDEXED):
            self._ask("put", name, functools.partial(self._put, name, rows[part], keys[part], new))

    def _put(self, name: str, rows: np.ndarray, keys: np.ndarray, new: bool, client: Any) -> None:
        if client.again or not new:
            client.execute(_of(name, "DELETE FROM {} WHERE row = ANY(%s)"), (rows.tolist(),))
        with client.cursor().copy(_of(name, "COPY {} FROM STDIN WITH BINARY")) as copy:
            copy.write(_copied(rows, keys))

    def prepare(self, name: str, params: dict[str, Any]) -> None:
        kind = params.get("kind") or "HNSW"
        method = _KINDS[kind].method
        indexes, version = self._run("prepare", name, [(_of(name, _INDEXES), None), (_VECTORS, None)])
        if method is None or (method,) in indexes:
            return
        if tuple(map(int, version[0][1].split(".")[:2])) < _SINCE:
            raise EngineError(
                f"{self.title} at {self.address.uri} has pgvector {version[0][1]}, and kind={kind!r} needs "
                '0.8: run ALTER EXTENSION vector UPDATE there, or give kind="exact"'
            )

        def build(alone: bool, client: Any) -> None:
            client.execute(_of(name, "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE"))
            if (method,) in client.execute(_of(name, _INDEXES)).fetchall():
                return  # another process made it
            wanted = {"m": params.get("m") or 16, "ef_construction": params.get("ef_construction") or 128}
            n, needed = client.execute(_of(name, "SELECT count(*) FROM {}")).fetchone()[0], 0
            if method == "ivfflat":
                wanted = {"lists": params.get("lists") or min(max(math.isqrt(n), 1), 32_768)}
                needed = _to_learn(n, int(wanted["lists"]), client.execute(_of(name, _DIM)).fetchone()[0])
            client.execute(_of(name, _MEMORY), (_BUILDING, needed))
            if alone:
                client.execute("SELECT set_config('max_parallel_maintenance_workers', '0', true)")
            given = ", ".join(f"{option} = {int(value)}" for option, value in wanted.items())
            client.execute(_of(name, f"CREATE INDEX ON {{}} USING {method} (key vector_l2_ops) WITH ({given})"))

        patience = max(self.address.timeout, params.get("patience") or 3600.0)
        try:
            self._ask("prepare", name, functools.partial(build, False), patience)
        except EngineError as error:
            if getattr(error.__cause__, "sqlstate", None) not in _FULL:
                raise
            self._ask("prepare", name, functools.partial(build, True), patience)  # which needs no shared memory

    def remove(self, name: str, rows: np.ndarray) -> None:
        for part in blocks(len(rows), 1, _LISTED):
            self._run("remove", name, [(_of(name, "DELETE FROM {} WHERE row = ANY(%s)"), (rows[part].tolist(),))])

    def count(self, name: str, below: int) -> int:
        ((found,),) = self._run("count", name, [(_of(name, "SELECT count(*) FROM {} WHERE row < %s"), (below,))])
        return found[0]

    def rows(self, name: str, first: int, last: int) -> np.ndarray:
        asked = _of(name, "SELECT row FROM {} WHERE row >= %s AND row < %s"), (first, last)
        return np.array([row for (row,) in self._run("rows", name, [asked])[0]], np.int64)

    def keys(self, name: str, rows: np.ndarray) -> np.ndarray:
        distinct, places = np.unique(rows, return_inverse=True)
        found, asked = dict[int, bytes](), _of(name, "SELECT row, key FROM {} WHERE row = ANY(%s)")
        for part in blocks(len(distinct), 1, 1024):
            found |= dict(self._run("keys", name, [(asked, (distinct[part].tolist(),))])[0])
        if len(found) < len(distinct):
            gone = [row for row in distinct.tolist() if row not in found]
            raise EngineError(f"collection {name} lacks the keys of {len(gone)} rows, such as {gone[:5]}")
        keys = [np.frombuffer(found[row], ">f4", offset=4) for row in distinct.tolist()]
        return np.array(keys, np.float32)[places]

    def nearest(
        self, name: str, queries: np.ndarray, count: int, wide: int, below: int | None, params: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        kind, settings = params.get("kind") or "HNSW", {"enable_indexscan": "off"}
        rows, squared = np.full((len(queries), count), -1), np.full((len(queries), count), np.inf, np.float32)
        if kind == "HNSW":
            beam = min(max(wide, params.get("ef") or 64), _BEAM)
            settings = {"hnsw.ef_search": beam, "hnsw.iterative_scan": "relaxed_order"}
        elif kind == "IVFFlat":
            settings = {"ivfflat.probes": params.get("probes") or 64, "ivfflat.iterative_scan": "relaxed_order"}
        asked = "SELECT row, key <-> %(key)b::vector FROM {} WHERE row < %(below)s ORDER BY key <-> %(key)b::vector"
        asked = asked if below is not None else asked.replace(" WHERE row < %(below)s", "")
        asked, more = _of(name, asked + " LIMIT %(count)s"), {"below": below, "count": count}

        def find(which: np.ndarray, at_once: int, settings: dict[str, Any]) -> None:
            for part in blocks(len(which), 1, at_once):
                statements = [(asked, more | {"key": queries[at]}) for at in which[part]]
                for at, found in zip(which[part], self._run("search", name, statements, settings)):
                    near = sorted((distance, row) for row, distance in found)
                    rows[at, : len(near)] = [row for _, row in near]
                    squared[at, : len(near)] = np.square([distance for distance, _ in near], dtype=np.float32)

        find(np.arange(len(queries)), _SCANNED if kind == "exact" else _ASKED, settings)
        if kind != "exact":
            find((rows[:, -1] < 0).nonzero()[0], _SCANNED, {"enable_indexscan": "off"})
        return rows, squared

    def tag(self, name: str, tag: str) -> None:
        asked = f"INSERT INTO {_TAGS} VALUES (%s, %s) ON CONFLICT (tag) DO UPDATE SET name = excluded.name"
        self._run("tag", name, [(asked, (tag, name))])

    def untag(self, tag: str) -> None:
        self._run("untag", tag, [(f"DELETE FROM {_TAGS} WHERE tag = %s", (tag,))])

    def tagged(self, tag: str) -> str | None:
        asked = f"SELECT name FROM {_TAGS} JOIN pg_tables ON schemaname = 'residua' AND tablename = name"
        return next(iter(self._tags(asked + " WHERE tag = %s", tag)), None)

    def tags(self, name: str) -> list[str]:
        return self._tags(f"SELECT tag FROM {_TAGS} WHERE name = %s", name)

    def _tags(self, asked: str, name: str) -> list[str]:
        def work(client: Any) -> list[str]:
            if not _there(client, _TAGS):
                return []
            return [found for (found,) in client.execute(asked, (name,)).fetchall()]

        return self._ask("tags", name, work)

    def collections(self) -> list[str]:
        asked = "SELECT tablename FROM pg_tables WHERE schemaname = 'residua' AND tablename <> 'tags'"
        return [name for (name,) in self._run("collections", "it", [(asked, None)])[0]]

    def drop(self, name: str) -> None:
        def work(client: Any) -> None:
            if _there(client, _TAGS):
                client.execute(f"DELETE FROM {_TAGS} WHERE name = %s", (name,))
                client.execute(_of(name, "DROP TABLE IF EXISTS {}"))

        self._ask("drop", name, work)

    # --- transactions -----------------------------------------------------------------------------------------

    def _run(
        self, what: str, name: str, statements: Sequence[Statement], settings: dict[str, Any] | None = None
    ) -> list[list[Any]]:
        """The rows that each statement gives: one transaction, which is sent at once."""

        def work(client: Any) -> list[list[Any]]:
            with client.pipeline(), _transaction(client, settings or {}):
                found = [client.execute(statement, given, binary=True) for statement, given in statements]
            return [cursor.fetchall() if cursor.description else [] for cursor in found]

        return self._again(what, name, work, self.address.timeout)

    def _ask(self, what: str, name: str, work: Callable[[Any], T], patience: float | None = None) -> T:
        """What `work` gives, in one transaction, each of whose statements is waited for."""

        def whole(client: Any) -> T:
            with _transaction(client, {}):
                return work(client)

        return self._again(what, name, whole, patience or self.address.timeout)

    def _again(self, what: str, name: str, work: Callable[[Any], T], patience: float) -> T:
        """What `work` gives with a connection; while the server is away, or others are first, it is done again."""
        with self.errors(what, name, patience):
            pool, until, again = self._pool(), time.monotonic() + patience, False
            while True:
                try:
                    with pool.taken(until, again) as client:
                        return work(client)
                except pool.psycopg.Error as error:
                    if not _passes(error) or time.monotonic() + _WAIT > until:
                        raise
                    pool.empty()
                    again = True
                time.sleep(_WAIT)

    def _pool(self) -> Pool:
        pid = os.getpid()
        if pid not in self._pools:
            pool = Pool(self.address, required("psycopg", "pgvector"))
            if self._pools.setdefault(pid, pool) is pool:
                weakref.finalize(self, pool.empty).atexit = False
                atexit.register(_end, self.identity, pool)
        return self._pools[pid]

    def said(self, error: Exception) -> str:
        text = getattr(getattr(error, "diag", None), "message_primary", None) or str(error)
        if getattr(error, "sqlstate", None) != "42501":  # insufficient privilege
            return text
        if "extension" in text:
            return f"{text}: have an administrator run CREATE EXTENSION vector in this database"
        user = f'"{dict(self.address.options).get("user", "this user")}"'
        if "database" in text:
            return f"{text}: have an administrator run CREATE SCHEMA residua AUTHORIZATION {user} in it"
        return f"{text}: have its owner run GRANT ALL ON SCHEMA residua TO {user}, and ON ALL TABLES IN it"


@contextmanager
def _transaction(client: Any, settings: dict[str, Any]) -> Iterator[None]:
    """One transaction, after which no setting is left."""
    left = str(max(math.ceil(1000 * (client.until - time.monotonic())), 1))  # ms
    settings = {"statement_timeout": left, "lock_timeout": left, "jit": "off"} | settings
    client.execute("BEGIN")
    client.execute(_SET, (list(settings), [str(value) for value in settings.values()]))
    client.execute(_PATH)
    yield
    client.execute("COMMIT")


def _passes(error: Any) -> bool:
    """Whether an error of psycopg may be gone in a moment."""
    if error.sqlstate is not None:
        return error.sqlstate in _AGAIN
    return any(word in str(error).lower() for word in _AWAY)


def _of(name: str, statement: str) -> Any:
    """A statement with the table of a collection at {}, or, as a text, at {text}."""
    sql = required("psycopg.sql", "pgvector")
    table = sql.Identifier("residua", name)
    return sql.SQL(statement).format(table, text=sql.Literal(table.as_string(None)))


def _there(client: Any, table: str) -> bool:
    return client.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()[0]


def _to_learn(n: int, lists: int, dim: int) -> int:
    """Bytes that pgvector needs to learn its lists of fifty rows each: those rows, the distance of each from each list,
    and that of all lists from one another. With less it does not begin."""
    rows, key = min(n, max(50 * lists, 10_000)), 4 * dim + 8
    return int(1.1 * (rows * (key + 4 * lists + 8) + lists * (2 * key + 4 * lists + 16))) + 2**20


def _copied(rows: np.ndarray, keys: np.ndarray) -> bytes:
    """Rows as a binary COPY takes them: the number of fields, then each field after its length in bytes."""
    fields = [("fields", ">i2"), ("four", ">i4"), ("row", ">i8"), ("length", ">i4"), ("dim", ">u2"), ("none", ">u2")]
    table = np.zeros(len(rows), [*fields, ("key", ">f4", (keys.shape[1],))])
    table["fields"], table["four"], table["row"] = 2, 8, rows
    table["length"], table["dim"], table["key"] = 4 + 4 * keys.shape[1], keys.shape[1], keys
    return b"PGCOPY\n\xff\r\n\0" + bytes(8) + table.tobytes() + b"\xff\xff"


def _end(identity: Any, pool: Pool) -> None:
    if pool.pid == os.getpid():
        end_unsaved(identity, True)
        pool.empty()


@register_index("postgresql")
class PostgreSQL(RemoteIndex):
    """An index in a database of PostgreSQL with pgvector, at an `address`.

    Parameters
    ----------
    dim : int
        At most 2 000, or, of kind "exact", 16 000.
    device : str
        Where keys, queries and answers live; PostgreSQL searches where it is.
    address : str
        ``postgresql://[user[:password]@]host[:port]/database/collection``; after a ``?``, joined by ``&``: ``timeout``
        (seconds of any call, default 30), ``host`` (the folder of a Unix socket), and what libpq calls ``sslmode``,
        ``sslrootcert``, ``sslcert``, ``sslkey``, ``passfile``, ``target_session_attrs`` and so on. It is in no file:
        whoever loads a memory gives it again. A password is better in ``PGPASSWORD`` or ``.pgpass``, as libpq has it.
    kind : {"HNSW", "IVFFlat", "exact"}, default "HNSW"
        pgvector's index, or none: each search reads the whole table. All keep the keys whole: distances are true.
    m, ef_construction, ef : int, default 16, 128 and 64
        Of HNSW; the beam is `ef` or `overfetch` times the rows wanted, whichever is more, and at most 1 000.
    lists, probes : int, default the root of the number of rows, and 64
        Of IVFFlat.
    patience : float, default 3600
        Seconds that making the index may take.

    Examples
    --------
    >>> import residua as rs
    >>> memory = rs.Memory(encoded, index="postgresql://127.0.0.1/data/examples")  # doctest: +SKIP
    >>> memory.save("mem/")  # doctest: +SKIP
    >>> again = rs.Memory.load("mem/", index="postgresql://127.0.0.1/data/examples")  # doctest: +SKIP
    """

    def __init__(
        self,
        dim: int,
        device: torch.device | str = "cpu",
        address: str | None = None,
        kind: str | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
        ef: int | None = None,
        lists: int | None = None,
        probes: int | None = None,
        patience: float | None = None,
    ):
        numbers = {"m": m, "ef_construction": ef_construction, "ef": ef, "lists": lists, "probes": probes}
        check_params(kind, _KINDS, numbers | {"patience": patience})
        most = _KINDS[kind or "HNSW"].dims
        if dim > most:
            said = f"kind={kind or 'HNSW'!r} of index 'postgresql' takes keys of at most {most} dimensions, not {dim}"
            raise ParameterError(said + ("" if kind == "exact" else '; kind="exact" takes up to 16000'))
        there = address_of(address)
        super().__init__(
            dim, device, PostgreSQLServer.at(there), there.collection, kind=kind, patience=patience, **numbers
        )
