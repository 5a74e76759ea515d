"""Builds in shards: what they make, how they are killed and go on, and what they refuse."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from residua import Encoded, Memory
from residua.core import AbsentLogits, Head, Source
from residua.errors import (
    EmptyMemoryError,
    InputError,
    MemoryFileError,
    NonFiniteError,
    ParameterError,
    SourceMismatchError,
    StorageError,
)
from residua.memory import build as building
from residua.memory.build import build

ROOT = Path(__file__).parents[2]


@dataclass
class Batch:
    labels: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray

    def __len__(self):
        return len(self.labels)


def text(rows=900, each=50, size=70, seed=0, vocabulary=40):
    """Batches of `each` rows of documents of `size` tokens."""
    rows = np.arange(rows)
    labels = np.random.default_rng(seed).integers(vocabulary, size=len(rows))
    for start in range(0, len(rows), each):
        part = rows[start : start + each]
        yield Batch(labels[part], part // size, part % size)


def keys_of(batch, dim=16):
    """Clustered keys that depend on the row alone."""
    rows = batch.ids * 1000 + batch.offsets
    noise = np.stack([np.random.default_rng(row).normal(size=dim) for row in rows])
    centres = np.random.default_rng(1).normal(size=(40, dim)) * 4
    return (centres[batch.labels] + noise).astype(np.float32)


def encode(batch):
    return Encoded(
        keys_of(batch),
        AbsentLogits(len(batch), 40),
        batch.labels,
        batch.ids,
        columns={"offset": batch.offsets},
        source=Source("fake", "ffn"),
    )


HEAD = Head(torch.from_numpy(np.random.default_rng(2).normal(size=(40, 16)).astype(np.float32)), torch.ones(40))


def encode_logits(batch):
    keys = keys_of(batch)
    columns = {"offset": batch.offsets}
    return Encoded(keys, HEAD(torch.from_numpy(keys)).numpy(), batch.labels, batch.ids, columns=columns, head=HEAD)


def quiet(path, batches=None, encode=encode, **options):
    options = {"index": "exact", "shard_rows": 120, "progress": False} | options
    return build(text() if batches is None else batches, encode, path, **options)


def assert_same(one: Memory, other: Memory):
    assert one.schema.to_json() == other.schema.to_json() and len(one) == len(other)
    for name in ("label", "id", *one.schema.columns):
        assert torch.equal(one.column(name)[:], other.column(name)[:]), name
    assert not one.keys_kept or (one.keys == other.keys).all()
    assert one.logits is None or torch.equal(one.logits.dense(), other.logits.dense())
    assert (one.names, one.about, one.task, one.n_outputs) == (other.names, other.about, other.task, other.n_outputs)
    queries = keys_of(next(text(seed=9)))
    one, other = one.search(queries, 20), other.search(queries, 20)
    assert torch.equal(one.rows, other.rows) and torch.equal(one.distances, other.distances)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["none", "full", "head", "top-m"])
@pytest.mark.parametrize("key_dtype", ["float32", "float16"])
def test_it_is_the_memory_of_the_same_rows(tmp_path, storage, key_dtype):
    options = {"storage": storage, "m": 5, "key_dtype": key_dtype, "about": {"window": 8}, "names": {0: "a", 3: "d"}}
    built = quiet(tmp_path / "m", encode=encode_logits, **options)
    assert_same(built, Memory(map(encode_logits, text()), index="exact", **options))
    assert len(json.loads((tmp_path / "m/manifest.json").read_text())["shards"]) == 6  # of 150 rows each
    if storage != "none":
        assert torch.equal(
            built.logits.dense(torch.arange(9)), Memory.load(tmp_path / "m").logits.dense(torch.arange(9))
        )


def test_it_can_be_changed_and_saved_like_any_other(tmp_path):
    memory = quiet(tmp_path, index="IVF8,SQ8")
    assert memory.schema.is_text and memory.context(75, 3).tolist() == memory.labels[72:75].tolist()
    memory.forget([2])
    memory.add(encode(Batch(np.array([1, 2]), np.array([900, 900]), np.array([0, 1]))))
    memory.save(tmp_path)
    assert_same(Memory.load(tmp_path), memory)
    assert len(memory) == 900 - 70 + 2


def test_logits_are_recomputed_from_codes_where_keys_are_dropped(tmp_path):
    pytest.importorskip("faiss")
    options = {"encode": encode_logits, "storage": "head", "index": "IVF8,SQ8", "train_rows": 300}
    kept = quiet(tmp_path / "kept", **options).logits.dense()
    dropped = quiet(tmp_path / "dropped", keep_keys=False, **options).logits.dense()
    assert (dropped - kept).square().mean() < 1e-3 * kept.var() and not torch.equal(dropped, kept)


def test_dropped_keys_leave_the_index_alone(tmp_path):
    kept = quiet(tmp_path / "kept", index="IVF8,SQ8", train_rows=300)
    dropped = quiet(tmp_path / "dropped", index="IVF8,SQ8", train_rows=300, keep_keys=False)
    assert not dropped.keys_kept and "key" not in dropped.bytes_per_row and len(dropped) == 900
    assert dropped.index.n == 900 and dropped.recall.value > 0.9
    assert dropped.labels.tolist() == kept.labels.tolist() and dropped.ids.tolist() == kept.ids.tolist()
    queries = keys_of(next(text(seed=9)))
    near, far = dropped.search(queries, 10), kept.search(queries, 10)
    assert (near.distances - far.distances).abs().median() < 0.05  # SQ8 rounds, and clips to what it was trained on
    assert dropped.median_nn_distance() == pytest.approx(kept.median_nn_distance(), rel=0.2)
    names = [file.name for file in (tmp_path / "dropped").iterdir()]
    assert not [name for name in names if "-keys-" in name or name == "build.json"]
    assert sum(name.startswith("index-") for name in names) == 1


def test_the_folder_never_holds_more_than_the_waiting_keys(tmp_path, monkeypatch):
    most, written = [], building.BuildState.write

    def watched(state, path):
        written(state, path)
        most.append(sum(file.stat().st_size for file in path.glob("*-keys-*")))

    monkeypatch.setattr(building.BuildState, "write", watched)
    quiet(tmp_path, index="IVF8,SQ8", train_rows=300, keep_keys=False)
    assert max(most) == most[2] and most.count(0) >= 2 and max(most) < (300 + 2 * 100) * 16 * 4


def test_too_few_rows_for_a_trained_index_keep_their_keys(tmp_path):
    with pytest.warns(UserWarning, match="900 rows are too few for index 'knnlm': it is exact and needs the keys"):
        memory = quiet(tmp_path, index="knnlm", keep_keys=False)
    assert memory.keys_kept
    assert_same(memory, Memory(map(encode, text()), index="exact", storage="none"))
    assert_same(memory, Memory.load(tmp_path))


# --- killed --------------------------------------------------------------------------------------------------


def killed(*arguments):
    """The report of builds that are forked and killed, in a process of one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "stress.killed_builds", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("keys", ["keep", "drop"])
@pytest.mark.slow
def test_killed_before_every_step_on_disk(keys):
    """SIGKILL before each rename, flush, write and removal in turn; the next call makes the same memory."""
    report = killed("--how", "each", "--keys", keys)
    assert report["kills before each step"] >= 15 and report["different"] == [] and report["left"] == []


@pytest.mark.slow
def test_killed_at_random_moments_again_and_again():
    """``stress/results/killed_builds.json`` has more."""
    report = killed("--how", "random", "--kills", "12")
    assert report["kills at random"] >= 12 and report["different"] == [] and report["left"] == []


class Stop(Exception):
    pass


def broken(after, encode=encode):
    """An encode that fails after some batches; and how often it was called."""
    calls = []

    def failing(batch):
        if len(calls) == after:
            raise Stop
        calls.append(batch)
        return encode(batch)

    return failing, calls


def test_an_error_keeps_what_is_on_disk_and_it_is_not_encoded_again(tmp_path):
    failing, _ = broken(10)
    with pytest.raises(Stop):
        quiet(tmp_path, encode=failing)
    counting, calls = broken(-1)
    memory = quiet(tmp_path, encode=counting)
    assert len(calls) == 18 - 9  # three shards of three batches were on disk
    assert_same(memory, Memory(map(encode, text()), index="exact", storage="none"))


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["head", "top-m", "full"])
def test_resumed_when_all_rows_are_on_disk(tmp_path, storage, monkeypatch):
    """Nothing is encoded any more, and the head is not lost."""

    def fail(*args, **kwargs):
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(building.store, "write_manifest", fail)
        quiet(tmp_path, encode=encode_logits, storage=storage)
    never, _ = broken(0)
    memory = quiet(tmp_path, encode=never, storage=storage)
    assert_same(memory, Memory(map(encode_logits, text()), index="exact", storage=storage))
    reference = Memory(map(encode_logits, text()), index="exact", storage=storage)
    assert torch.equal(memory.logits.dense(torch.arange(900)), reference.logits.dense(torch.arange(900)))


def stopped(path, after=10, **options):
    failing, _ = broken(after)
    with pytest.raises(Stop):
        quiet(path, encode=failing, **options)


def test_other_text_is_refused(tmp_path):
    stopped(tmp_path)
    other = list(text())
    other[4].labels[7] += 1
    message = r"tokens 150 to 299 \(documents 2 to 4\) are not those that the unfinished build began with"
    with pytest.raises(InputError, match=message):
        quiet(tmp_path, other)
    with pytest.raises(InputError, match="the text ends after 200 tokens, and the unfinished build holds 450"):
        quiet(tmp_path, text(200))
    with pytest.raises(ParameterError, match="in other batches"):
        quiet(tmp_path, text(each=40))
    assert_same(quiet(tmp_path / "a"), quiet(tmp_path / "b"))


def test_the_same_text_in_batches_that_meet_is_accepted(tmp_path):
    stopped(tmp_path)
    assert_same(quiet(tmp_path, text(each=25)), quiet(tmp_path / "other"))


def test_other_settings_are_refused_or_start_over(tmp_path):
    stopped(tmp_path)
    with pytest.raises(ParameterError, match=r"key_dtype='float16' \(there 'float32'\).*overwrite=True to start over"):
        quiet(tmp_path, key_dtype="float16")
    memory = quiet(tmp_path, key_dtype="float16", overwrite=True)
    assert_same(memory, Memory(map(encode, text()), index="exact", storage="none", key_dtype="float16"))
    assert sum(file.name.startswith("rows-") for file in tmp_path.iterdir()) == 6


def test_another_model_is_refused(tmp_path):
    stopped(tmp_path)

    def other(batch):
        encoded = encode(batch)
        encoded.source = Source("other", "head")
        return encoded

    with pytest.raises(SourceMismatchError, match="made by fake"):
        quiet(tmp_path, encode=other)


def test_a_finished_memory_is_replaced_only_when_asked_and_when_complete(tmp_path):
    first = quiet(tmp_path)
    with pytest.raises(MemoryFileError, match="holds a finished memory"):
        quiet(tmp_path, text(300))
    stopped(tmp_path, overwrite=True, batches=text(seed=3))
    assert_same(Memory.load(tmp_path), first)
    second = quiet(tmp_path, text(seed=3), overwrite=True)
    assert_same(second, quiet(tmp_path.with_name("replaced"), text(seed=3)))
    assert len(list(tmp_path.iterdir())) == 6 + 3  # the manifest, its log and the lock


def test_foreign_and_unreadable_folders(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(MemoryFileError, match="holds files that are not a memory's"):
        quiet(tmp_path)
    (tmp_path / "thesis.txt").unlink()
    stopped(tmp_path)
    whole = (tmp_path / "build.json").read_text()
    for torn in (whole[:40], "[]", whole.replace('"format": 2', '"format": 9')):
        (tmp_path / "build.json").write_text(torn)
        with pytest.raises(MemoryFileError, match=r"build\.json"):
            quiet(tmp_path)
    (tmp_path / "build.json").write_text(whole)
    quiet(tmp_path)
    (tmp_path.with_name("file")).write_text("")
    with pytest.raises(MemoryFileError, match="cannot write"):
        quiet(tmp_path.with_name("file") / "m")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["put_rows", "write_manifest", "put_tensors", "state"])
def test_a_full_disk_loses_nothing(tmp_path, what, monkeypatch):
    def full(*args, **kwargs):
        if calls.append(1) or len(calls) > (3 if what != "write_manifest" else 0):
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    calls = []
    places = {"state": (building.BuildState, "write")}
    place, name = places.get(what, (building.files if what == "put_tensors" else building.store, what))
    real = getattr(place, name)
    options = {"index": "IVF8,SQ8", "keep_keys": False, "train_rows": 300}
    with monkeypatch.context() as patch:
        patch.setattr(place, name, full)
        with pytest.raises(
            MemoryFileError, match=r"No space left on device; \d+ rows are safe, and the same call goes"
        ):
            quiet(tmp_path / "a", **options)
    one, other = quiet(tmp_path / "a", **options), quiet(tmp_path / "b", **options)
    assert_same(one, other)


def test_nothing_and_nonsense(tmp_path):
    with pytest.raises(EmptyMemoryError, match="no rows"):
        quiet(tmp_path, iter([]))
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]
    with pytest.raises(ParameterError, match="takes an index by its name"):
        quiet(tmp_path, index=Memory(encode(next(text())), storage="none").index)
    with pytest.raises(ParameterError, match="not a FAISS factory string"):
        quiet(tmp_path.with_name("unknown"), index="no such index")  # known with the first batch
    with pytest.raises(ParameterError, match="shard_rows=0"):
        quiet(tmp_path, shard_rows=0)
    with pytest.raises(StorageError, match="an exact index searches the keys"):
        quiet(tmp_path, keep_keys=False)
    with pytest.raises(InputError, match="other labels or ids"):
        quiet(tmp_path, encode=lambda batch: encode(Batch(batch.labels[::-1], batch.ids, batch.offsets)))

    def infinite(batch):
        encoded = encode(batch)
        encoded.keys[3] *= 1e5
        return encoded

    with pytest.raises(NonFiniteError, match="do not fit float16"):
        quiet(tmp_path.with_name("infinite"), encode=infinite, key_dtype="float16")


def test_progress_counts_tokens(tmp_path, capfd):
    stopped(tmp_path)
    quiet(tmp_path, progress=True, total=900)
    assert "900/900" in capfd.readouterr().err


def test_a_build_of_normalised_keys(tmp_path):
    made = build(text(), encode, tmp_path / "unit", normalise=True)
    plain = build(text(), encode, tmp_path / "plain")
    assert made.schema.normalise and not plain.schema.normalise
    np.testing.assert_allclose(made.keys, plain.keys / np.linalg.norm(plain.keys, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"index": "IVF8,SQ8", "keep_keys": False, "train_rows": 300}])
def test_what_a_kill_loses_is_bounded_by_time(tmp_path, options):
    """Whenever rows go to disk, the memory is the same."""
    stopped(tmp_path / "often", after=4, checkpoint_every=1e-9, **options)
    stopped(tmp_path / "often", after=1, checkpoint_every=1e-9, **options)
    counting, calls = broken(-1)
    memory = quiet(tmp_path / "often", encode=counting, checkpoint_every=3600, **options)
    assert len(calls) == 18 - 5  # nothing was lost
    assert_same(memory, quiet(tmp_path / "never", checkpoint_every=3600, **options))
    assert len(list((tmp_path / "often").iterdir())) == len(list((tmp_path / "never").iterdir()))


def test_rows_of_an_unfinished_shard_are_compared_too(tmp_path):
    stopped(tmp_path, after=2, checkpoint_every=1e-9)
    other = list(text())
    other[1].labels[7] += 1
    with pytest.raises(InputError, match=r"tokens 50 to 99 .* are not those that the unfinished build began with"):
        quiet(tmp_path, other)
    with pytest.raises(InputError, match="the text ends after 50 tokens, and the unfinished build holds 100"):
        quiet(tmp_path, text(50))
    with pytest.raises(ParameterError, match="key_dtype"):
        quiet(tmp_path, key_dtype="float16")
    with pytest.raises(ParameterError, match="checkpoint_every=0; expected a number of seconds"):
        quiet(tmp_path, checkpoint_every=0)


def test_one_build_in_a_folder_at_a_time(tmp_path):
    def another(batch):
        with pytest.raises(
            MemoryFileError, match=r"another process or thread is writing to .* at this moment; wait until it ends"
        ):
            quiet(tmp_path)
        return encode(batch)

    assert_same(quiet(tmp_path, encode=another), quiet(tmp_path.with_name("other")))


def test_a_bar_says_that_the_index_is_trained(tmp_path, capfd):
    quiet(tmp_path, progress=True, index="IVF8,SQ8")
    assert "training the index IVF8,SQ8" in capfd.readouterr().err


def test_what_was_built_may_stay_in_its_files(tmp_path):
    assert_same(build(text(), encode, tmp_path / "mapped", mmap=True), build(text(), encode, tmp_path / "read"))
    with pytest.raises(ParameterError, match="mmap=True with device='meta'"):
        build(text(), encode, tmp_path / "new", device="meta", mmap=True)
    assert not (tmp_path / "new").exists()  # said before the text is read
