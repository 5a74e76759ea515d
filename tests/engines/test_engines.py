"""A whole memory behaves the same on every engine."""

import copy
import gc
import pickle
import subprocess
import sys

import numpy as np
import pytest

import residua as rs
from residua.errors import EngineError, IdError, MemoryFileError, ParameterError, StorageError
from residua.index import Milvus, RemoteIndex
from residua.index.index import ENGINES
from residua.testing import check_index, check_reader

K = 10


def check(memory, rows, least=0.9):
    """`memory` holds what an exact one of `rows` (ids to row of the encoded data) does, and finds it."""
    exact = rs.Memory(rs.Encoded(memory.keys, memory.logits, memory.labels, memory.ids))
    assert dict(zip(memory.ids.tolist(), memory.labels.tolist())) == rows
    asked = memory.keys[:: max(len(memory) // 40, 1)] + 0.05
    found, true = memory.search(asked, K), exact.search(asked, K)
    assert found.found.all()
    ids, near = memory.column("id")[found.rows].numpy(), exact.ids[true.rows.numpy()]
    assert set(ids.ravel().tolist()) <= set(rows)
    at = {id: key for id, key in zip(memory.ids.tolist(), memory.keys)}
    distances = [[np.linalg.norm(at[id] - query) for id in some] for some, query in zip(ids.tolist(), asked)]
    np.testing.assert_allclose(found.distances, distances, rtol=1e-4, atol=1e-5)
    share = np.mean([len(set(a) & set(b)) / K for a, b in zip(ids.tolist(), near.tolist())])
    assert share >= (1 if memory.index.exact else least)


@pytest.mark.slow
def test_a_whole_memory(engine, encoded, tmp_path):
    where = {"index": engine} if "://" in engine else {}
    data, folder = encoded(0, 700), tmp_path / "memory"
    rows = dict(enumerate(data.labels[:600].tolist()))
    memory = rs.Memory(encoded(0, 600), index=engine)
    check(memory, rows)
    assert memory.add(encoded(600, 620)).tolist() == list(range(600, 620))
    rows |= {row: data.labels[row] for row in range(600, 620)}
    check(memory, rows)
    itself = memory.search(encoded.keys[600:620], 1).rows[:, 0].numpy() == np.arange(600, 620)  # at once
    assert itself.mean() >= (1 if memory.index.exact or isinstance(memory.index, RemoteIndex) else 0.9)
    gone = memory.column("id")[memory.search(encoded.keys[:20], 3).rows].unique().tolist()
    assert memory.forget(gone) == len(gone)
    kept = {row: label for row, label in rows.items() if row not in gone}
    check(memory, kept)
    memory.save(folder)
    again = rs.Memory.load(folder, **where)
    check(again, kept)
    check(memory, kept)
    memory.undo()
    check(memory, rows)
    memory.save(folder)
    check(rs.Memory.load(folder, **where), rows)
    with pytest.raises(MemoryFileError):  # somebody else saved there
        again.forget([next(iter(kept))]), again.save(folder)
    again.refresh()
    first = next(iter(kept))
    check(again, {row: label for row, label in rows.items() if row != first})
    again.undo(), again.save(folder)
    live, other = (rs.Memory.open(folder, **where) for _ in range(2))
    assert live.add(encoded(620, 622, [5, 6]), replace=True).tolist() == [5, 6]
    other.relabel([7], 3)
    rows |= {5: data.labels[620], 6: data.labels[621], 7: 3}
    check(other, rows)
    live.refresh()
    check(live, rows)
    check(live.where(label=[0, 3]), {row: label for row, label in rows.items() if label in (0, 3)})
    twin = copy.copy(live)
    live.forget(range(100, 300))
    check(twin, rows)
    live.rebuild()
    rows = {row: label for row, label in rows.items() if not 100 <= row < 300}
    check(live, rows)
    check(rs.Memory.load(folder, **where), rows)
    with pytest.raises(IdError, match="not in the memory"):
        live.forget([100])
    moved = rs.Memory.load(folder, index="exact")
    check(moved, rows)
    rs.Memory.compact(folder, **where)
    live.refresh()
    live.purge(folder)
    check(rs.Memory.load(folder, **where), rows)
    assert rs.Memory.verify(folder).damaged == ()


@pytest.mark.slow
def test_readers_tune_explain_and_come_back(remote, encoded, tmp_path):
    memory, test = rs.Memory(encoded(0, 600), index=remote), encoded(3000, 3060)
    best = rs.tune(rs.ResMem(memory), encoded(2000, 2200), {"k": [5, 20], "sigma": [0.3, 1.0]})
    check_reader(best, encoded(3000, 3060, np.arange(10_000, 10_060)))
    why = rs.explain(best, test[0])
    assert np.allclose(why.base + why.contributions.sum(axis=0), best.scores(test[0]), atol=1e-5)
    best.save(tmp_path / "reader")
    again = rs.load(tmp_path / "reader", index=remote)
    np.testing.assert_allclose(again.scores(test), best.scores(test), atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*finds too few of the true neighbours")
def test_keys_that_are_discarded(engine, encoded, tmp_path):
    where = {"index": engine} if "://" in engine else {}
    memory = rs.Memory(encoded(0, 600), index=engine)
    if memory.index.needs_keys:
        with pytest.raises(StorageError):
            memory.discard_keys(), memory.search(encoded.keys[:1], 1)
        return
    memory.discard_keys()
    memory.forget([3])
    memory.add(encoded(600, 603))
    memory.save(tmp_path / "memory")
    again = rs.Memory.load(tmp_path / "memory", **where)
    for one in (memory, again):
        found = one.search(encoded.keys[:603], 5)
        assert found.found.all() and not (found.rows == 3).any()
        hit = (found.rows == np.arange(603)[:, None]).any(dim=1)
        assert hit.float().mean() > (0.5 if "PQ" in engine else 0.9)
    again.undo()
    again.undo()
    assert len(again) == 600 and (again.search(encoded.keys[3:4], 5).rows == 3).any()


# --- servers of others --------------------------------------------------------------------------------------


def index_at(address, dim=8, **params):
    return ENGINES.get(address.partition("://")[0])(dim, "cpu", address, **params)


@pytest.mark.slow
def test_a_server_keeps_the_promises_of_an_index(on_server):
    index = index_at(on_server)
    gc.collect()
    before = set(index.server.collections())
    check_index(index, n=500)
    gc.collect()
    assert set(index.server.collections()) <= before  # nothing is left behind


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scan", "lists"])
def test_other_kinds(kind, on_server, encoded):
    milvus = on_server.startswith("milvus")
    lists = {"nlist": 16, "nprobe": 12} if milvus else {"lists": 16, "probes": 12}
    params = {"kind": "FLAT" if milvus else "exact"}
    if kind == "lists":
        params = {"kind": "IVF_FLAT" if milvus else "IVFFlat"} | lists
    memory = rs.Memory(encoded(0, 600), index=on_server, index_params=params)
    check(memory, dict(enumerate(encoded(0, 600).labels.tolist())))
    assert memory.recall.value > (0.999 if kind == "scan" else 0.9)


UNSAVED = """
import sys, numpy as np, residua as rs
memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]), index=sys.argv[1])
print(memory.index.place, *memory.index.server.collections())
"""


@pytest.mark.slow
def test_a_memory_that_is_never_saved_leaves_nothing(on_server):
    done = subprocess.run([sys.executable, "-c", UNSAVED, on_server], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and not done.stderr
    place, *there = done.stdout.split()
    assert place in there
    if "lite.db" not in on_server:  # which ends with the process, and leaves what is in its file
        assert place not in index_at(on_server, 3).server.collections()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("milvus", "needs an address"),
        ("postgresql", "needs an address"),
        ("milvus://host", "is called ''"),
        ("postgresql://host/database/", "is called ''"),
        ("milvus://host/two words", "letters, digits and _"),
        ("postgresql://host/database/" + "a" * 51, "at most 50"),
        ("milvus://host/a/b", "is no collection"),
        ("postgresql://host/a", "names no database"),
        ("milvus://host:port/a", "cannot be read"),
        ("postgresql://host:port/a/b", "cannot be read"),
        ("milvus://host/a?timeout=soon", "timeout='soon'"),
        ("postgresql://host/a/b?timeout=-1", "timeout='-1'"),
        ("milvus://host/a?color=red", r"options \['color'\]"),
        ("postgresql://host/a/b?password=pass-word", r"options \['password'\]"),
        ("nowhere://host/a", "no index engine 'nowhere'"),
    ],
)
def test_an_address_that_is_none(address, said, encoded):
    with pytest.raises(ParameterError, match=said) as error:
        rs.Memory(encoded(0, 60), index=address)
    assert "pass-word" not in str(error.value)


@pytest.mark.parametrize(
    ("engine", "client", "variable", "where"),
    [
        ("milvus", "pymilvus", "RESIDUA_MILVUS_TOKEN", "127.0.0.1:9/rows"),
        ("postgresql", "psycopg", "PGPASSWORD", "127.0.0.1:9/data/rows"),
    ],
)
def test_a_password_is_shown_nowhere(engine, client, variable, where, encoded, monkeypatch):
    secret = f"{engine}://root:pass-word@{where}?timeout=0.2"
    index = index_at(secret)
    said = [repr(index), str(index.to_json()), repr(vars(index)), pickle.dumps(index).decode(errors="replace")]
    said += [repr(index.server.address)]
    pytest.importorskip(client)
    with pytest.raises(EngineError, match=r"127.0.0.1:9.* did not do create") as caught:  # nobody is there
        rs.Memory(encoded(0, 60), index=secret)
    with pytest.raises(ParameterError) as other:
        rs.Memory(encoded(0, 60), index=secret, index_params={"depth": 3})
    assert not any("pass-word" in text for text in [*said, str(caught.value), str(other.value)])
    assert index.server.address.secret.removeprefix("root:") == "pass-word"
    assert index.fresh().server is index.server
    monkeypatch.setenv(variable, "of the environment")
    assert index_at(f"{engine}://{where}").server.address.secret == "of the environment"
    assert pickle.loads(pickle.dumps(index)).server.address.secret == "of the environment"


def test_a_token_may_be_given_beside_the_address():
    assert Milvus(8, "cpu", "milvus://host/rows", token="given").server.address.secret == "given"


@pytest.mark.parametrize(
    ("dim", "params", "said"),
    [
        (2001, {}, 'takes keys of at most 2000 dimensions, not 2001; kind="exact" takes up to 16000'),
        (2001, {"kind": "IVFFlat"}, "kind='IVFFlat' of index 'postgresql' takes keys of at most 2000"),
        (16_001, {"kind": "exact"}, "at most 16000 dimensions, not 16001$"),
        (8, {"kind": "ivf"}, "kind='ivf'; expected one of"),
        (8, {"kind": []}, "kind=.*; expected one of"),
        (8, {"ef": 0}, "ef=0; expected a number above 0"),
    ],
)
def test_parameters_of_postgresql(dim, params, said):
    with pytest.raises(ParameterError, match=said):
        index_at("postgresql://host/data/rows", dim, **params)
    index_at("postgresql://host/data/rows", 16_000, kind="exact")
