"""Milvus as an index: rows on a server that others run, or, by milvus-lite, in a local file.

What is used of Milvus is what its server has had since 2.3 and milvus-lite has, too: one collection of an INT64 primary
key and a FLOAT_VECTOR, squared L2, FLAT, HNSW or IVF_FLAT, whose distances are exact, and aliases.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import time
from threading import Lock
from typing import Any, ClassVar
from urllib.parse import unquote

import numpy as np
import torch

from residua.errors import EngineError, MissingDependencyError, ParameterError
from residua.index.connected import Address, ConnectedServer, Parts, check_params, required
from residua.index.index import register_index
from residua.index.nearest import blocks
from residua.index.remote import RemoteIndex, end_unsaved

TOKEN = "RESIDUA_MILVUS_TOKEN"
_WAIT = 0.2  # seconds between two looks at a server that is not ready
_FLUSHED = 8192  # rows from which on a collection is sealed, so that its index covers them
_ROWS = 8192  # row numbers in one call
_FOUND = 2**19  # neighbours in one answer
_BEAM = 32_768  # the widest of a graph
_KINDS = {"FLAT": (), "HNSW": ("M", "efConstruction"), "IVF_FLAT": ("nlist",)}
_AGAIN = ("search", "query", "upsert", "delete", "has_collection", "describe_collection", "list_aliases")
_AWAY = ("fail connecting", "unavailable")
_NOT_YET = ("not loaded", "not fully loaded", "no available shard", "channel not available", "node not found")
_TLS = {"ca": "ca_pem_path", "cert": "client_pem_path", "key": "client_key_path"}
_OPTIONS = ("tls", "database", "server_name", *_TLS)
_EXPECTED = "milvus://host:19530/collection, or milvus:///path/of/a/file.db/collection for milvus-lite"


def address_of(address: str | None, token: str | None = None) -> Address:
    """What `address` says; ``ParameterError`` where it is none."""
    said = Parts.of(address, "milvus", _EXPECTED, _OPTIONS, 200)
    url, given, host = said.url, said.options, said.url.hostname
    if host is None:
        return Address(said.path, said.collection, "", said.timeout, ())
    if said.path:
        where = f"{said.path}/{said.collection}"
        raise ParameterError(f"{where} is no collection of a Milvus server; expected {_EXPECTED}")
    options: dict[str, str | bool] = {name: given[option] for option, name in _TLS.items() if option in given}
    if options.keys() == {"ca_pem_path"}:  # without a certificate of the client's own pymilvus calls it so
        options = {"server_pem_path": given["ca"]}
    tls = given.get("tls", "true" if options else "false").lower() in ("true", "1", "yes", "")
    options |= {"secure": True} if tls else {}
    options |= {"server_name": given["server_name"]} if "server_name" in given else {}
    options |= {"db_name": given["database"]} if "database" in given else {}
    user = f"{unquote(url.username or '')}:{unquote(url.password)}" if url.password is not None else ""
    user = user.removeprefix(":") or unquote(url.username or "")
    host = f"[{host}]" if ":" in host else host
    uri = f"{'https' if tls else 'http'}://{host}:{url.port or 19530}"
    return Address(uri, said.collection, token or user, said.timeout, tuple(sorted(options.items())))


class MilvusServer(ConnectedServer):
    """A Milvus server, or a file of milvus-lite, as pymilvus speaks to it."""

    most: ClassVar[int] = 16_384
    title: ClassVar[str] = "Milvus"
    variable: ClassVar[str] = TOKEN

    def __init__(self, address: Address):
        super().__init__(address)
        self._lock, self._client = Lock(), None
        self._filled: dict[str, int] = {}  # new rows of collections: the server counts those that are sealed alone

    def create(self, name: str, dim: int) -> None:
        pymilvus = _pymilvus()
        schema = pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", pymilvus.DataType.INT64, is_primary=True)
        schema.add_field("key", pymilvus.DataType.FLOAT_VECTOR, dim=dim)
        self._ask("create_collection", name, schema=schema)

    def put(self, name: str, rows: np.ndarray, keys: np.ndarray, new: bool) -> None:
        what = "insert" if new else "upsert"
        if new:
            self._filled[name] = self._filled.get(name, 0) + len(rows)
        for part in blocks(len(rows), 1, _ROWS):
            self._ask(what, name, [{"row": int(row), "key": key} for row, key in zip(rows[part], keys[part])])

    def prepare(self, name: str, params: dict[str, Any]) -> None:
        timeout = self.address.timeout
        patience = max(timeout, params.get("patience") or 3600.0)
        with self.errors("prepare", name, patience):
            client = self._connected()
            if not client.list_indexes(name, timeout=timeout):
                if self._filled.pop(name, 0) >= _FLUSHED:
                    client.flush(name, timeout=patience)
                made, kind = client.prepare_index_params(), params.get("kind", "HNSW")
                wanted = {"M": 16, "efConstruction": 128, "nlist": 1024} | params
                own = {name: wanted[name] for name in _KINDS[kind]}
                made.add_index("key", index_type=kind, metric_type="L2", params=own)
                client.create_index(name, made, timeout=patience)
            client.load_collection(name, timeout=patience)

    def remove(self, name: str, rows: np.ndarray) -> None:
        for part in blocks(len(rows), 1, _ROWS):
            self._ask("delete", name, ids=rows[part].tolist())

    def count(self, name: str, below: int) -> int:
        said = self._query(name, f"row < {below}", "count(*)")
        return int(said[0]["count(*)"])

    def rows(self, name: str, first: int, last: int) -> np.ndarray:
        which = f"row >= {first} and row < {last}"
        found = self._query(name, which, "row", limit=self.most, consistency_level="Bounded")
        return np.array([one["row"] for one in found], np.int64)

    def keys(self, name: str, rows: np.ndarray) -> np.ndarray:
        keys = np.empty((0, 0), np.float32)
        distinct, places = np.unique(rows, return_inverse=True)
        found: dict[int, Any] = {}
        for part in blocks(len(distinct), 1, 1024):
            listed = ", ".join(map(str, distinct[part].tolist()))
            found |= {one["row"]: one["key"] for one in self._query(name, f"row in [{listed}]", "key")}
        if len(found) < len(distinct):
            gone = [row for row in distinct.tolist() if row not in found]
            raise EngineError(f"collection {name} lacks the keys of {len(gone)} rows, such as {gone[:5]}")
        keys = np.array([found[row] for row in distinct.tolist()], np.float32)
        return keys[places]

    def nearest(
        self, name: str, queries: np.ndarray, count: int, wide: int, below: int | None, params: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        kind, own = params.get("kind", "HNSW"), dict[str, int]()
        if kind == "HNSW":
            own = {"ef": min(max(wide, params.get("ef") or 64), _BEAM)}
        elif kind == "IVF_FLAT":
            own = {"nprobe": params.get("nprobe") or 64}
        asked: dict[str, Any] = {"limit": count, "search_params": {"metric_type": "L2", "params": own}}
        asked |= {"output_fields": ["row"], "consistency_level": "Bounded"}
        asked |= {} if below is None else {"filter": f"row < {below}"}
        rows, squared = np.full((len(queries), count), -1), np.full((len(queries), count), np.inf, np.float32)
        for part in blocks(len(queries), count, min(_FOUND, self.most * count)):
            for at, hits in enumerate(self._ask("search", name, data=list(queries[part]), **asked), part.start):
                rows[at, : len(hits)], squared[at, : len(hits)] = hits.ids, hits.distances
        return rows, squared

    def tag(self, name: str, tag: str) -> None:
        self._ask("create_alias", name, tag)

    def untag(self, tag: str) -> None:
        self._ask("drop_alias", tag)

    def tagged(self, tag: str) -> str | None:
        return self._ask("describe_collection", tag)["collection_name"] if self._ask("has_collection", tag) else None

    def tags(self, name: str) -> list[str]:
        return list(self._ask("list_aliases", name)["aliases"])

    def collections(self) -> list[str]:
        return list(self._ask("list_collections"))

    def drop(self, name: str) -> None:
        if self._ask("has_collection", name):
            for tag in self.tags(name):
                self.untag(tag)
            self._ask("drop_collection", name)

    def _query(self, name: str, which: str, field: str, **more: Any) -> Any:
        asked: dict[str, Any] = {"filter": which, "output_fields": [field], "consistency_level": "Strong"}
        return self._ask("query", name, **asked | more)

    def _ask(self, what: str, *given: Any, **more: Any) -> Any:
        """One call of the client; again while the server is not ready, in the time given."""
        with self.errors(what, given[0] if given else "it"):
            until = time.monotonic() + self.address.timeout
            while True:
                left = max(until - time.monotonic(), _WAIT)
                try:
                    return getattr(self._connected(), what)(*given, **more, timeout=left)
                except _pymilvus().MilvusException as error:
                    words = (*_NOT_YET, *_AWAY) if what in _AGAIN else _NOT_YET
                    early = any(word in str(error).lower() for word in words) or self._is_there(what, error, *given)
                    if not early or time.monotonic() + _WAIT > until:
                        raise
                time.sleep(_WAIT)

    def _is_there(self, what: str, error: Exception, *given: Any) -> bool:
        """Whether a search was told that there is no such collection, and there is: so says the server now and then
        while another name of the collection goes, for it looks names up in a cache."""
        asks = what in ("search", "query") and "find collection" in str(error).lower()
        return asks and bool(self._connected().has_collection(given[0], timeout=self.address.timeout))

    def said(self, error: Exception) -> str:  # of pymilvus, of gRPC, or of milvus-lite, which raises what it comes upon
        return str(getattr(error, "message", None) or error)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                pymilvus, address = _pymilvus(), self.address
                if "://" not in address.uri:
                    _require_lite()
                said = {"token": address.secret} if address.secret else {}
                self._client = pymilvus.MilvusClient(
                    address.uri, timeout=address.timeout, dedicated=True, **said, **dict(address.options)
                )
                atexit.register(end_unsaved, self.identity, "://" in address.uri)
            return self._client


def _pymilvus() -> Any:
    pymilvus = required("pymilvus", "milvus")
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs a traceback of what it also raises
    return pymilvus


def _require_lite() -> None:
    try:
        importlib.import_module("milvus_lite")
    except ImportError as error:
        said = "a Milvus index in a local file needs milvus-lite, which is not installed: pip install milvus-lite"
        raise MissingDependencyError(said) from error
    logging.getLogger("grpc._server").setLevel(logging.CRITICAL)  # it is asked for what it has not, and logs that


@register_index("milvus")
class Milvus(RemoteIndex):
    """An index on a Milvus server, or in a file of milvus-lite, at an `address`.

    Parameters
    ----------
    dim : int
    device : str
        Where keys, queries and answers live; Milvus searches where it is.
    address : str
        ``milvus://[user:password@]host[:port]/collection``, or ``milvus:///path/file.db/collection`` for milvus-lite;
        after a ``?``, joined by ``&``: ``timeout`` (seconds of any call, default 30), ``tls=true``, ``ca`` (the PEM
        file of those who are trusted), ``cert`` and ``key`` (the client's own), ``server_name`` (in the server's
        certificate), ``database``. It is in no file: whoever loads a memory gives it again.
    token : str, optional
        ``user:password``, or an API key; else the address's, else the environment variable ``RESIDUA_MILVUS_TOKEN``.
        It is in no file either.
    kind : {"HNSW", "IVF_FLAT", "FLAT"}, default "HNSW"
        Milvus's index. All keep the keys whole, so that distances are true.
    M, efConstruction, ef : int, default 16, 128 and 64
        Of HNSW; the beam is `ef` or `overfetch` times the rows wanted, whichever is more.
    nlist, nprobe : int, default 1024 and 64
        Of IVF_FLAT.
    patience : float, default 3600
        Seconds that making the index, and loading it on the server, may take.

    Examples
    --------
    >>> import residua as rs
    >>> memory = rs.Memory(encoded, index="milvus://127.0.0.1:19530/examples")  # doctest: +SKIP
    >>> memory.save("mem/")  # doctest: +SKIP
    >>> again = rs.Memory.load("mem/", index="milvus://127.0.0.1:19530/examples")  # doctest: +SKIP
    """

    def __init__(
        self,
        dim: int,
        device: torch.device | str = "cpu",
        address: str | None = None,
        token: str | None = None,
        kind: str | None = None,
        M: int | None = None,
        efConstruction: int | None = None,
        ef: int | None = None,
        nlist: int | None = None,
        nprobe: int | None = None,
        patience: float | None = None,
    ):
        numbers = {"M": M, "efConstruction": efConstruction, "ef": ef, "nlist": nlist, "nprobe": nprobe}
        check_params(kind, _KINDS, numbers | {"patience": patience})
        there = address_of(address, token)
        server = MilvusServer.at(there)
        super().__init__(dim, device, server, there.collection, kind=kind, patience=patience, **numbers)
