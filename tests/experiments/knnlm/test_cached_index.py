"""Answers are the index's own, and asked for once."""

import numpy as np
import pytest
import torch

import residua as rs
from experiments.knnlm.cached_index import CachedIndex
from experiments.knnlm.language import searched_once


class Counting:
    """An index that says how many queries it was asked."""

    def __init__(self, index):
        self.index, self.asked = index, 0

    def __getattr__(self, name):
        return getattr(self.index, name)

    def search(self, queries, k, keys):
        self.asked += len(queries)
        return self.index.search(queries, k, keys)


@pytest.fixture
def memory():
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(200, 4))
    return rs.Memory(rs.Encoded(keys, np.zeros((200, 3)), rng.integers(0, 3, 200), np.arange(200) // 10))


def test_every_k_and_order_answers_as_the_index_does(memory):
    queries = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    asked = [(range(30), 20), (range(29, -1, -1), 1), ([3, 3, 7], 36), (range(10), 5)]
    more = memory.search(queries, 100)
    expected = [memory.search(queries[list(rows)], k) for rows, k in asked]
    counting = Counting(memory.index)
    memory.index = CachedIndex(counting, 20)
    for (rows, k), found in zip(asked, expected):
        again = memory.search(queries[list(rows)], k)
        assert torch.equal(again.rows, found.rows) and torch.equal(again.distances, found.distances)
    assert counting.asked == len(memory.index) == 30
    assert torch.equal(memory.search(queries, 100).rows, more.rows)  # more than was kept is asked of the index


def test_a_document_can_be_left_out(memory):
    queries = memory.keys[:20].astype(np.float32)
    own = np.arange(20) // 10
    expected = memory.search(queries, 20, own)
    memory = searched_once(memory)
    memory.search(queries, 20)
    found = memory.search(queries, 20, own)
    assert torch.equal(found.rows, expected.rows)
    assert not (found.rows // 10 == torch.from_numpy(own)[:, None]).any()
