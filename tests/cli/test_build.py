import json
from pathlib import Path

import numpy as np
import pytest

import residua as rs
from residua.folder import has_reader


def test_build_is_the_verb_of_the_library(run, encoded):
    done = run("build", "train.npz", "val.npz", "-o", "out", "--json")
    said = json.loads(done.stdout)
    assert said.pop("bytes_on_disk") == sum(file.stat().st_size for file in Path("out").iterdir())
    assert said == {
        "rows": 90,
        "documents": None,
        "index": "exact",
        "storage": "full",
        "key": None,
        "key_dtype": "float32",
        "output": "out",
        "recall": None,
    }
    memory = rs.Memory.load("out")
    assert memory.ids.tolist() == list(range(90))
    np.testing.assert_array_equal(memory.labels, np.concatenate([encoded["train"].labels, encoded["val"].labels]))


def test_storage_options_arrive(run, encoded):
    kept = ["--storage", "top-m", "--m", 2, "--temperature", 1.5, "--key-dtype", "bfloat16"]
    run("build", "train.npz", "-o", "out", *kept)
    memory = rs.Memory.load("out")
    storage = memory.storage
    assert memory.schema.key_dtype == "bfloat16"
    assert (storage.name, storage.m, storage.temperature) == ("top-m", 2, 1.5)


def test_keys_are_normalised_when_told(run, encoded):
    done = run("build", "train.npz", "-o", "out", "--normalise")
    assert "normalised (cosine), kept as float32" in done.stdout
    assert rs.Memory.load("out").schema.normalise


def test_index_options_arrive(run, encoded):
    pytest.importorskip("faiss")
    done = run("build", "train.npz", "-o", "out", "--index", "IVF2,Flat", "--index-param", "nprobe=2", "--overfetch", 8)
    assert "IVF2,Flat, recall@50 = 1.000" in done.stdout
    index = rs.Memory.load("out").index
    assert (index.name, index.params["nprobe"], index.overfetch) == ("IVF2,Flat", 2, 8)


@pytest.mark.parametrize("text", ["nprobe", "nprobe=", "nprobe=many"])
def test_index_parameters_are_numbers(run, encoded, text):
    done = run("build", "train.npz", "-o", "out", "--index", "IVF2,Flat", "--index-param", text, code=1)
    assert "expected NAME=NUMBER" in done.stderr


def test_a_memory_is_replaced_only_when_told(run, mem, here):
    rs.ResMem(rs.Memory.load(mem), k=3).save(mem)
    assert "--overwrite" in run("build", "val.npz", "-o", "mem", code=1).stderr
    assert len(rs.Memory.load(mem)) == 60 and has_reader(mem)
    run("build", "val.npz", "-o", "mem", "--overwrite")
    assert len(rs.Memory.load(mem)) == 30 and not has_reader(mem)


def test_a_folder_of_other_things_is_refused(run, encoded, here):
    assert "files that are not a memory's" in run("build", "train.npz", "-o", ".", code=1).stderr


def test_rows_without_labels_are_refused(run, here):
    rs.Encoded(np.eye(2), 2 * np.eye(2)).save("bare.npz")
    assert "no labels" in run("build", "bare.npz", "-o", "out", code=1).stderr
    assert not (here / "out").exists()
