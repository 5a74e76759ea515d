import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from residua.core import AbsentLogits, DenseLogits, Head, HeadLogits, Sigmoid, Softmax, Table, TopLogits
from residua.errors import ParameterError, ShapeError, StorageError

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


@pytest.mark.slow
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


# --- bases: what logits mean at a temperature -----------------------------------------------------------------


@pytest.mark.parametrize("width", [2, 300, 512, 1025, 3000])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_softmax_equals_torch(width, temperature, dtype):
    logits = (4 * torch.randn(7, width, generator=torch.Generator().manual_seed(width))).to(dtype)
    logits[3, width - 1], logits[4, 0] = 30, -torch.inf  # the best is the last of all; an impossible class
    base, expected = Softmax(DenseLogits(logits), temperature), torch.log_softmax(logits.double() / temperature, dim=1)
    torch.testing.assert_close(base.argmax(), logits.argmax(dim=1))
    torch.testing.assert_close(base.confidence().double(), expected.amax(dim=1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(base.log_probabilities().double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(base.table().double(), expected.exp(), rtol=1e-5, atol=1e-5)
    classes, rows = torch.tensor([[1, 0], [0, 1]] * 2), torch.tensor([5, 0, 4, 2])
    torch.testing.assert_close(base.log_probabilities(rows).double(), expected[rows], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        base.log_prob(classes, rows).double(), expected[rows].gather(1, classes), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        base.log_prob(classes[:2], slice(5, 7)), base.log_prob(classes[:2], torch.tensor([5, 6]))
    )
    torch.testing.assert_close(base.log_prob(classes[[0] * 7, 1])[:, None], base.log_prob(classes[[0] * 7])[:, 1:])


def test_a_vocabulary_too_wide_to_be_read_at_once():
    logits = torch.randn(7, 300_001, generator=torch.Generator().manual_seed(0))
    logits[2, 300_000] = 30
    whole, expected = Softmax(DenseLogits(logits), 0.7), torch.log_softmax(logits.double() / 0.7, dim=1)
    assert whole.argmax().tolist() == logits.argmax(dim=1).tolist()
    torch.testing.assert_close(whole.confidence().double(), expected.amax(dim=1), rtol=1e-5, atol=1e-5)
    every = torch.arange(7)
    torch.testing.assert_close(whole.log_prob(every).double(), expected[every, every], rtol=1e-5, atol=1e-5)


def test_softmax_of_every_kind_of_logits():
    generator = torch.Generator().manual_seed(0)
    keys, head = torch.randn(5, 4, generator=generator), Head(torch.randn(9, 4, generator=generator))
    expected = torch.log_softmax(head(keys) / 2, dim=1)
    every = head(keys).topk(9, dim=1)
    kept = TopLogits(every.indices.int(), every.values, torch.logsumexp(head(keys) / 2, dim=1), 9, 2.0)
    for logits in (HeadLogits(head, keys), kept):
        base = Softmax(logits, 2.0)
        torch.testing.assert_close(base.argmax(), expected.argmax(dim=1))
        torch.testing.assert_close(base.confidence(), expected.amax(dim=1))
        torch.testing.assert_close(base.log_probabilities(), expected)
        torch.testing.assert_close(base.table(), expected.exp())
        torch.testing.assert_close(base.log_prob(torch.tensor([8, 0, 1, 2, 3])), expected[range(5), [8, 0, 1, 2, 3]])
    with pytest.raises(ParameterError, match="temperature=1"):
        Softmax(kept, 1.0).log_probabilities()


@pytest.mark.slow
@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("rows", [slice(1, 4), torch.tensor([4, 0, 4]), torch.tensor([], dtype=torch.int64)])
def test_some_rows_of_a_base_answer_as_they_did(asked_before, rows):
    """Whether or not the whole was asked before."""
    for logits, table in every_storage():
        whole = Softmax(logits, 1.0)
        if asked_before:
            whole.argmax()
        part, expected = whole[rows], torch.log_softmax(table, dim=1)[rows]
        assert type(part) is Softmax and (len(part), part.n_outputs, part.temperature) == (len(expected), 7, 1.0)
        torch.testing.assert_close(part.log_probabilities(), expected)
        if len(part):
            torch.testing.assert_close(part.argmax(), expected.argmax(dim=1))
            torch.testing.assert_close(part.confidence(), expected.amax(dim=1))


def test_another_temperature_is_another_answer():
    base = Softmax(DenseLogits(TABLE))
    base.argmax()
    warm = base.at(2.5)
    torch.testing.assert_close(warm.log_probabilities(), torch.log_softmax(torch.from_numpy(TABLE) / 2.5, dim=1))
    torch.testing.assert_close(warm.at(1.0).confidence(), base.confidence())
    assert base.temperature == base.at(1.0).temperature == 1.0 and warm.temperature == 2.5


def test_no_rows():
    base = Softmax(DenseLogits(torch.empty(0, 600)))
    assert (len(base), len(base.argmax()), base.log_probabilities().shape) == (0, 0, (0, 600))


def test_labels_that_do_not_exclude_each_other_and_a_regressors_predictions():
    logits = torch.from_numpy(TABLE)
    for base, expected in (
        (Sigmoid(DenseLogits(logits), 1.7), torch.sigmoid(logits / 1.7)),
        (Table(DenseLogits(logits)), logits.double()),
    ):
        assert (len(base), base.n_outputs, base.device.type) == (5, 7, "cpu")
        torch.testing.assert_close(base.table(), expected)
        part = base[torch.tensor([3, 1])]
        assert type(part) is type(base) and part.temperature == base.temperature
        torch.testing.assert_close(part.table(), expected[[3, 1]])


def test_absent_logits_are_only_counted():
    logits = AbsentLogits(4, 9)
    assert logits.shape == (4, 9) and len(logits.rows(slice(1, 3))) == 2 == len(logits.rows(torch.tensor([3, 3])))
    for ask in (logits.dense, logits.logsumexp, logits.argmax, lambda: logits.at(torch.tensor([0]), torch.tensor([0]))):
        with pytest.raises(StorageError, match="logits=True"):
            ask()
