import json
from pathlib import Path

import pytest

import residua as rs
from residua.folder import MANIFEST, checksum, read_manifest

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "v0_1"


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
    assert "59 (1 more are forgotten)" in run("info", "mem").stdout


def test_source_storage_and_recall(run, here):
    pytest.importorskip("faiss")
    run("encode", "net:both", "-o", "a.npz")
    words = ["build", "a.npz", "-o", "memory", "--index", "IVF2,Flat", "--index-param", "nprobe=2"]
    run(*words, "--storage", "top-m", "--m", 2)
    out = run("info", "memory").stdout
    assert "Sequential (float32), key 2:input" in out
    assert "IVF2,Flat, recall@50 = 1.000" in out and "top-m (m=2, temperature=1)" in out


@pytest.mark.parametrize("name", ["resmem-edited-top-m", "knnlm-gate", "tokens-adaptive", "source-torch"])
def test_a_folder_of_0_1_is_shown_as_it_is_when_saved_again(run, here, name):
    old = json.loads(run("info", OLD / name, "--json").stdout)
    rs.load(OLD / name).save(here / "new")
    assert "summary" in read_manifest(here / "new") and "summary" not in read_manifest(OLD / name)
    new = json.loads(run("info", "new", "--json").stdout)
    assert "gate" not in old["reader"]["params"]
    del old["bytes_on_disk"], new["bytes_on_disk"]
    for name in ("class_weight", "base_weight", "residual_weight"):  # which 0.1 did not know
        assert new["reader"]["params"].pop(name, None) is None
    assert old == new


def test_what_comes_next(run, mem):
    assert "next: residua tune mem VALIDATION.npz" in run("info", "mem").stderr
    run("tune", "mem", "val.npz", "--k", 3)
    assert "next: residua evaluate mem TEST.npz" in run("info", "mem").stderr


def described(mem, reader):
    manifest = read_manifest(mem) | {"reader": reader}
    (mem / MANIFEST).write_text(json.dumps(manifest | {"crc32": checksum(manifest)}))


def test_a_reader_of_a_class_that_is_not_imported_is_shown(run, mem):
    described(mem, {"reader": "Votes", "module": "votes", "params": {"weight": 0.5}})
    assert "Votes(weight=0.5)" in run("info", "mem").stdout
    described(mem, [])
    assert "manifest.reader is list" in run("info", "mem", code=1).stderr


def test_a_torn_folder(run, mem):
    shard = next(mem.glob("rows-*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "it is torn" in run("info", "mem", code=1).stderr
