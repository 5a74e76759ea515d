"""Shards written one by one become a memory by a manifest; folders of the first format are read."""

import json
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import residua as rs
from residua.errors import MemoryFileError, ParameterError
from residua.folder import MANIFEST
from residua.memory.run_length import RunLengthArray
from residua.memory.schema import Schema
from residua.memory.store import Contents, get_rows, put_rows, write_manifest

WANTED = {"index": "exact", "params": None, "overfetch": 4}


def text(documents, seed=0):
    """30 tokens of each document."""
    rng = np.random.default_rng(seed)
    n = 30 * len(documents)
    ids, columns = np.repeat(documents, 30), {"offset": np.tile(np.arange(30), len(documents))}
    return rs.Encoded(rng.normal(size=(n, 3)), rng.normal(size=(n, 50)), rng.integers(0, 50, n), ids, columns=columns)


def columns_of(batch):
    return Schema.of(batch).rows(batch, batch.ids)


def test_a_shard_comes_back(tmp_path):
    rows = columns_of(text([3, 8]))
    rows["column.scattered"] = torch.arange(60) ** 2
    rows["column.box"] = torch.ones(60, 2, dtype=torch.int64)
    shard = put_rows(tmp_path, "rows-a.safetensors", rows)
    assert (shard["rows"], shard["file"]) == (60, "rows-a.safetensors")
    stored = load_file(tmp_path / "rows-a.safetensors")
    assert "id" not in stored and "active" not in stored and "edited" not in stored
    assert stored["id#first"].tolist() == [3, 8] and stored["column.offset#start"].tolist() == [0, 30]
    back = get_rows(tmp_path, json.loads(json.dumps(shard)))
    assert set(back) == set(rows) - {"active", "edited"}
    for name, column in back.items():
        dtype = torch.int32 if name == "label" else rows[name].dtype  # of 50 classes a table holds int8
        assert torch.equal(column[:], rows[name]) and column.dtype == dtype, name
    assert isinstance(back["id"], RunLengthArray) and isinstance(back["column.scattered"], torch.Tensor)
    with pytest.raises(MemoryFileError, match="corrupted"):
        get_rows(tmp_path, shard | {"crc32": 1})


def test_shards_and_a_manifest_are_a_memory(tmp_path):
    parts = [text([3, 8], 0), text([5], 1), text([90, 91, 92], 2)]
    whole = rs.Memory(parts, storage="none", about={"window": 256}, names={3: "three", 90: "ninety"})
    shards = []
    for number, part in enumerate(parts):
        shards.append(put_rows(tmp_path, f"rows-{number:05}.safetensors", whole.schema.rows(part, part.ids)))
    more = {"next_id": 93, "about": {"window": 256}, "names": whole.names}
    contents = Contents(whole.schema, whole.storage, WANTED, **more)
    (tmp_path / "rows-left.safetensors").write_bytes(b"a killed call's")
    write_manifest(tmp_path, "a", contents, whole.index, shards)
    loaded = rs.Memory.load(tmp_path)
    assert loaded.schema.is_text and (loaded.about, loaded.names) == ({"window": 256}, {3: "three", 90: "ninety"})
    assert (loaded.keys == whole.keys).all() and loaded.labels.tolist() == whole.labels.tolist()
    assert loaded.ids.tolist() == whole.ids.tolist()
    queries = np.random.default_rng(9).normal(size=(20, 3))
    assert torch.equal(loaded.search(queries, 7).rows, whole.search(queries, 7).rows)
    assert not (tmp_path / "rows-left.safetensors").exists()
    loaded.forget(8)
    loaded.add(text([100], 3))
    loaded.save(tmp_path)
    assert len(list(tmp_path.glob("rows-*"))) == 4
    again = rs.Memory.load(tmp_path)
    assert (
        again.ids.tolist() == loaded.ids.tolist()
        and again.context(100, 50).tolist() == loaded.context(100, 50).tolist()
    )


def test_names_and_about_are_saved(tmp_path):
    data = text([3, 8])
    memory = rs.Memory(data, about={"window": 256, "files": ["a", "b"]}, names={3: "Émile", 2**40: "far"})
    memory.save(tmp_path)
    memory.names[8] = "eight"
    memory.about["more"] = None
    memory.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    assert (loaded.names, loaded.about) == (memory.names, memory.about)
    file = tmp_path / json.loads((tmp_path / MANIFEST).read_text())["names"]["file"]
    assert len(list(tmp_path.glob("names-*"))) == 2  # that of the save before, too
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(MemoryFileError, match=f"{file.name} has .* torn"):
        rs.Memory.load(tmp_path)
    plain = rs.Memory(data)
    assert (plain.names, plain.about) == ({}, {})
    plain.save(tmp_path)
    assert not list(tmp_path.glob("names-*")) and rs.Memory.load(tmp_path).names == {}
    for bad in ({"about": {"set": {1}}}, {"about": {"array": np.ones(2)}}, {"names": {"3": "x"}}, {"names": {3: 4}}):
        with pytest.raises(ParameterError, match=next(iter(bad))):
            rs.Memory(data, **bad)


def test_folders_of_the_first_format(tmp_path):
    """Dense int64 ids, columns and labels, and shards that do not say how many rows they hold."""
    new = rs.Memory([text([3, 8])], storage="none")
    new.forget([8])
    new.relabel(3, 7)
    new.save(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    shard, edits = tmp_path / manifest["shards"][0]["file"], tmp_path / manifest["edits"][0]["file"]
    keys = new.keys_at(torch.arange(60))
    dense = {"key": keys, "label": torch.full((60,), 1), "id": new.column("id")[:]}
    save_file(dense | {"column.offset": new.column("offset")[:]}, shard)
    edited = {"edited": torch.arange(30), "label": torch.full((30,), 7), "forgotten": torch.arange(30, 60)}
    save_file(edited, edits)
    manifest["edits"] = manifest["edits"][0]
    for file, about in [(shard, manifest["shards"][0]), (edits, manifest["edits"])]:
        about |= {"bytes": file.stat().st_size, "crc32": zlib.crc32(file.read_bytes())}
    del manifest["shards"][0]["rows"]
    for name in ("keys_kept", "median_nn_distance", "about", "crc32"):
        del manifest[name]
    schema = manifest.pop("schema")
    manifest |= {
        "format": 1,
        **{n: schema[n] for n in ("task", "dim", "n_outputs", "flat_labels", "source", "storage")},
    }
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"crc32": zlib.crc32(json.dumps(manifest).encode())}))
    old = rs.Memory.load(tmp_path)
    assert old.labels.tolist() == [7] * 30 and old.ids.tolist() == [3] * 30
    assert old.column("label").dtype == torch.int8 and isinstance(old.column("id"), RunLengthArray)
    assert (old.schema.key_dtype, old.keys_kept, old.about, old.names) == ("float32", True, {}, {})
    assert torch.equal(old.search([[0.0] * 3], 9).rows, new.search([[0.0] * 3], 9).rows)
    old.add(text([9]))
    old.save(tmp_path)
    assert json.loads((tmp_path / MANIFEST).read_text())["format"] == 4
    assert rs.Memory.load(tmp_path).ids.tolist() == [3] * 30 + [9] * 30
