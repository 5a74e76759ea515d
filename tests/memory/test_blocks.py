"""A memory that many processes build together is the one that a single process builds."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from residua import Memory
from residua.errors import EmptyMemoryError, InputError, MemoryFileError, ParameterError
from residua.memory import blocks
from residua.memory.build import build
from tests.memory.test_build import assert_same, encode, encode_logits, quiet, text

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "EACH", 2)


def together(path, workers=3, encode=encode, batches=text, **options):
    """What each of several threads returned, or raised."""
    found: list = [None] * workers

    def work(which):
        try:
            found[which] = quiet(path, batches, encode=encode, together=True, **options)
        except Exception as error:  # noqa: BLE001 (it is looked at)
            found[which] = error

    threads = [threading.Thread(target=work, args=(which,)) for which in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("options", [{}, {"index": "IVF8,SQ8", "keep_keys": False, "train_rows": 300}])
def test_all_return_the_memory_that_one_builds(tmp_path, options):
    alone = quiet(tmp_path / "alone", **options)
    encoded = []

    def counted(batch):
        encoded.append(int(batch.offsets[0]) + 70 * int(batch.ids[0]))
        return encode(batch)

    for memory in together(tmp_path / "m", encode=counted, **options):
        if isinstance(memory, MemoryFileError):
            assert "finished memory" in str(memory)  # one that came when all was done
        else:
            assert_same(memory, alone)
    assert not (tmp_path / "m.blocks").exists()
    assert sorted(set(encoded)) == [50 * i for i in range(18)]
    assert len(encoded) <= 18 + 3  # each batch once, and the first by everybody


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["full", "head", "top-m"])
def test_what_the_model_said_is_shared_too(tmp_path, storage):
    alone = quiet(tmp_path / "alone", encode=encode_logits, storage=storage, m=5)
    found = [one for one in together(tmp_path / "m", 2, encode_logits, storage=storage, m=5) if isinstance(one, Memory)]
    assert found
    for memory in found:
        assert_same(memory, alone)


def test_what_one_has_begun_another_goes_on_with(tmp_path):
    calls = []

    def breaks(batch):
        calls.append(1)
        if len(calls) > 7:
            raise RuntimeError("killed")
        return encode(batch)

    with pytest.raises(RuntimeError):
        quiet(tmp_path / "m", text, encode=breaks, together=True)
    made = len(list((tmp_path / "m.blocks").glob("rows-*")))
    assert made == 3

    calls.clear()

    def counted(batch):
        calls.append(1)
        return encode(batch)

    assert_same(quiet(tmp_path / "m", text, encode=counted, together=True), quiet(tmp_path / "alone"))
    assert len(calls) == 1 + 18 - 2 * made


def test_other_texts_and_settings_are_refused(tmp_path):
    def breaks(batch, left=[7]):  # noqa: B006 (it counts)
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("killed")
        return encode(batch)

    with pytest.raises(RuntimeError):
        quiet(tmp_path / "m", text, encode=breaks, together=True)
    with pytest.raises(InputError, match="another text"):
        quiet(tmp_path / "m", lambda: text(seed=3), together=True)
    with pytest.raises(ParameterError, match="other settings: key_dtype"):
        quiet(tmp_path / "m", text, together=True, key_dtype="float16")
    with pytest.raises(ParameterError, match="a function that makes them"):
        quiet(tmp_path / "m", text(), together=True)
    with pytest.raises(EmptyMemoryError):
        quiet(tmp_path / "m", lambda: iter(()), together=True)


def test_a_finished_memory_is_not_built_again(tmp_path):
    quiet(tmp_path / "m", text, together=True)
    with pytest.raises(MemoryFileError, match="finished memory"):
        quiet(tmp_path / "m", text, together=True)
    changed = quiet(tmp_path / "m", lambda: text(seed=3), together=True, overwrite=True)
    assert_same(changed, quiet(tmp_path / "alone", text(seed=3)))


def test_a_damaged_block_is_said(tmp_path):
    def breaks(batch, left=[7]):  # noqa: B006 (it counts)
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("killed")
        return encode(batch)

    with pytest.raises(RuntimeError):
        quiet(tmp_path / "m", text, encode=breaks, together=True)
    rows = sorted((tmp_path / "m.blocks").glob("rows-*"))[0]
    rows.write_bytes(rows.read_bytes()[:-1] + b"x")
    with pytest.raises(MemoryFileError, match="corrupted"):
        quiet(tmp_path / "m", text, together=True)


@pytest.mark.parametrize("step", ["make_folder", "FileLock", "write_json"])
def test_the_blocks_may_go_while_a_slow_worker_joins(tmp_path, monkeypatch, step):
    """Another one has then built the memory."""
    real, joining, gone, found = getattr(blocks, step), threading.Event(), threading.Event(), []

    def slowly(*args, **kwargs):
        if threading.current_thread() is slow and not joining.is_set():
            joining.set()
            assert gone.wait(60)
        return real(*args, **kwargs)

    monkeypatch.setattr(blocks, step, slowly)
    slow = threading.Thread(target=lambda: found.append(quiet(tmp_path / "m", text, together=True)))
    slow.start()
    assert joining.wait(60)
    if step == "write_json":  # the slow one holds the lock by which others would wait for it
        (tmp_path / "m.blocks" / "begun.lock").unlink()
    quick = quiet(tmp_path / "m", text, together=True)
    gone.set()
    slow.join(60)
    assert_same(found[0], quick)
    assert not (tmp_path / "m.blocks").exists()


@pytest.mark.slow
def test_workers_that_are_killed_leave_their_work_to_others():
    """``stress/results/killed_workers.json`` has more."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "stress.killed_workers", "--kills", "6"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] >= 6 and report["different"] == [] and report["left"] == []


def test_the_first_process_decides_where_keys_are_centred(tmp_path):
    """Keys of another machine may differ in their last bits; what they are measured from may not."""

    def shifted(batch):
        rows = encode(batch)
        rows.keys += np.float32(1e-3)
        return rows

    def breaks(batch, left=[1]):  # noqa: B006 (it counts)
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("killed")
        return encode(batch)

    with pytest.raises(RuntimeError):
        build(text, breaks, tmp_path / "m", index="exact", progress=False, together=True)
    memory = build(text, shifted, tmp_path / "m", index="exact", progress=False, together=True)
    alone = quiet(tmp_path / "alone")
    assert (memory.schema.key_centre == alone.schema.key_centre).all()
    assert np.allclose(memory.keys, alone.keys + 1e-3, atol=1e-5)
