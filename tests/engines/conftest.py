"""Servers that hold an index: one in RAM, which may fail or lag at any call, milvus-lite in a file, and Milvus itself."""

import numpy as np
import pytest
import torch

from residua.errors import EngineError
from residua.index import RemoteIndex, Server, register_index


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
