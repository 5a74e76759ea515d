"""A memory of those rows whose columns hold what is asked for."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import InputError, ParameterError

RNG = np.random.default_rng(0)
KEYS, YEARS = RNG.normal(size=(600, 4)).astype(np.float32), RNG.integers(2000, 2030, size=600)
LABELS = RNG.integers(3, size=600)
ENGINES = ["exact", "Flat", "IVF8,PQ4x4fs", "HNSW16"]


@pytest.fixture(params=ENGINES)
def memory(request):
    if request.param != "exact":
        pytest.importorskip("faiss")
    columns = {"year": YEARS, "share": YEARS / 4}
    return rs.Memory(rs.Encoded(KEYS, np.zeros((600, 3)), LABELS, columns=columns), index=request.param)


@pytest.mark.filterwarnings("ignore:.*finds too few of the true neighbours")
@pytest.mark.parametrize(
    ("wanted", "right"),
    [
        ({"year": 2007}, YEARS == 2007),
        ({"year": range(2010, 2020), "label": [0, 2]}, (YEARS >= 2010) & (YEARS < 2020) & (LABELS != 1)),
        ({"year": np.array([2003, 2004], np.int16)}, np.isin(YEARS, [2003, 2004])),
        ({"year": torch.tensor([2003.0, 2004.5])}, YEARS == 2003),
        ({"year": [2003.0, np.inf, np.nan, 1e300]}, YEARS == 2003),
        ({"share": 501.75}, YEARS == 2007),
        ({"share": {501.75, 502}}, np.isin(YEARS, [2007, 2008])),
        ({"id": np.arange(5)}, np.arange(600) < 5),
        ({"label": 300}, np.zeros(600, bool)),
        ({"year": []}, np.zeros(600, bool)),
        ({}, np.ones(600, bool)),
    ],
)
def test_it_is_the_memory_that_those_rows_would_make(memory, wanted, right):
    some, rows = memory.where(**wanted), np.flatnonzero(right)
    assert some.ids.tolist() == rows.tolist() and len(memory) == 600
    assert (some.labels == LABELS[rows]).all()
    if not len(rows):
        return
    found = some.search(KEYS[:50] + 0.01, min(5, len(rows)))
    assert found.found.all()
    assert set(some.column("id")[found.rows].flatten().tolist()) <= set(rows.tolist())
    near = np.sort(np.linalg.norm(KEYS[:50, None] + 0.01 - KEYS[rows], axis=2), axis=1)[:, : found.rows.shape[1]]
    hit = np.isclose(found.distances.numpy(), near, atol=1e-5)
    assert hit.all() if memory.index.exact or len(rows) < 60 else hit.mean() > 0.6


def test_readers_read_it_and_both_go_their_own_ways(memory):
    some = memory.where(label=[0, 1])
    reader = rs.KNNLM(some, k=5, lmbda=1.0, sigma=1.0)
    assert set(reader.predict(rs.Encoded(KEYS[:80], np.zeros((80, 3)))).tolist()) <= {0, 1}
    memory.forget(some.ids[:3])
    assert len(some) == (LABELS < 2).sum()
    some.forget(some.ids[-1:])
    assert some.log()[-2].note == "where label is [0, 1]" and len(memory) == 597
    some.undo()
    assert len(some) == (LABELS < 2).sum()


def test_it_is_saved_apart_and_the_whole_stays(tmp_path):
    rs.Memory(rs.Encoded(KEYS, np.zeros((600, 3)), LABELS)).save(tmp_path / "all")
    some = rs.Memory.load(tmp_path / "all").where(label=1)
    some.save(tmp_path / "some")
    assert len(rs.Memory.load(tmp_path / "some")) == (LABELS == 1).sum()
    assert len(rs.Memory.load(tmp_path / "all")) == 600
    some.undo()
    assert len(some) == 600
    assert len(rs.Memory.open(tmp_path / "all").where(label=1)) == (LABELS == 1).sum()
    assert len(rs.Memory.load(tmp_path / "all")) == 600


def test_names_of_ids_that_are_left_out_go(tmp_path):
    memory = rs.Memory(
        rs.Encoded(KEYS[:4], np.zeros((4, 3)), [0, 1, 1, 2], [7, 7, 8, 9]), names={7: "a", 8: "b", 9: "c"}
    )
    some = memory.where(label=1)
    assert dict(some.names) == {7: "a", 8: "b"} and dict(memory.names) == {7: "a", 8: "b", 9: "c"}


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        ({"colour": 1}, InputError, "there is no column 'colour'"),
        ({"label": "one"}, ParameterError, "expected numbers"),
        ({"label": ["one", "two"]}, ParameterError, "expected numbers"),
        ({"label": None}, ParameterError, "expected numbers"),
    ],
)
def test_what_cannot_be_asked_for(wanted, error, said):
    memory = rs.Memory(rs.Encoded(KEYS, np.zeros((600, 3)), LABELS))
    with pytest.raises(error, match=said):
        memory.where(**wanted)


def test_several_labels_are_no_column_of_numbers():
    memory = rs.Memory(rs.Encoded(KEYS[:4], np.zeros((4, 3)), np.ones((4, 3), int), task="multi-label"))
    with pytest.raises(ParameterError, match="has 3 of these"):
        memory.where(label=1)
