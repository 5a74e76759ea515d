"""Fewer rows that stand for many, and can still forget each of them."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

import residua as rs
from residua.errors import (
    EmptyMemoryError,
    IdError,
    MemoryFileError,
    MissingDependencyError,
    ParameterError,
    StorageError,
)
from residua.memory.compress import shares

pytest.importorskip("sklearn")

N, CLASSES = 400, 4
RNG = np.random.default_rng(0)
LABELS = RNG.integers(CLASSES, size=N)
KEYS = (RNG.normal(size=(N, 3)) + LABELS[:, None]).astype(np.float32)
LOGITS = (RNG.normal(size=(N, CLASSES)) + 2 * np.eye(CLASSES)[LABELS]).astype(np.float32)
WEIGHTS = RNG.uniform(0.5, 3, size=N).astype(np.float32)


def rows(some=slice(None), **more):
    return rs.Encoded(KEYS[some], LOGITS[some], LABELS[some], **more)


def said(memory):
    return softmax(memory.logits.dense().numpy().astype(float), axis=1)


def means(memory, of, weights=None):
    """What the means of a compressed memory's members are, row by row."""
    weights = np.ones(N) if weights is None else weights
    members = [memory.members_of(int(id)) for id in memory.ids]
    return np.stack([np.average(of[some], axis=0, weights=weights[some]) for some in members])


@pytest.fixture
def whole():
    return rs.Memory(rows())


@pytest.fixture
def few(whole):
    return whole.compress(rows=20)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_row_is_the_mean_of_rows_of_its_label(weights):
    columns = {} if weights is None else {"weight": weights}
    whole = rs.Memory(rows(columns=columns))
    few = whole.compress(rows=20)
    assert len(few) == 20 and few.counts.sum() == N and len(whole) == N
    np.testing.assert_allclose(few.keys, means(few, KEYS, weights), atol=1e-5)
    np.testing.assert_allclose(said(few), means(few, softmax(LOGITS, axis=1), weights), atol=1e-6)
    total = [np.sum((np.ones(N) if weights is None else weights)[few.members_of(id)]) for id in few.ids]
    np.testing.assert_allclose(few.column("weight").numpy(), total, rtol=1e-5)
    for id, label, key in zip(few.ids, few.labels, few.keys):
        some = few.members_of(id)
        assert (LABELS[some] == label).all() and id in some
        nearest = np.linalg.norm(KEYS[some] - key, axis=1)
        assert np.linalg.norm(KEYS[id] - key) <= nearest.min() + 1e-5  # it is called by the most typical


def test_its_clusters_are_near_and_every_row_is_in_one(few):
    assert np.array_equal(np.sort(np.concatenate([few.members_of(id) for id in few.ids])), np.arange(N))
    spread = np.square(KEYS - means(few, KEYS)[[np.flatnonzero(few.ids == first(few, i))[0] for i in range(N)]]).sum()
    apart = sum(np.square(KEYS[c == LABELS] - KEYS[c == LABELS].mean(axis=0)).sum() for c in range(CLASSES))
    assert spread < 0.5 * apart  # five centres a class explain more than half of what one leaves


def first(memory, id):
    return memory.column("id")[memory.rows_with_ids(id)].item()


def test_a_residual_is_the_mean_residual(whole, few):
    ask = rows(slice(0, 5))
    one = whole.compress(rows=CLASSES)  # one row a class, all of it read: what every row says, in the mean
    near = rs.ResMem(one, k=CLASSES, sigma=1e9).scores(ask, exclude=None)
    np.testing.assert_allclose(near, rs.ResMem(whole, k=N, sigma=1e9).scores(ask, exclude=None), atol=1e-5)
    votes = rs.KNNLM(one, k=CLASSES, sigma=1e9, lmbda=1.0).scores(ask, exclude=None)
    np.testing.assert_allclose(votes, np.bincount(LABELS) / N * np.ones((5, 1)), atol=1e-6)


def test_as_many_rows_as_there_are_is_all_of_them(whole):
    same = whole.compress(rows=N)
    assert np.array_equal(np.sort(same.ids), np.arange(N)) and (same.counts == 1).all()
    order = np.argsort(same.ids)
    np.testing.assert_array_equal(same.keys[order], whole.keys)
    np.testing.assert_allclose(said(same)[order], softmax(LOGITS.astype(float), axis=1), atol=1e-6)


def test_bytes_are_those_of_the_rows(whole):
    few = whole.compress(bytes=2000)
    each = sum(size for name, size in few.bytes_per_row.items() if name not in ("members", "index", "id"))
    assert len(few) == 2000 // (each + 8) and len(whole.compress(bytes=10**9)) == N


@pytest.mark.parametrize("ids", [[7], [0, 1, 2, 3, 4, 5], list(range(0, N, 2))])
def test_who_is_forgotten_was_never_there(few, ids):
    touched = {int(first(few, id)) for id in ids}
    left = {id: np.setdiff1d(few.members_of(id), ids) for id in touched}
    before = copy.copy(few)
    assert few.forget(ids) == len(ids) and few.counts.sum() == N - len(ids)
    assert not any(id in few for id in ids)
    for some in left.values():
        if len(some):
            assert np.array_equal(few.members_of(int(some[0])), some)
    np.testing.assert_allclose(few.keys, means(few, KEYS), atol=1e-5)
    np.testing.assert_allclose(said(few), means(few, softmax(LOGITS, axis=1)), atol=1e-6)
    assert few.column("weight")[few.active_rows].tolist() == few.counts.tolist()
    with pytest.raises(IdError, match="not in the memory"):
        few.forget(ids)
    few.undo()
    assert np.array_equal(few.ids, before.ids) and np.array_equal(few.keys, before.keys)
    assert np.array_equal(few.members_of(ids[0]), before.members_of(ids[0]))


def test_all_of_a_row_may_go_and_its_names_with_it():
    few = rs.Memory(rows(), names={1: "a", 2: "b"}).compress(rows=10)
    gone = few.members_of(1)
    assert few.names[1] == "a"  # whoever it is called by
    few.forget(gone)
    assert len(few) == 9 and 1 not in few.names and not set(gone) & set(few.ids)


def test_who_is_relabelled_becomes_a_row_of_its_own(few):
    others = np.setdiff1d(few.members_of(7), 7)
    few.relabel([7], 3)
    assert few.members_of(7).tolist() == [7] and np.array_equal(few.members_of(int(others[0])), others)
    at = few.ids.tolist().index(7)
    assert few.labels[at] == 3 and len(few) == 21 and few.counts.sum() == N
    few.relabel([7], 2)
    assert len(few) == 21 and few.labels[few.ids.tolist().index(7)] == 2


def test_more_rows_are_remembered_beside_them(few):
    ids = few.add(rows(slice(0, 3)))
    assert ids.tolist() == [N, N + 1, N + 2] and few.counts[-3:].tolist() == [1, 1, 1]
    assert few.column("weight")[few.active_rows][-3:].tolist() == [1, 1, 1]
    with pytest.raises(IdError, match="in the memory already"):
        few.add(rows(slice(0, 1), ids=[7]))
    few.add(rows(slice(0, 1), ids=[7]), replace=True)
    assert few.members_of(7).tolist() == [7] and few.counts.sum() == N + 3
    again = few.compress(rows=8)
    assert again.counts.sum() == N + 3 and 7 in again and N + 1 in again
    assert again.forget([N + 1, 9]) == 2 and again.counts.sum() == N + 1


def test_a_query_does_not_find_what_stands_for_it(whole, few):
    queries = rows(slice(0, 50), ids=np.arange(50))
    found = few.search(queries.keys, 20, exclude=queries.ids)
    for near, id in zip(found.rows.numpy(), queries.ids):
        stands = {int(i) for i in few.column("id")[torch.from_numpy(near[near >= 0])]}
        assert first(few, id) not in stands and len(stands) == 19
    asked = rs.Encoded(queries.keys + 1, queries.logits, queries.labels, queries.ids)  # no key of theirs is there
    known = rs.evaluate(rs.KNNLM(few, k=20), asked, exclude=None).exact_matches
    assert known == 50  # none is new to it


def test_a_folder_keeps_what_they_stand_for(few, tmp_path):
    few.forget([7])
    few.save(tmp_path / "few")
    loaded = rs.Memory.load(tmp_path / "few")
    assert rs.Memory.verify(tmp_path / "few").damaged == ()
    for memory in (few, loaded):
        memory.forget([11])
    assert np.array_equal(few.keys, loaded.keys) and np.array_equal(few.ids, loaded.ids)
    loaded.save(tmp_path / "few")
    written = [file.name for file in (tmp_path / "few").glob("members-*-0*")]
    assert len(written) == 1  # the rows themselves are written once
    assert np.array_equal(rs.Memory.load(tmp_path / "few").members_of(12), few.members_of(12))
    live = rs.Memory.open(tmp_path / "few")
    live.forget([13])
    assert 13 not in rs.Memory.load(tmp_path / "few")


def test_purge_removes_every_trace_of_a_member(tmp_path):
    keys = RNG.normal(size=(N, 16)).astype(np.float32)
    few = rs.Memory(rs.Encoded(keys, LOGITS, LABELS)).compress(rows=20)
    few.save(tmp_path / "few")
    few = rs.Memory.load(tmp_path / "few")
    mark = keys[7].tobytes()
    assert any(mark in file.read_bytes() for file in (tmp_path / "few").iterdir())
    few.forget([7])
    few.save(tmp_path / "few")
    assert any(mark in file.read_bytes() for file in (tmp_path / "few").iterdir())
    assert few.purge(tmp_path / "few").rows == 1  # the former row; its members are counted by their traces
    assert not any(mark in file.read_bytes() for file in (tmp_path / "few").iterdir())
    few = rs.Memory.load(tmp_path / "few")
    few.forget([11])
    assert few.counts.sum() == N - 2
    np.testing.assert_allclose(few.keys, means(few, keys), atol=1e-5)


def test_without_the_members_a_row_goes_with_all_that_it_stands_for(few, tmp_path):
    few.discard_members()
    few.save(tmp_path / "few")
    few = rs.Memory.load(tmp_path / "few")
    together = few.members_of(7)
    with pytest.raises(StorageError, match=f"id 7 is one of {len(together)} rows that were merged"):
        few.forget([7])
    with pytest.raises(StorageError, match="were discarded"):
        few.compress(rows=5)
    assert few.forget(together) == len(together) and len(few) == 19
    size = sum(file.stat().st_size for file in (tmp_path / "few").glob("members-*"))
    assert size < N * 8 + 20 * N


def test_what_was_edited_on_both_sides_is_refused(few, tmp_path):
    few.save(tmp_path / "few")
    other = rs.Memory.load(tmp_path / "few")
    other.forget([7])
    other.save(tmp_path / "few")
    few.forget([8])
    with pytest.raises(StorageError, match="cannot be told of two edits at once"):
        few.refresh()


@pytest.mark.parametrize("storage", ["none", "head", "top-m"])
def test_other_storages(storage):
    weight, bias = RNG.normal(size=(CLASSES, 3)), RNG.normal(size=CLASSES)
    head = rs.core.Head(torch.from_numpy(weight).float(), torch.from_numpy(bias).float())
    logits = (KEYS @ weight.T + bias).astype(np.float32)
    enc = rs.Encoded(KEYS, logits, LABELS, head=head)
    few = rs.Memory(enc, storage=storage, m=2).compress(rows=12)
    np.testing.assert_allclose(few.keys, means(few, KEYS), atol=1e-5)
    if storage == "none":
        assert few.logits is None
        assert rs.KNNLM(few, k=5).predict(enc[:5]).shape == (5,)
        return
    p = softmax(logits.astype(float), axis=1)
    if storage == "top-m":  # of each row its label's entry and the largest other
        kept = p.copy()
        kept[np.arange(N), LABELS] = 2
        p = np.where(kept >= np.sort(kept, axis=1)[:, -2:-1], p, 0)
        mean = means(few, p)
        stored = few.stored_logits
        ids, values = stored.ids.numpy(), np.exp(stored.values.numpy())
        assert (ids[:, 0] == few.labels).all()
        np.testing.assert_allclose(values, np.take_along_axis(mean, ids, 1), atol=1e-6)
    else:
        np.testing.assert_allclose(few.logits.dense().numpy(), means(few, logits), atol=1e-4)
    few.forget([7])
    np.testing.assert_allclose(few.keys, means(few, KEYS), atol=1e-5)
    assert np.isfinite(rs.ResMem(few, k=5).scores(enc[:5])).all()


def test_regression_has_mean_targets():
    targets = (KEYS.sum(axis=1) + 1e6).astype(np.float64)
    whole = rs.Memory(rs.Encoded(KEYS, targets + RNG.normal(size=N), targets))
    few = whole.compress(rows=15)
    np.testing.assert_allclose(few.labels, means(few, targets), rtol=1e-9)
    stored = whole.stored_logits.dense().numpy()[:, 0]  # less their centre
    np.testing.assert_allclose(few.stored_logits.dense().numpy()[:, 0], means(few, stored), atol=1e-5)
    few.forget([3])
    np.testing.assert_allclose(few.labels, means(few, targets), rtol=1e-9)


def test_sets_of_labels_are_merged_alone():
    sets = RNG.integers(2, size=(N, 2))
    enc = rs.Encoded(KEYS, LOGITS[:, :2], sets, task="multi-label")
    few = rs.Memory(enc).compress(rows=9)
    for id, label in zip(few.ids, few.labels):
        assert (sets[few.members_of(id)] == label).all()
    np.testing.assert_allclose(expit(few.logits.dense().numpy()), means(few, expit(LOGITS[:, :2])), atol=1e-6)
    with pytest.raises(ParameterError, match="4 different sets of labels"):
        rs.Memory(enc).compress(rows=3)


def test_keys_of_length_one_stay_so():
    few = rs.Memory(rows(), normalise=True).compress(rows=10)
    np.testing.assert_allclose(np.linalg.norm(few.keys, axis=1), 1, atol=1e-6)
    unit = KEYS / np.linalg.norm(KEYS, axis=1, keepdims=True)
    mean = means(few, unit)
    np.testing.assert_allclose(few.keys, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5)


def test_a_mean_without_a_direction_is_one_of_its_members():
    two = rs.Memory(rs.Encoded([[1.0, 0.0], [-1.0, 0.0]], np.zeros((2, 2)), [1, 1]), normalise=True)
    assert np.abs(two.compress(rows=1).keys).tolist() == [[1.0, 0.0]]


def test_no_reader_is_fitted_on_merged_rows(whole, few):
    with pytest.raises(StorageError, match="leaves out all that it stands for"):
        rs.Pooled(few).fit(progress=False)
    fitted = rs.Pooled(few).fit(rows(slice(0, 200)), progress=False, evidence=None)
    assert any(fitted.coefficients[1:])


def test_other_columns_are_of_the_row_it_is_called_by():
    few = rs.Memory(rows(columns={"year": np.arange(N) + 2000})).compress(rows=10)
    assert (few.column("year")[:].numpy() == few.ids + 2000).all()


def test_new_classes_reach_the_members():
    few = rs.Memory(rows()).compress(rows=10)
    few.add(rs.Encoded(KEYS[:3], LOGITS[:3], [4, 4, 4], new_classes=True), new_classes=True)
    few.forget([7])
    assert few.n_outputs == 5 and few.logits.shape == (13, 5)
    np.testing.assert_allclose(said(few)[:10, 4], 0.2, atol=0.02)


def test_keys_of_a_large_offset_and_forgotten_rows():
    whole = rs.Memory(rs.Encoded(KEYS.astype(float) + 1e9, LOGITS, LABELS), key_dtype="float16")
    whole.forget(np.arange(0, 100))
    few = whole.compress(rows=12)
    assert few.counts.sum() == 300 and 5 not in few
    np.testing.assert_allclose(few.keys, means(few, KEYS.astype(float)) + 1e9, atol=0.01)
    few.forget([200])
    np.testing.assert_allclose(few.keys, means(few, KEYS.astype(float)) + 1e9, atol=0.01)


def test_a_text_forgets_a_document():
    n, documents = 300, np.repeat(np.arange(6), 50)
    tokens = RNG.integers(8, size=n)
    enc = rs.Encoded(KEYS[:n], RNG.normal(size=(n, 8)), tokens, documents, columns={"offset": np.tile(range(50), 6)})
    few = rs.Memory(enc, storage="none").compress(rows=40)
    assert few.schema.is_text and few.counts.sum() == n
    assert few.forget([2]) == 50 and few.counts.sum() == 250 and 2 not in few.ids
    np.testing.assert_allclose(few.keys @ np.ones(3) @ few.counts, KEYS[:n][documents != 2].sum(), rtol=1e-5)
    found = few.search(KEYS[:5], 40, exclude=np.full(5, 3))
    held = few.column("id")[found.rows[found.found]]
    assert 3 not in held.tolist()
    with pytest.raises(ParameterError, match="8 different next tokens"):
        rs.Memory(enc, storage="none").compress(rows=7)


def test_explanations_say_how_many_a_row_stands_for(few):
    why = rs.explain(rs.ResMem(few, k=3), rows(slice(0, 1)))
    assert why.columns["stands_for"].tolist() == [few.counts[few.ids.tolist().index(id)] for id in why.ids]
    assert "for rows" in str(why) and "stands_for" in why.to_frame() and "stands_for" in few.to_frame()
    assert f"20, which stand for {N}" in few._repr_html_()


def test_many_rows_are_clustered_in_parts(monkeypatch):
    whole = rs.Memory(rows())

    def spread(few):
        owner = {id: n for n, own in enumerate(few.ids) for id in few.members_of(own)}
        return np.square(KEYS - few.keys[[owner[id] for id in range(N)]]).sum()

    at_once = whole.compress(rows=60)
    monkeypatch.setattr("residua.memory.compress.MUCH", 200)
    in_parts = whole.compress(rows=60)
    assert len(in_parts) == 60 and in_parts.counts.sum() == N
    assert spread(in_parts) < 1.3 * spread(at_once)


def test_nothing_remembered_is_nothing_to_merge():
    empty = rs.Memory(rows(slice(0, 3)))
    empty.forget([0, 1, 2])
    with pytest.raises(EmptyMemoryError, match="nothing is remembered"):
        empty.compress(bytes=1000)


def test_duplicates_are_one_row():
    keys = np.repeat(np.eye(3), 50, axis=0)
    few = rs.Memory(rs.Encoded(keys, np.zeros((150, 3)), np.repeat([0, 1, 2], 50))).compress(rows=30)
    assert len(few) == 3 and few.counts.tolist() == [50, 50, 50]


def test_it_is_always_the_same(whole):
    assert np.array_equal(whole.compress(rows=30).keys, whole.compress(rows=30).keys)


def test_the_log_and_the_whole_memory_are_their_own(whole, few):
    assert [event.what for event in few.log()] == ["compress"] and "400 rows" in few.log()[0].note
    few.forget([7])
    whole.forget([8])
    assert 8 in few and 7 in whole and len(whole) == N - 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(0, 100))
def test_shares_are_of_what_there_is(sizes, more):
    sizes, total = np.array(sizes), len(sizes) + more
    found = shares(sizes, total)
    assert found.sum() == min(total, sizes.sum()) and (found >= 1).all() and (found <= sizes).all()
    assert (np.diff(found[np.argsort(sizes, kind="stable")]) >= -1).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=40), st.integers(4, 60))
def test_any_order_of_forgetting_leaves_the_same_sums(ids, size):
    few = rs.Memory(rows(slice(0, 60))).compress(rows=size)
    for id in dict.fromkeys(ids):
        few.forget([id])
    left = np.setdiff1d(np.arange(60), ids)
    assert few.counts[few.counts > 0].sum() == len(left) if len(left) else len(few) == 0
    if len(left):
        total = (few.keys * few.column("weight")[few.active_rows].numpy()[:, None]).sum(axis=0)
        np.testing.assert_allclose(total, KEYS[left].sum(axis=0), atol=1e-3)


@pytest.mark.parametrize("wanted", [{}, {"rows": 5, "bytes": 5}, {"rows": 0}, {"rows": N + 1}, {"rows": 3}])
def test_what_cannot_be(whole, wanted):
    with pytest.raises(ParameterError):
        whole.compress(**wanted)


@pytest.mark.parametrize(
    "wanted", [{"rows": 5.5}, {"rows": True}, {"bytes": 3}, {"bytes": 100}, {"bytes": float("inf")}, {"bytes": "1 MB"}]
)
def test_what_is_no_number_of_rows(whole, wanted):
    with pytest.raises(ParameterError, match="expected"):
        whole.compress(**wanted)


def test_without_scikit_learn_it_says_so(whole, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    with pytest.raises(MissingDependencyError, match=r"residua\[sklearn\]"):
        whole.compress(rows=20)


def test_damaged_members_are_refused_by_name(few, tmp_path):
    few.save(tmp_path / "few")
    (file,) = (tmp_path / "few").glob("members-*-0*")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    assert rs.Memory.verify(tmp_path / "few").damaged == (file.name,)
    with pytest.raises(MemoryFileError, match=f"{file.name} is corrupted"):
        rs.Memory.load(tmp_path / "few")


def test_an_interrupted_edit_leaves_it_as_it_was(few, monkeypatch):
    def interrupted(index, rows):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(few.index), "forget", interrupted)
        with pytest.raises(KeyboardInterrupt):
            few.forget([7])
    assert 7 in few and few.counts.sum() == N and len(few) == 20
    few.forget([7])
    assert 7 not in few and few.counts.sum() == N - 1 and len(few) == 20


@pytest.mark.parametrize("name", ["rows", "owners"])
def test_a_folder_that_lies_about_its_members_is_refused(few, tmp_path, name):
    from safetensors.torch import load_file, save_file

    from residua.folder import MANIFEST, checksum
    from residua.memory.manifest import described
    from residua.strict import read_json

    few.save(tmp_path / "few")
    (file,) = [file for file in (tmp_path / "few").glob("members-*") if file.name.count("-") == 1]
    tensors = load_file(file)
    tensors[name] = tensors[name].clone()
    tensors[name][-1] = 10**6
    save_file(tensors, file)
    manifest = read_json(tmp_path / "few" / MANIFEST)
    manifest["members"]["entries"] = described(file)
    manifest["crc32"] = checksum(manifest)
    (tmp_path / "few" / MANIFEST).write_text(__import__("json").dumps(manifest))
    with pytest.raises(MemoryFileError, match=name):
        rs.Memory.load(tmp_path / "few")
