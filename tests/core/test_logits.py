import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from residua.core import DenseLogits, Head, HeadLogits, TopLogits
from residua.errors import ParameterError, ShapeError

rng = np.random.default_rng(0)
TABLE = rng.normal(size=(5, 7)).astype(np.float32)


def head_logits():
    keys, weight, bias = (torch.from_numpy(rng.normal(size=s).astype(np.float32)) for s in ((5, 3), (7, 3), (7,)))
    return HeadLogits(Head(weight, bias), keys), (keys @ weight.T + bias)


def top_logits(m=7, temperature=1.0):
    table = torch.from_numpy(TABLE)
    values, ids = table.topk(m, dim=1)
    return TopLogits(ids.int(), values, torch.logsumexp(table / temperature, dim=1), 7, temperature)


def every_storage():
    head, table = head_logits()
    return [(DenseLogits(TABLE), torch.from_numpy(TABLE)), (head, table), (top_logits(), torch.from_numpy(TABLE))]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_storage_answers_as_its_table_would(which):
    logits, table = every_storage()[which]
    rows = torch.tensor([4, 0, 4])
    classes = torch.tensor([[1, 6], [0, 0], [2, 3]])
    assert logits.shape == (5, 7) and len(logits) == 5
    torch.testing.assert_close(logits.dense(rows), table[rows])
    torch.testing.assert_close(logits.at(rows, classes), table[rows[:, None], classes])
    torch.testing.assert_close(logits.at(rows, classes[:, 0]), table[rows, classes[:, 0]])
    torch.testing.assert_close(logits.logsumexp(rows), torch.logsumexp(table[rows], dim=1))
    assert torch.equal(logits.argmax(rows), table[rows].argmax(dim=1))
    torch.testing.assert_close(logits.probabilities(), torch.softmax(table, dim=1))
    torch.testing.assert_close(logits.rows(rows).dense(), table[rows])


def test_entries_that_were_not_kept_have_no_probability():
    logits = top_logits(m=2)
    p = torch.softmax(torch.from_numpy(TABLE), dim=1)
    kept = p.topk(2, dim=1)
    torch.testing.assert_close(logits.probabilities().sum(dim=1), kept.values.sum(dim=1))
    assert ((logits.probabilities() > 0).sum(dim=1) == 2).all()


def test_top_logits_answer_one_temperature_only():
    with pytest.raises(ParameterError, match="temperature=2"):
        top_logits().probabilities(None, 2.0)
    logits = top_logits(temperature=2.0)
    torch.testing.assert_close(logits.probabilities(None, 2.0), torch.softmax(torch.from_numpy(TABLE) / 2, dim=1))


@given(st.floats(0.05, 20))
def test_probabilities_sum_to_one_at_any_temperature(temperature):
    for logits, _ in every_storage()[:2]:
        sums = logits.probabilities(None, temperature).sum(dim=1)
        torch.testing.assert_close(sums, torch.ones(5), rtol=1e-5, atol=1e-5)


def test_dense_logits_take_predictions_of_one_output_and_refuse_cubes():
    assert DenseLogits(np.ones(4)).shape == (4, 1)
    with pytest.raises(ShapeError, match=r"\(1, 2, 3\)"):
        DenseLogits(np.ones((1, 2, 3)))


def test_half_precision_tables_answer_in_float32():
    assert DenseLogits(torch.ones(2, 3, dtype=torch.bfloat16)).logsumexp().dtype == torch.float32
