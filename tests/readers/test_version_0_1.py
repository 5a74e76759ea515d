"""Folders that version 0.1 saved load and answer as they did. `tests/fixtures/README.md` says how they were made."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import MemoryFileError

pytestmark = pytest.mark.slow

FOLDERS = Path(__file__).resolve().parents[1] / "fixtures" / "v0_1"
ABOUT = {said["name"]: said for said in json.loads((FOLDERS / "expected.json").read_text("utf-8"))["fixtures"]}
READERS = sorted(name for name in ABOUT if (FOLDERS / name / "reader.json").exists())


# 0.1 lost the floor's share of tokens that the cache spoke of too (at most 1/L of their probability).
MENDED = {"tokens-cache-top-m"}
GONE = {"resmem-logits", "resmem-logits-head"}  # of a space that is no more


@pytest.fixture(params=sorted(set(READERS) - MENDED - GONE))
def saved(request):
    folder = FOLDERS / request.param
    if ABOUT[request.param]["index"] != "exact":
        pytest.importorskip("faiss")
    queries = rs.Encoded.load(folder / "queries.npz")
    with np.load(folder / "answers.npz") as answers:
        return rs.load(folder, trust=True), queries, dict(answers)


def test_a_saved_reader_answers_as_it_did(saved):
    reader, queries, answers = saved
    np.testing.assert_allclose(reader.scores(queries, exclude=None), answers["scores"], rtol=1e-6, atol=1e-6)
    found = reader.predict(queries, exclude=None)
    np.testing.assert_allclose(found, answers["predict"], rtol=1e-6, atol=1e-6)
    excluded = reader.scores(queries, exclude=answers["exclude_ids"])
    np.testing.assert_allclose(excluded, answers["scores_excluding"], rtol=1e-6, atol=1e-6)
    if "predict_proba" in answers:
        found = reader.predict_proba(queries, exclude=None)
        np.testing.assert_allclose(found, answers["predict_proba"], rtol=1e-6, atol=1e-6)
    if "log_prob" in answers:
        truth = torch.from_numpy(queries.labels)
        found, start = [], 0
        for part, now in reader.predictions(queries, exclude=None):
            found.append(now.log_prob(truth[start : start + len(part)]).numpy())
            start += len(part)
        np.testing.assert_allclose(np.concatenate(found), answers["log_prob"], rtol=1e-5, atol=1e-5)


def test_it_is_what_it_was(saved, tmp_path):
    """Saved again and loaded again, it is the same reader with the same answers."""
    reader, queries, answers = saved
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of recall, on so few rows
        reader.save(tmp_path / "again")
        again = rs.load(tmp_path / "again")
    assert (type(again), again.to_json()) == (type(reader), reader.to_json())
    np.testing.assert_allclose(again.scores(queries, exclude=None), answers["scores"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(MENDED))
def test_what_was_mended_answers_nearly_as_it_did(name):
    queries = rs.Encoded.load(FOLDERS / name / "queries.npz")
    with np.load(FOLDERS / name / "answers.npz") as answers:
        reader = rs.load(FOLDERS / name)
        np.testing.assert_allclose(reader.scores(queries, exclude=None), answers["scores"], atol=2e-3)
        assert (reader.predict(queries, exclude=None) == answers["predict"]).all()


@pytest.mark.parametrize("name", sorted(GONE))
def test_what_is_gone_names_what_took_its_place(name):
    with pytest.raises(MemoryFileError, match="space='exponent' has taken the place of 'logits'"):
        rs.load(FOLDERS / name)
    assert len(rs.Memory.load(FOLDERS / name))
