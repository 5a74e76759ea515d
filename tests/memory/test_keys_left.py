"""A memory without keys: what it says of its recall stays true, and a small edit costs a small save."""

import copy
import json
import pickle
import warnings

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import MemoryFileError, StorageError
from residua.memory import build as building

pytest.importorskip("faiss")


def some(n, at=0.0, seed=0, dim=16, **more):
    """`n` rows about 20 places near `at`."""
    generator = np.random.default_rng(seed)
    places = np.random.default_rng(0).normal(size=(20, dim))
    keys = places[generator.integers(20, size=n)] + generator.normal(size=(n, dim)) + at
    return rs.Encoded(keys.astype(np.float32), np.zeros((n, 2)), generator.integers(2, size=n), **more)


def keyless(n=2000, index="IVF16,SQ8", **options):
    memory = rs.Memory(some(n), index=index, storage="none", **options)
    memory.discard_keys()
    return memory


def true_recall(memory, keys, near, k=50):
    """Of queries near rows `near`, by brute force over the keys (n, d) that the memory does not have."""
    keys, active = torch.from_numpy(keys).double(), memory.active_rows
    queries = keys[near] + (keys[near + 1] - keys[near + 2]) / 8
    limit = torch.cdist(queries, keys[active]).kthvalue(k, dim=1).values
    found = (queries[:, None] - keys[memory.search(queries, k).rows]).square().sum(dim=2).sqrt()
    return float((found <= limit[:, None] + 1e-5).double().mean())


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def tail(folder):
    return [shard["rows"] for shard in manifest(folder)["index"]["tail"]]


def holds(folder, keys, memory):
    """Which of these keys some file of the folder holds, as the memory would store them."""
    stored = (torch.from_numpy(np.asarray(keys, np.float64)) - memory.schema.key_centre).float()
    content = b"".join(file.read_bytes() for file in sorted(folder.iterdir()))
    return [row for row, key in enumerate(stored) if key.numpy().tobytes() in content]


def same(one, other):
    queries = some(20, seed=9).keys
    found, expected = one.search(queries, 6), other.search(queries, 6)
    assert torch.equal(found.rows, expected.rows) and torch.equal(found.distances, expected.distances)
    assert one.ids.tolist() == other.ids.tolist() and one.labels.tolist() == other.labels.tolist()
    assert one.recall == other.recall and one.names == other.names
    left, right = one._keys_left.truth.to_tensors(), other._keys_left.truth.to_tensors()
    assert all(torch.equal(left[name], right[name]) for name in left)


# --- recall -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", [20_000, 500])
def test_shifted_rows_are_measured_and_warned_of_once(each):
    memory, shifted = keyless(), some(20_000, at=6.0, seed=1)
    assert memory.recall.value > 0.95 and memory.recall.n == 2000
    with pytest.warns(UserWarning, match=r"recall@50 = 0\.\d+ on 64 .* building the memory again") as caught:
        for start in range(0, 4000 if each < 20_000 else 20_000, each):
            memory.add(shifted[start : start + each])
    assert len(caught) == 1 and caught[0].filename == __file__
    keys = np.concatenate([some(2000).keys, shifted.keys])[: memory.n_rows]
    true = true_recall(memory, keys, torch.arange(2000, memory.n_rows - 2, 61))
    assert memory.recall.value < true + 0.05 and true < 0.4  # of small adds, less: the lists begin late
    with pytest.raises(StorageError, match="build it again"):
        memory.rebuild()


@pytest.mark.parametrize("index", ["IVF16,SQ8", "IVF16,PQ8x4fs", "HNSW8"])
def test_rows_like_the_first_are_no_news(index):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PQ finds few from the first
        memory = keyless(index=index)
    first = memory.recall.value
    for seed in range(1, 17):
        memory.add(some(250, seed=seed))
    keys = np.concatenate([some(2000).keys, *(some(250, seed=seed).keys for seed in range(1, 17))])
    true = true_recall(memory, keys, torch.arange(0, 5990, 23))
    assert memory.recall.n > 5000 and abs(memory.recall.value - true) < 0.06 and abs(first - true) < 0.2


def test_forgetting_a_third_measures_again_and_an_undo_restores_the_truth():
    memory = keyless()
    before = memory.recall
    memory.forget(range(0, 1400, 2))
    assert (memory.recall.n, memory.recall.rows) == (1300, 2000) and memory.recall.value > 0.9
    assert memory.recall.date and memory.recall is not before
    memory.undo()
    memory.forget([0])
    everything = torch.ones(2000, dtype=torch.bool)
    again = memory._keys_left.truth.recall(memory.index, everything)
    assert abs(again.value - before.value) < 0.01  # but for the row that is forgotten


def test_a_window_that_slides_is_measured():
    memory = keyless()
    with pytest.warns(UserWarning, match="too few"):
        for step in range(4):
            ids = memory.add(some(500, at=6.0, seed=step))
            memory.forget(ids - 2000)
    assert len(memory) == 2000 and memory.recall.rows > 2500


@pytest.mark.slow
def test_a_build_measures_without_the_keys_too(tmp_path):
    """By what its codes say, not by the keys that it is to drop; over all that streamed by."""

    class Batch:
        def __init__(self, rows, first):
            self.rows, self.labels, self.ids = rows, rows.labels, np.arange(first, first + len(rows))
            self.offsets = self.ids * 0

        def __len__(self):
            return len(self.rows)

    def batches(at):
        for step in range(8):
            yield Batch(some(500, at=at if step > 1 else 0.0, seed=step), 500 * step)

    def encode(batch):
        rows = batch.rows
        return rs.Encoded(rows.keys, rows.logits, rows.labels, batch.ids, columns={"offset": batch.offsets})

    def built(at):
        options = {"index": "IVF16,SQ8", "keep_keys": False, "train_rows": 1000, "shard_rows": 500, "progress": False}
        return building.build(batches(at), encode, tmp_path / f"{at}", **options)

    assert built(0.0).recall.value > 0.95
    with pytest.warns(UserWarning, match="too few"):
        memory = built(6.0)
    keys = np.concatenate([batch.rows.keys for batch in batches(6.0)])
    true = true_recall(memory, keys, torch.arange(1000, 3990, 17))
    assert memory.recall.value < true + 0.05 and true < 0.5
    assert memory.recall == rs.Memory.load(tmp_path / "6.0").recall and memory.recall.n == 4000


def test_discarding_with_an_add_in_one_edit_changes_nothing():
    memory = rs.Memory(some(300), index="IVF4,SQ8")
    for first, second in (("add", "discard"), ("discard", "add")):
        with pytest.raises(StorageError, match="by an edit of their own"), memory.editing() as draft:
            for what in (first, second):
                draft.add(some(3, seed=1)) if what == "add" else draft.discard_keys()
        assert memory.keys_kept and len(memory) == 300 and memory.search(some(300).keys[:1], 1).rows.item() == 0
    with memory.editing("clean") as draft:
        draft.forget([3])
        draft.discard_keys()
    assert not memory.keys_kept and memory.index.rerank is False and memory.recall.n == 299


# --- the tail ----------------------------------------------------------------------------------------------------


def test_a_small_add_leaves_the_index_file_alone(tmp_path):
    memory = keyless()
    memory.save(tmp_path)
    file = manifest(tmp_path)["index"]["files"]
    assert tail(tmp_path) == []
    for seed in range(1, 5):
        memory.add(some(100, seed=seed))
        memory.forget([seed])
        memory.save(tmp_path)
        same(rs.Memory.load(tmp_path), memory)
        same(rs.Memory.load(tmp_path, mmap=True), memory)
    assert manifest(tmp_path)["index"]["files"] == file and tail(tmp_path) == [400]
    memory = rs.Memory.load(tmp_path)
    memory.add(some(101, seed=5))  # a quarter, and one more
    memory.save(tmp_path)
    assert manifest(tmp_path)["index"]["files"] != file and tail(tmp_path) == []
    assert memory._keys_left.start == 2501 and memory._keys_left.truth.drawn_at == 2501
    loaded = rs.Memory.load(tmp_path)
    same(loaded, memory)
    for one in (1, 2):  # two generations before stay, then the files go
        loaded.relabel([20], one % 2)
        loaded.save(tmp_path)
    assert list(tmp_path.glob("keys-*")) == [] and holds(tmp_path, some(100, seed=4).keys, memory) == []


def test_many_small_saves_leave_few_files(tmp_path):
    memory = keyless()
    memory.save(tmp_path)
    for seed in range(9):
        memory.add(some(1, seed=seed))
        memory.save(tmp_path)
    assert tail(tmp_path) == [9] and len(list(tmp_path.iterdir())) < 20  # of three generations
    same(rs.Memory.load(tmp_path), memory)


def test_another_folder_gets_a_whole_index_and_the_first_one_still_saves(tmp_path):
    memory = keyless()
    memory.save(tmp_path / "a")
    memory.add(some(300, seed=1))
    memory.save(tmp_path / "b")
    assert tail(tmp_path / "b") == []
    memory.add(some(150, seed=2))
    memory.save(tmp_path / "b")
    assert tail(tmp_path / "b") == [150]
    memory.add(some(100, seed=3))  # 550 since the keys went, and their own are gone: the file, which lacks 250, is new
    memory.save(tmp_path / "b")
    assert tail(tmp_path / "b") == []
    same(rs.Memory.load(tmp_path / "b"), memory)


@pytest.mark.parametrize("how", ["compact", "purge", "discard"])
def test_no_key_is_left_in_the_folder(tmp_path, how):
    if how == "discard":
        memory = rs.Memory(some(2000), index="IVF16,SQ8")
        memory.save(tmp_path)
        memory.add(some(90, seed=1))
        memory.save(tmp_path)
        assert holds(tmp_path, some(90, seed=1).keys, memory) == list(range(90))
        memory.discard_keys()
        memory.save(tmp_path)
    else:
        memory = keyless()
        memory.save(tmp_path)
        memory.add(some(90, seed=1))
        memory.save(tmp_path)
        assert holds(tmp_path, some(90, seed=1).keys, memory) == list(range(90))
        if how == "compact":
            memory.forget([2050])
            memory.save(tmp_path)
            rs.Memory.compact(tmp_path)
        else:
            rs.Memory.load(tmp_path).purge(tmp_path, progress=False)
    keys = np.concatenate([some(2000).keys, some(90, seed=1).keys])
    assert holds(tmp_path, keys, memory) == [] and tail(tmp_path) == []
    loaded = rs.Memory.load(tmp_path)
    assert loaded.n_rows == 2090 and rs.Memory.verify(tmp_path).damaged == ()
    assert loaded.recall.value > 0.9 and len(loaded._keys_left.truth) == 128


def test_a_folder_of_an_earlier_version_is_read_and_saved(tmp_path):
    """It says nothing of queries or of keys that its index lacks."""
    from residua.folder import checksum

    memory = keyless()
    memory.save(tmp_path)
    said = manifest(tmp_path)
    (tmp_path / said.pop("truth")["file"]).unlink()
    del said["index"]["tail"]
    (tmp_path / "manifest.json").write_text(json.dumps(said | {"crc32": checksum(said)}))
    old = rs.Memory.load(tmp_path)
    assert old.recall == memory.recall and old.n_rows == 2000
    old.add(some(400, seed=1))
    old.save(tmp_path)
    again = rs.Memory.load(tmp_path)
    assert tail(tmp_path) == [400] and again.recall == memory.recall
    with pytest.warns(UserWarning, match="too few"):
        again.add(some(400, at=6.0, seed=2))
    assert again.recall.n == 2800


def test_an_undo_after_adds(tmp_path):
    memory = keyless()
    memory.save(tmp_path)
    memory.add(some(5, seed=1))
    memory.save(tmp_path)
    memory.undo()
    memory.forget([7])
    memory.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    loaded.undo()
    assert 7 in loaded and len(loaded) == 2000 and loaded.n_rows == 2005
    added = loaded.add(some(5, seed=1))
    assert loaded.search(some(5, seed=1).keys, 1).rows[:, 0].tolist() == list(range(2005, 2010))
    loaded.save(tmp_path)
    assert tail(tmp_path) == [10] and added.tolist() == list(range(2005, 2010))
    same(rs.Memory.load(tmp_path), loaded)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_copies_go_their_own_ways(tmp_path, copied):
    memory = keyless()
    memory.save(tmp_path)
    memory.add(some(20, seed=1))
    other = copied(memory)
    memory.add(some(5, seed=2))
    other.add(some(5, seed=3))
    memory.save(tmp_path)
    other.save(tmp_path.with_name("other"))
    for one, seed, folder in ((memory, 2, tmp_path), (other, 3, tmp_path.with_name("other"))):
        same(rs.Memory.load(folder), one)
        truth = some(5, seed=seed).keys
        assert rs.Memory.load(folder).search(truth, 1).rows[:, 0].tolist() == list(range(2020, 2025))
    assert tail(tmp_path) == [25]


@pytest.mark.parametrize("discarded", [True, False])
def test_a_copy_saves_into_the_same_folder(tmp_path, discarded):
    """The index file stays, and is still known to be ours."""
    memory = keyless() if discarded else rs.Memory(some(2000), index="IVF16,SQ8", storage="none")
    memory.save(tmp_path)
    other = copy.copy(memory)
    other.add(some(3, seed=1))
    other.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    assert loaded.search(some(3, seed=1).keys, 1).rows[:, 0].tolist() == [2000, 2001, 2002]


def test_what_was_added_here_is_put_on_top_of_what_others_saved(tmp_path):
    memory = keyless()
    memory.save(tmp_path)
    mine, theirs = rs.Memory.load(tmp_path), rs.Memory.load(tmp_path)
    theirs.add(some(20, seed=1))
    theirs.forget([4])
    theirs.save(tmp_path)
    mine.add(some(10, seed=2))
    mine.forget([5])
    assert mine.refresh() == dict(zip(range(2000, 2010), range(2020, 2030)))
    mine.save(tmp_path)
    assert len(mine) == 2028 and tail(tmp_path) == [30]
    assert mine.search(some(10, seed=2).keys, 1).rows[:, 0].tolist() == list(range(2020, 2030))
    same(rs.Memory.load(tmp_path), mine)
    theirs.add(some(600, seed=3))  # more than a quarter, so that their keys are gone
    mine.relabel([9], 1)
    mine.save(tmp_path)
    with pytest.raises(StorageError, match="does not keep the keys of its rows any more"):
        theirs.refresh()


def test_others_discarded_the_keys_meanwhile(tmp_path):
    rs.Memory(some(2000), index="IVF16,SQ8", storage="none").save(tmp_path)
    mine, theirs = rs.Memory.load(tmp_path), rs.Memory.load(tmp_path)
    theirs.discard_keys()
    theirs.save(tmp_path)
    mine.add(some(10, seed=2))
    mine.refresh()
    mine.save(tmp_path)
    assert not mine.keys_kept and tail(tmp_path) == [10]
    assert mine.search(some(10, seed=2).keys, 1).rows[:, 0].tolist() == list(range(2000, 2010))
    same(rs.Memory.load(tmp_path), mine)


def test_a_file_of_the_tail_that_is_damaged(tmp_path):
    memory = keyless()
    memory.save(tmp_path)
    memory.add(some(1100, seed=1)[:300])
    memory.save(tmp_path)
    name = manifest(tmp_path)["index"]["tail"][0]["file"]
    (tmp_path / name).write_bytes(b"")
    assert rs.Memory.verify(tmp_path).damaged == (name,)
    with pytest.raises(MemoryFileError, match="torn"):
        rs.Memory.load(tmp_path)
    memory.add(some(1, seed=2))
    memory.save(tmp_path)  # what is missing is written again
    assert rs.Memory.verify(tmp_path).damaged == () and tail(tmp_path) == [301]
    same(rs.Memory.load(tmp_path), memory)
