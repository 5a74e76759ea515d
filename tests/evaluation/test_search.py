"""Blocks come in order, whole, with the neighbours that exclusion leaves."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import IdError, InputError, LabelError, ShapeError, TaskError
from residua.evaluation import search
from residua.evaluation.search import searched

KEYS = np.arange(6.0)[:, None]
LABELS = np.array([0, 1, 0, 1, 0, 1])


def data(n=6, **more):
    return rs.Encoded(KEYS[:n], np.zeros((n, 2)), LABELS[:n], **more)


@pytest.fixture
def reader():
    return rs.ResMem(rs.Memory(data()), k=2, sigma=1.0)


def test_blocks_cover_all_batches_in_order(reader, monkeypatch):
    monkeypatch.setattr(search, "QUERIES", 2)
    blocks = list(searched(reader, [data(3), data(0), data(6)], 2))
    assert [len(part) for part, _, _ in blocks] == [2, 1, 2, 2, 2]
    assert torch.cat([labels for _, labels, _ in blocks]).tolist() == [*LABELS[:3], *LABELS]
    assert [near.rows[:, 0].tolist() for _, _, near in blocks] == [[0, 1], [2], [0, 1], [2, 3], [4, 5]]


def test_exclusion_follows_the_rows_across_batches(reader, monkeypatch):
    monkeypatch.setattr(search, "QUERIES", 2)
    own = np.array([0, 1, 2, 0, 1, 2])
    found = torch.cat([near.rows for _, _, near in searched(reader, [data(3), data(3)], 6, own)])
    for row, id in zip(found, own):
        assert id not in row.tolist()
        assert sorted(row.tolist())[1:] == sorted(set(range(6)) - {id})


def test_own_ids_are_excluded_only_where_given(reader):
    with_ids, without = data(3, ids=[0, 1, 2]), data(3)
    rows = [near.rows[:, 0].tolist() for _, _, near in searched(reader, [with_ids, without], 1, exclude_own=True)]
    assert rows == [[1, 0, 1], [0, 1, 2]]


def test_k_zero_searches_nothing(reader):
    (_, _, neighbours), *rest = searched(reader, data(), 0)
    assert neighbours.rows.shape == (6, 0)
    assert not rest


def test_regression_labels_have_a_column_per_output():
    flat = rs.Encoded(KEYS, np.zeros(6), LABELS.astype(float))
    reader = rs.ResMem(rs.Memory(flat), k=1)
    assert next(iter(searched(reader, flat, 1)))[1].shape == (6, 1)


def test_what_cannot_be_evaluated_is_refused(reader):
    with pytest.raises(LabelError, match="no labels"):
        list(searched(reader, rs.Encoded(KEYS, np.zeros((6, 2))), 1))
    with pytest.raises(InputError, match="no rows"):
        list(searched(reader, [], 1))
    with pytest.raises(InputError, match="no rows"):
        list(searched(reader, data(0), 1))
    with pytest.raises(IdError, match="7 rows for 6"):
        list(searched(reader, data(), 1, np.arange(7)))
    with pytest.raises(IdError):
        list(searched(reader, data(), 1, np.arange(5)))
    with pytest.raises(TaskError):
        list(searched(reader, rs.Encoded(KEYS, np.zeros((6, 2)), np.zeros((6, 2))), 1))
    with pytest.raises(ShapeError):
        list(searched(reader, rs.Encoded(np.zeros((6, 2)), np.zeros((6, 2)), LABELS), 1))
