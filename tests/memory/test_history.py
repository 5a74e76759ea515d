"""What the log keeps of an edit."""

import copy
import gc
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

import residua as rs
from residua.memory.history import Changes


def tensors():
    return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch's own, which are looked at, too
def test_the_log_keeps_no_small_tensors_between_the_columns_that_are_copied():
    memory = rs.Memory(rs.Encoded(np.eye(40), np.zeros((40, 2)), np.arange(40) % 2))
    memory.relabel([0], 1)
    gc.collect()
    before = tensors()
    for id in range(20):
        memory.relabel([id], 1 - id % 2)
        memory.forget([39 - id])
    assert tensors() <= before + 5 and len(memory.log()) == 42


def test_changes_are_read_as_they_were_given():
    rows, labels = torch.tensor([3, 5]), torch.tensor([[True, False], [False, True]])
    made = Changes(7, 9, forgotten=rows[:1], relabelled=rows, before=labels, after=~labels)
    rows[0], labels[0, 0] = 0, False  # what was given may change
    for one in (made, replace(made, last=8), copy.copy(made), pickle.loads(pickle.dumps(made))):
        assert one.relabelled.tolist() == [3, 5] and one.forgotten.tolist() == [3] and len(one.restored) == 0
        assert torch.equal(one.before, torch.tensor([[True, False], [False, True]])) and one.before.dtype == torch.bool
        one.before[0] = True  # nor does what is read
        assert one.before.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize(
    ("said", "labels", "new"),
    [((4, 2), [0, 1, 1, 0], 0), ((4, 2), [[0.5, 1.5]] * 4, [[5.0, 6.0]]), ((4,), [0.5] * 4, 3.0)],
)
def test_labels_of_every_kind_come_back(said, labels, new):
    memory = rs.Memory(rs.Encoded(np.eye(4), np.zeros(said), labels))
    before = memory.labels
    memory.relabel([2], new)
    assert not np.array_equal(memory.labels, before)
    memory.undo()
    assert np.array_equal(memory.labels, before)
