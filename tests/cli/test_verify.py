import json

import pytest

import residua as rs


def test_verify(run, mem):
    assert "files are whole: 60 rows" in run("verify", "mem").stdout
    run("add", "mem", "val.npz")
    manifest = json.loads((mem / "manifest.json").read_text())
    name = manifest["shards"][-1]["file"]
    (mem / name).write_bytes(b"")
    said = run("verify", "mem", code=1)
    assert f"damaged: {name}; 0 of 90 rows are whole; the earlier generation" in said.stdout
    assert "residua verify mem --repair" in said.stderr
    assert json.loads(run("verify", "mem", "--json", code=1).stdout)["whole"] == []
    assert "the folder is now its earlier generation" in run("verify", "mem", "--repair").stdout
    assert len(rs.Memory.load(mem)) == 60


def test_a_damaged_index_is_built_anew(run, mem):
    pytest.importorskip("faiss")
    run("build", "train.npz", "-o", "indexed", "--index", "IVF2,Flat")
    (file,) = mem.parent.joinpath("indexed").glob("index-*")
    file.write_bytes(b"")
    said = run("verify", "indexed", code=1)
    assert "the index can be built anew from the keys (repair)" in said.stdout
    assert "residua verify indexed --repair" in said.stderr and "nothing is lost" in said.stderr
    assert "the index was built anew from the keys, and nothing is lost" in run("verify", "indexed", "--repair").stdout
    assert "files are whole: 60 rows" in run("verify", "indexed").stdout


def test_compact(run, mem):
    run("add", "mem", "val.npz")
    assert run("compact", "mem").stdout.endswith(" now\n")
    found = json.loads(run("compact", "mem", "--json").stdout)
    assert found["bytes"] == sum(file.stat().st_size for file in mem.iterdir()) and len(rs.Memory.load(mem)) == 90
