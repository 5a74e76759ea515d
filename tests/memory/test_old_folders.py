"""Folders that version 0.1 saved are the memories they were; `tests/fixtures/README.md` says how they were made."""

import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import residua as rs
from residua.memory.build import build

pytestmark = pytest.mark.slow

FOLDERS = Path(__file__).resolve().parents[1] / "fixtures" / "v0_1"
ABOUT = {one["name"]: one for one in json.loads((FOLDERS / "expected.json").read_text("utf-8"))["fixtures"]}
FINISHED = sorted(name for name, one in ABOUT.items() if not one.get("unfinished"))


def check(memory, folder, about):
    """Whether a memory is what 0.1 said of it, and answers as 0.1 did."""
    assert (memory.task, memory.n_outputs, memory.dim) == (about["task"], about["n_outputs"], about["dim"])
    assert (memory.schema.storage["name"], memory.schema.key_dtype) == (about["storage"]["name"], about["key_dtype"])
    assert (memory.keys_kept, list(memory.schema.columns)) == (about["keys_kept"], about["columns"])
    assert memory.schema.is_text == about["tokens"]
    assert (memory.about, memory.names) == (about["about"], {int(id): name for id, name in about["names"].items()})
    assert not memory.schema.key_centre.any()
    queries = rs.Encoded.load(folder / "queries.npz")
    memory.schema.check_query(queries)
    with np.load(folder / "answers.npz") as answers:
        if "memory_ids" in answers:
            np.testing.assert_array_equal(memory.ids, answers["memory_ids"])
            np.testing.assert_array_equal(memory.labels, answers["memory_labels"])
        found = memory.search(queries.keys, answers["neighbour_ids"].shape[1])
        np.testing.assert_allclose(found.distances, answers["neighbour_distances"], rtol=1e-6, atol=1e-6)
        ids = np.sort(np.where(found.found, memory.column("id")[found.rows.clamp_min(0)], -1))
        apart = np.diff(answers["neighbour_distances"], axis=1).min(axis=1) > 1e-6  # or any of equals may be there
        np.testing.assert_array_equal(ids[apart], np.sort(answers["neighbour_ids"])[apart])
        excluded = memory.search(queries.keys, 5, exclude=answers["exclude_ids"])
        assert not (memory.column("id")[excluded.rows.clamp_min(0)].numpy() == answers["exclude_ids"][:, None]).any()


@pytest.mark.parametrize("name", FINISHED)
def test_a_folder_of_0_1(name, tmp_path):
    about = ABOUT[name]
    if about["index"] != "exact":
        pytest.importorskip("faiss")
    folder = FOLDERS / name
    memory = rs.Memory.load(folder, trust=True)
    check(memory, folder, about)
    logits = memory.logits
    if about["storage"]["name"] == "none":
        assert logits is None
    else:
        assert logits.shape == (len(memory), memory.n_outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of recall, on so few rows
        memory.save(tmp_path)
        again = rs.Memory.load(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["format"] == 4
    check(again, folder, about)
    if logits is not None:
        assert torch.equal(again.logits.dense(), logits.dense())


def test_a_head_of_0_1_recomputes_what_another_folder_stored():
    full, head = rs.Memory.load(FOLDERS / "resmem-full"), rs.Memory.load(FOLDERS / "resmem-head")
    assert (head.keys == full.keys).all()
    torch.testing.assert_close(head.logits.dense(), full.logits.dense(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(ABOUT) - set(FINISHED)))
def test_an_unfinished_build_of_0_1_goes_on(name, tmp_path):
    about, encoded = ABOUT[name], []
    if about["index"] != "exact":
        pytest.importorskip("faiss")
    shutil.copytree(FOLDERS / name, tmp_path / "memory")
    rows = rs.Encoded.load(FOLDERS / about["text"])

    class Batch(SimpleNamespace):
        def __len__(self):
            return len(self.labels)

    def batches():
        for start in range(0, len(rows), about["batch_rows"]):
            part = rows[start : start + about["batch_rows"]]
            yield Batch(labels=part.labels, ids=part.ids, offsets=part.columns["offset"], rows=part)

    def encode(batch):
        encoded.append(len(batch))
        return batch.rows

    names = {int(id): name for id, name in about["names"].items()}
    for extra in ("answers.npz", "queries.npz"):
        (tmp_path / "memory" / extra).unlink()
    options = {"progress": False, "names": names, "trust": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of recall, on so few rows
        memory = build(batches(), encode, tmp_path / "memory", **options, **about["build"])
    assert sum(encoded) == len(rows) - 80  # two shards of 40 were on disk
    check(memory, FOLDERS / name, about)
    assert not (tmp_path / "memory" / "build.json").exists()
