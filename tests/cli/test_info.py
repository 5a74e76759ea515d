import json

import pytest

import residua as rs


def test_numbers(run, mem):
    rs.ResMem(rs.Memory.load(mem), k=4, sigma=0.8).save(mem)
    run("forget", "mem", "--id", 1, "--id", 2)
    data = json.loads(run("info", "mem", "--json").stdout)
    memory = rs.Memory.load(mem)
    assert (data["rows"], data["forgotten"], data["dim"], data["outputs"]) == (58, 2, 2, 3)
    assert data["bytes_per_row"] == memory.bytes_per_row
    assert data["bytes_on_disk"] == sum(file.stat().st_size for file in mem.iterdir())
    assert (data["index"], data["exact"], data["recall"], data["source"]) == ("exact", True, None, None)
    assert data["storage"] == {"name": "full"}
    assert data["reader"] == {"name": "ResMem", "params": rs.load(mem).params}


def test_words(run, mem):
    out = run("info", "mem").stdout
    assert out.startswith("mem\n  task           classification, 3 outputs\n  rows           60\n")
    assert "none saved; run residua tune" in out and "unknown" in out
    run("forget", "mem", "--id", 1)
    assert "59 (1 forgotten ones still in the files)" in run("info", "mem").stdout


def test_source_storage_and_recall(run, here):
    pytest.importorskip("faiss")
    run("encode", "net:both", "-o", "a.npz")
    words = ["build", "a.npz", "-o", "memory", "--index", "IVF2,Flat", "--index-param", "nprobe=2"]
    run(*words, "--storage", "top-m", "--m", 2)
    out = run("info", "memory").stdout
    assert "Sequential (float32), key 2:input" in out
    assert "IVF2,Flat, recall@50 = 1.000" in out and "top-m (m=2, temperature=1)" in out


def test_a_torn_folder(run, mem):
    shard = next(mem.glob("rows-*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "it is torn" in run("info", "mem", code=1).stderr
