"""What rows say, by hand; and that adding up entries and adding at once are the same sum."""

import numpy as np
import pytest
import torch

from residua.core import DenseLogits, Head, HeadLogits, TopLogits
from residua.readers import values as module
from residua.readers.values import LabelValues, ResidualValues, TableValues, residual_table

LABELS = torch.tensor([2, 0, 1, 2, 1])
KEYS = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 2))).float()
HEAD = Head(torch.tensor([[1.0, 0], [0, 1], [1, -1]]), torch.tensor([0.1, 0, -0.1]))
DENSE = DenseLogits(HEAD(KEYS))


def top(m, temperature):
    ids = DENSE.table.scatter(1, LABELS[:, None], torch.inf).topk(m, dim=1).indices
    partition = torch.logsumexp(DENSE.table / temperature, dim=1)
    return TopLogits(ids.int(), DENSE.table.gather(1, ids), partition, 3, temperature)


VALUES = {
    "table": TableValues(DENSE.table),
    "labels": LabelValues(LABELS),
    "residuals": ResidualValues(LABELS, DENSE, 1.5),
    "residuals of a head": ResidualValues(LABELS, HeadLogits(HEAD, KEYS), 1.5),
    "residuals of the top 2": ResidualValues(LABELS, top(2, 1.5), 1.5),
    "residuals of the top 3": ResidualValues(LABELS, top(3, 1.5), 1.5),
}


def dense(values, rows):
    classes, said = values.entries(rows)
    return torch.zeros(len(rows), 3).scatter_add_(1, classes, said)


@pytest.mark.parametrize("block", [1, 7, 16_000_000])
@pytest.mark.parametrize("name", VALUES)
def test_entries_and_add_to_are_one_sum(name, block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    values = VALUES[name]
    rng = np.random.default_rng(1)
    rows = torch.from_numpy(rng.integers(0, 5, (6, 4)))
    weights = torch.from_numpy(rng.random((6, 4))).float()
    scores = torch.from_numpy(rng.normal(size=(6, 3))).float()
    expected = scores + torch.stack([w @ dense(values, r) for w, r in zip(weights, rows, strict=True)])
    values.add_to(scores, rows, weights)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


def test_labels_say_onehot():
    assert dense(VALUES["labels"], torch.tensor([0, 1])).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_residuals_by_hand():
    logits = DenseLogits(torch.log(torch.tensor([[0.5, 0.25, 0.25], [1.0, 4.0, 4.0]])))
    values = ResidualValues(torch.tensor([0, 1]), logits, 1.0)
    expected = [[0.5, -0.25, -0.25], [-1 / 9, 5 / 9, -4 / 9]]
    np.testing.assert_allclose(dense(values, torch.tensor([0, 1])), expected, atol=1e-6)
    values = ResidualValues(torch.tensor([0, 1]), logits, 0.5)  # squares
    expected = [[1 / 3, -1 / 6, -1 / 6], [-1 / 33, 17 / 33, -16 / 33]]
    np.testing.assert_allclose(dense(values, torch.tensor([0, 1])), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["residuals", "residuals of a head", "residuals of the top 3"])
def test_every_residual_sums_to_zero(name):
    said = dense(VALUES[name], torch.arange(5))
    torch.testing.assert_close(said.sum(dim=1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(said, residual_table(LABELS, DENSE, 1.5), atol=1e-6, rtol=0)


def test_entries_that_were_not_kept_read_as_zero():
    kept, whole = dense(VALUES["residuals of the top 2"], torch.arange(5)), residual_table(LABELS, DENSE, 1.5)
    smallest = whole.abs().argmin(dim=1, keepdim=True)
    torch.testing.assert_close(kept, whole.scatter(1, smallest, 0), atol=1e-6, rtol=0)


def test_a_label_that_is_not_among_the_kept_classes():
    """As after relabelling a row of a top-m memory: the new label's own entry is 1."""
    lost = (set(range(3)) - set(top(2, 1.5).ids[0].tolist())).pop()
    values = ResidualValues(torch.full((5,), lost), top(2, 1.5), 1.5)
    assert dense(values, torch.tensor([0]))[0, lost] == 1
