"""What a memory says of its size is what a process grows by."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import residua as rs
from residua.core import Head

ROWS = 200_000
CHILD = """
import ctypes, gc, sys
import numpy as np, torch, residua as rs

def own():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1])

def answered(folder):
    memory = rs.Memory.load(folder, trust=True)
    reader = rs.ResMem(memory, k=50, sigma=1.0)
    reader.predict(queries)
    return reader

queries = rs.Encoded(np.random.default_rng(1).normal(size=(1500, 32)), np.zeros((1500, 20), np.float32))
torch.set_num_threads(1)
answered(sys.argv[1])
before = own()
reader = answered(sys.argv[2])
print((own() - before) / reader.memory.n_rows, sum(reader.bytes_per_row.values()))
"""


def rows(n):
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((n, 32), dtype=np.float32)
    head = Head(torch.from_numpy(rng.standard_normal((20, 32), dtype=np.float32)))
    return rs.Encoded(keys, head(torch.from_numpy(keys)).numpy(), rng.integers(0, 20, n), head=head)


KINDS = {
    "full": ({}, False, False),
    "float16, some forgotten": ({"storage": "head", "key_dtype": "float16"}, True, False),
    "lists of codes": ({"storage": "head", "index": "IVF64,SQ8"}, True, True),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds of its own is read from /proc")
@pytest.mark.filterwarnings("ignore:index .* finds too few:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_process_grows_by_what_is_said(kind, tmp_path):
    options, forgetful, discards = KINDS[kind]
    if "index" in options:
        pytest.importorskip("faiss")
    for name, n in (("few", 5000), ("many", ROWS)):
        memory = rs.Memory(rows(n), **options)
        if forgetful:
            memory.forget(np.arange(0, n, 100))
        if discards:
            memory.discard_keys()
        memory.save(tmp_path / name)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "few"), str(tmp_path / "many")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured, said = map(float, done.stdout.split())
    assert measured == pytest.approx(said, rel=0.1)


def test_what_a_reader_keeps_is_said_by_it():
    memory = rs.Memory(rows(2000))
    reader = rs.ResMem(memory, k=5, sigma=1.0)
    assert reader.bytes_per_row == memory.bytes_per_row | {"reader": 0}
    reader.predict(rows(1000))
    assert reader.bytes_per_row["reader"] == 80
    memory.forget([0])
    assert memory.bytes_per_row["index"] == 4 * 32 + 8 + 1 - 1  # 1999 keys, whose they are, and flags; rounded down
