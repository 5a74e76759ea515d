"""Every answer of a Prediction against its definition in float64: scores, probabilities, and one class of each row."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from residua.core import (
    Change,
    DenseLogits,
    Head,
    HeadLogits,
    LabelValues,
    Neighbours,
    Prediction,
    Queries,
    Sigmoid,
    Softmax,
    Table,
    TableValues,
    Term,
    TopLogits,
    Values,
)
from residua.errors import TaskError

N, TEMPERATURE = 8, 1.3  # remembered rows


class Pairs(Values):
    """Row i gives ``gain[i]`` to one class and takes it from another: sparse, and may be negative."""

    width = 2

    def __init__(self, ids, gain):
        self.ids, self.gain = ids, gain

    def entries(self, rows):
        return self.ids[rows], torch.stack([self.gain[rows], -self.gain[rows]], dim=1)


class NeverWide(LabelValues):
    """Labels that are only read entry by entry."""

    def add_to(self, scores, rows, weights):
        raise AssertionError("a table was made")


def values_of(kind, outputs, rng):
    if kind == "labels":
        return LabelValues(torch.randint(0, outputs, (N,), generator=rng))
    if kind == "pairs":
        return Pairs(torch.randint(0, outputs, (N, 2), generator=rng), torch.rand(N, generator=rng))
    table = torch.randn(N, outputs, generator=rng)
    return TableValues(table - table.mean(dim=1, keepdim=True))  # takes away what it gives, as residuals do


def said_by(values, row, outputs):
    """What one row says, dense float64."""
    ids, said = values.entries(torch.tensor([row]))
    return torch.zeros(outputs, dtype=torch.float64).index_add_(0, ids[0], said[0].double())


def change_of(kinds, q, outputs, rng, space="probability"):
    """A change of several terms, after which probabilities still sum to 1 where they live in that space."""
    terms, given = [], torch.zeros(q, 1)
    for kind in kinds:
        k = int(torch.randint(0, 5, (1,), generator=rng))
        rows = torch.randint(-1, N, (q, k), generator=rng)
        weights = torch.rand(q, k, generator=rng).masked_fill_(rows < 0, 0) / (max(k, 1) * len(kinds))
        terms.append(Term(rows, weights, values_of(kind, outputs, rng), "past" if terms else "memory"))
        given += weights.sum(dim=1, keepdim=True) * (kind == "labels")
    return Change(1 - given if space == "probability" else 0.5 + given, tuple(terms), space)


def base_of(kind, q, outputs, rng):
    logits = 2 * torch.randn(q, outputs, generator=rng)
    if kind == "top":  # all entries, in another order
        values, ids = logits.topk(outputs, dim=1)
        partition = torch.logsumexp(logits / TEMPERATURE, dim=1)
        return Softmax(TopLogits(ids.int(), values, partition, outputs, TEMPERATURE), TEMPERATURE)
    if kind == "head":
        keys = torch.randn(q, 3, generator=rng)
        return Softmax(HeadLogits(Head(torch.randn(outputs, 3, generator=rng)), keys), TEMPERATURE)
    if kind == "table":
        return Table(DenseLogits(logits))
    return (Sigmoid if kind == "sigmoid" else Softmax)(DenseLogits(logits), TEMPERATURE)


def prediction_of(base, change, floor=0.0, asked=None):
    """With neighbours that nobody looks at."""
    q = len(base) if asked is None else len(asked)
    near = Neighbours(torch.zeros(q, 1, dtype=torch.int64), torch.zeros(q, 1))
    return Prediction(base, near, None if change is None else lambda: change, floor, asked)


def answers(now):
    """(scores, probabilities or None) of a base or a prediction, from the definitions, float64 (q, L)."""
    if not isinstance(now, Prediction):
        logits = now.logits.dense().double()
        if isinstance(now, Table):
            return logits, None
        probabilities = (torch.sigmoid if isinstance(now, Sigmoid) else lambda f: torch.softmax(f, dim=1))(
            logits / now.temperature
        )
        return probabilities, probabilities
    root = now.base
    while isinstance(root, Prediction):
        root = root.base
    said, under = answers(now.base)
    change = now.change
    if change is None:
        return (said if under is None else under), under
    start = said if under is None else under
    if change.space == "logit":
        if now.base is root:
            start = root.logits.dense().double() / root.temperature
        else:
            start = torch.logit(under) if isinstance(root, Sigmoid) else under.log()
    scores = start.clone()
    places = range(len(now)) if now.asked is None else now.asked.tolist()
    for row, place in enumerate(places):
        scores[place] = start[place] * change.scale[row].double()
        for term in change.terms:
            for neighbour, weight in zip(term.rows[row].tolist(), term.weights[row].double(), strict=True):
                if neighbour >= 0:
                    scores[place] += weight * said_by(term.values, neighbour, start.shape[1])
    if isinstance(root, Table):
        return scores, None
    if change.space == "logit":
        made = torch.sigmoid if isinstance(root, Sigmoid) else lambda f: torch.softmax(f, dim=1)
        return scores, made(scores)
    probabilities = torch.maximum(scores, now.floor * under)
    if isinstance(root, Sigmoid):  # each label is one of two classes: it has it, or has it not
        return scores, probabilities / (probabilities + torch.maximum(1 - scores, now.floor * (1 - under)))
    return scores, probabilities / probabilities.sum(dim=1, keepdim=True)


def says_of_each_label(now, said, scores, probabilities):
    torch.testing.assert_close(now.scores.double(), scores, rtol=0, atol=2e-5)
    torch.testing.assert_close(now.probabilities.double(), probabilities, rtol=0, atol=2e-5)
    margin = scores - (0.5 if now.space == "probability" else 0.0)
    clear = margin.abs() > 1e-4
    assert torch.equal(said[clear] > 0, margin[clear] > 0)
    for labels in (said, 1 - said):
        expected = torch.where(labels > 0, probabilities, 1 - probabilities).clamp_min(1e-6).log().mean(dim=1)
        found = now.log_prob(labels).double()
        assert ((found - expected).abs() < 0.05).all() or probabilities.min() < 1e-3 or probabilities.max() > 0.999


def tells_one_story(now):
    scores, probabilities = answers(now)
    q, outputs = scores.shape
    assert (len(now), now.n_outputs) == (q, outputs)
    every = torch.arange(q)
    best = now.argmax()
    assert best.dtype == torch.int64
    if isinstance(now.root, Sigmoid):
        says_of_each_label(now, best, scores, probabilities)
        return
    torch.testing.assert_close(scores[every, best], scores.amax(dim=1), rtol=0, atol=2e-5)
    torch.testing.assert_close(now.scores.double(), scores, rtol=0, atol=2e-5)
    if probabilities is None:
        for ask in (lambda: now.probabilities, lambda: now.log_prob(best), lambda: now.log_probabilities()):
            with pytest.raises(TaskError, match="call predict"):
                ask()
        return
    torch.testing.assert_close(now.probabilities.double(), probabilities, rtol=0, atol=2e-5)
    torch.testing.assert_close(now.log_probabilities().exp().double(), probabilities, rtol=0, atol=2e-5)
    one_by_one = torch.stack([now.log_prob(torch.full((q,), c)) for c in range(outputs)], dim=1)
    torch.testing.assert_close(one_by_one.exp().double(), probabilities, rtol=0, atol=2e-5)
    likely = probabilities > 1e-3
    torch.testing.assert_close(one_by_one.double()[likely], probabilities.log()[likely], rtol=0, atol=5e-2)
    classes = torch.randint(0, outputs, (q, 3), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(now.at(classes).double(), probabilities.gather(1, classes), rtol=0, atol=2e-5)
    torch.testing.assert_close(now.at(best).double(), probabilities[every, best], rtol=0, atol=2e-5)


KINDS = st.lists(st.sampled_from(["labels", "pairs", "table"]), min_size=1, max_size=3)
FLOORS = st.sampled_from([0.0, 1e-6, 0.1, 0.9, 1.0])


@given(
    st.integers(0, 10**6),
    st.sampled_from(["dense", "head", "top", "sigmoid", "table"]),
    KINDS,
    st.sampled_from(["probability", "logit"]),
    FLOORS,
    st.booleans(),
    st.integers(2, 9),
)
def test_a_change_of_a_base(seed, base, kinds, space, floor, some, outputs):
    rng = torch.Generator().manual_seed(seed)
    asked = torch.tensor([1, 2, 4]) if some else None
    base = base_of(base, 5, outputs, rng)
    space = "probability" if isinstance(base, Table) else space
    change = change_of(kinds, 3 if some else 5, outputs, rng, space)
    tells_one_story(prediction_of(base, change, floor, asked))


@given(
    st.integers(0, 10**6),
    st.sampled_from(["dense", "top", "sigmoid", "table"]),
    st.lists(st.tuples(KINDS, FLOORS, st.booleans()), min_size=2, max_size=3),
)
def test_a_change_of_what_another_reader_says(seed, base, levels):
    rng = torch.Generator().manual_seed(seed)
    now = base_of(base, 5, 6, rng)
    for kinds, floor, some in levels:
        asked = torch.tensor([0, 3]) if some else None
        now = prediction_of(now, change_of(kinds, 2 if some else 5, 6, rng), floor, asked)
    tells_one_story(now)


@pytest.mark.parametrize("base", ["dense", "sigmoid"])
@pytest.mark.parametrize("asked", [None, torch.tensor([0, 3])])
@pytest.mark.parametrize("kinds", [["labels"], ["table", "labels"]])
def test_a_change_of_another_readers_log_probabilities(base, asked, kinds):
    rng = torch.Generator().manual_seed(0)
    under = prediction_of(base_of(base, 5, 6, rng), change_of(["labels"], 5, 6, rng))
    now = prediction_of(under, change_of(kinds, 5 if asked is None else 2, 6, rng, "logit"), asked=asked)
    tells_one_story(now)
    tells_one_story(prediction_of(now, change_of(["labels"], 5, 6, rng)))
    nothing = prediction_of(under, Change(torch.ones(5, 1), (), "logit"))
    torch.testing.assert_close(nothing.probabilities, under.probabilities)


@pytest.mark.parametrize("kinds", [["labels"], ["labels", "labels"]])
def test_an_interpolation_of_an_interpolation_stays_sparse(kinds):
    rng = torch.Generator().manual_seed(0)
    now = base_of("dense", 6, 9, rng)
    for _ in range(3):
        now = prediction_of(now, change_of(kinds, 6, 9, rng))
        assert not now.is_wide
        tells_one_story(now)


def test_one_class_is_asked_for_without_making_a_table():
    rng = torch.Generator().manual_seed(0)
    labels = NeverWide(torch.randint(0, 9, (N,), generator=rng))
    rows, weights = torch.randint(0, N, (5, 4), generator=rng), torch.full((5, 4), 0.1)
    term = Term(rows, weights, labels)
    now = prediction_of(base_of("dense", 5, 9, rng), Change(torch.full((5, 1), 0.6), (term,)))
    over = prediction_of(now, Change(torch.full((5, 1), 0.2), (term, term)))
    for each in (now, over):
        assert not each.is_wide
        assert each.log_prob(each.argmax()).isfinite().all() and each.at(rows).shape == (5, 4)
        torch.testing.assert_close(each.log_probabilities().exp().sum(dim=1), torch.ones(5))
        with pytest.raises(AssertionError, match="a table was made"):
            _ = each.scores


def test_by_hand():
    base = Softmax(DenseLogits(torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]).log()))
    label = Term(torch.tensor([[1, 0]]), torch.tensor([[0.3, 0.1]]), LabelValues(torch.tensor([0, 2])))
    minus = Term(torch.tensor([[0]]), torch.tensor([[1.0]]), TableValues(torch.tensor([[0.25, 0.5, -0.75]])))
    now = prediction_of(base, Change(torch.tensor([[0.6]]), (label, minus)), floor=0.1, asked=torch.tensor([1]))
    # 0.6 (0.2, 0.2, 0.6) + (0.1, 0, 0.3) + (0.25, 0.5, -0.75) = (0.47, 0.62, -0.09), and the floor is 0.06
    torch.testing.assert_close(now.scores, torch.tensor([[0.5, 0.25, 0.25], [0.47, 0.62, -0.09]]))
    expected = torch.tensor([[0.5, 0.25, 0.25], [0.47 / 1.15, 0.62 / 1.15, 0.06 / 1.15]])
    torch.testing.assert_close(now.probabilities, expected)
    torch.testing.assert_close(now.log_prob(torch.tensor([0, 2])).exp(), torch.tensor([0.5, 0.06 / 1.15]))
    assert now.argmax().tolist() == [0, 1] and now.is_wide and now.change.signed
    # In the logit space: 2 log(p_T) + (0, 1, 0), and a constant.
    one = Term(torch.tensor([[0], [0]]), torch.ones(2, 1), LabelValues(torch.tensor([1])))
    logits = Softmax(base.logits, 1.3)
    now = prediction_of(logits, Change(torch.full((2, 1), 2.0), (one,), "logit"))
    scores = 2 * base.logits.dense() / 1.3 + torch.tensor([0.0, 1, 0])
    torch.testing.assert_close(now.scores, scores)
    torch.testing.assert_close(now.probabilities, torch.softmax(scores, dim=1))


@pytest.mark.parametrize(
    ("space", "kind"),
    [("probability", "dense"), ("probability", "sigmoid"), ("probability", "table"), ("logit", "dense"),
     ("logit", "sigmoid")],
)  # fmt: skip
def test_rows_that_were_not_asked_are_the_base(space, kind):
    rng = torch.Generator().manual_seed(0)
    base, asked = base_of(kind, 5, 6, rng), torch.tensor([1, 3])
    now = prediction_of(base, change_of(["table"], 2, 6, rng, space), floor=0.3, asked=asked)
    others = torch.tensor([0, 2, 4])
    start = base.table() if space == "probability" else base.logits.dense() / TEMPERATURE
    assert torch.equal(now.scores[others], start[others])
    assert (now.scores[asked] != start[asked]).any(dim=1).all()
    if kind != "table":
        torch.testing.assert_close(now.probabilities[others], base.table()[others])
        now = prediction_of(base, change_of(["labels"], 2, 6, rng, space), floor=0.3, asked=asked)
        torch.testing.assert_close(now.log_probabilities().exp()[others], base.table()[others])
    nobody = prediction_of(base, change_of(["table"], 0, 6, rng, space), floor=0.3, asked=asked[:0])
    assert torch.equal(nobody.scores, start)


@pytest.mark.parametrize("kind", ["dense", "head", "top", "sigmoid"])
@pytest.mark.parametrize("said", ["labels", "pairs", "table"])
def test_no_rows_have_no_answers(kind, said):
    rng = torch.Generator().manual_seed(0)
    now = prediction_of(base_of(kind, 0, 6, rng), change_of([said], 0, 6, rng), floor=0.1)
    for each in (now, prediction_of(base_of(kind, 0, 6, rng), None), prediction_of(now, None)):
        tells_one_story(each)
        assert each.at(torch.empty(0, 0).long()).shape == (0, 0)


def test_nothing_to_change_is_the_base_to_the_last_digit():
    logits = torch.tensor([[0.0, -300.0, 5.0]])
    for now in (prediction_of(Softmax(DenseLogits(logits)), None),
                prediction_of(prediction_of(Softmax(DenseLogits(logits)), None), None)):  # fmt: skip
        assert not now.is_wide and now.change is None
        torch.testing.assert_close(now.log_probabilities(), torch.log_softmax(logits, dim=1))
        torch.testing.assert_close(now.log_prob(torch.tensor([1])), torch.log_softmax(logits, dim=1)[:, 1])
        assert torch.equal(now.probabilities, torch.softmax(logits, dim=1)) and now.argmax().tolist() == [2]


def test_a_probability_that_underflows_has_a_finite_logarithm():
    base = Softmax(DenseLogits(torch.tensor([[0.0, -300.0]])))
    table = Term(torch.zeros(1, 1).long(), torch.ones(1, 1), TableValues(torch.zeros(1, 2)))
    now = prediction_of(base, Change(torch.ones(1, 1), (table,)), floor=0.5)
    assert now.log_prob(torch.tensor([1])).isfinite().all() and now.log_probabilities().isfinite().all()


# --- what is done when ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["labels", "table"])
def test_neighbours_are_weighed_once_and_only_when_it_matters(kind):
    rng, calls = torch.Generator().manual_seed(0), []
    change = change_of([kind], 2, 6, rng)

    def weigh():
        calls.append(1)
        return change

    near = Neighbours(torch.tensor([[4, -1], [2, 5]]), torch.tensor([[1.0, torch.inf], [2.0, 3.0]]))
    now = Prediction(base_of("dense", 3, 6, rng), near, weigh, 0.1, torch.tensor([0, 2]))
    assert (len(now), now.n_outputs) == (3, 6)
    assert now.neighbours.rows.tolist() == [[4, -1], [-1, -1], [2, 5]]
    assert now.neighbours.distances.tolist() == [[1, torch.inf], [torch.inf, torch.inf], [2, 3]]
    assert not calls
    for _ in range(2):
        now.log_prob(torch.tensor([0, 1, 2])), now.argmax(), now.scores, now.probabilities, now.log_probabilities()
    assert len(calls) == 1 and now.change is change


def test_queries_are_those_that_were_asked():
    keys, base = torch.arange(8.0).view(4, 2), Softmax(DenseLogits(torch.arange(12.0).view(4, 3)), 2.0)
    every, some = Queries(keys, base), Queries(keys, base, torch.tensor([3, 1]))
    assert (len(every), len(some)) == (4, 2)
    assert torch.equal(every.keys, keys) and every.base is base
    assert torch.equal(some.keys, keys[[3, 1]]) and torch.equal(some.base.logits.dense(), base.logits.dense()[[3, 1]])
    assert some.base.temperature == 2.0


# --- what neighbours say --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["labels", "pairs", "table"])
def test_entries_and_add_to_are_one_sum(kind):
    rng = torch.Generator().manual_seed(1)
    values = values_of(kind, 5, rng)
    rows, weights = torch.randint(0, N, (6, 4), generator=rng), torch.rand(6, 4, generator=rng)
    scores = torch.randn(6, 5, generator=rng)
    expected = scores.double()
    for q, i in product(range(6), range(4)):
        expected[q] += weights[q, i].double() * said_by(values, int(rows[q, i]), 5)
    at_once, by_entry = scores.clone(), scores.clone()
    values.add_to(at_once, rows, weights)
    by_entry.scatter_add_(1, *values.weighted(rows, weights))
    for found in (at_once, by_entry):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert values.entries(rows[0])[1].shape[1] == (5 if values.width is None else values.width)
    assert values.signed or (values.entries(torch.arange(N))[1] >= 0).all()


def test_labels_say_onehot():
    values = LabelValues(torch.tensor([2, 0]))
    assert said_by(values, 0, 3).tolist() == [0, 0, 1] and said_by(values, 1, 3).tolist() == [1, 0, 0]
    assert not values.signed and values.width == 1


@given(st.integers(0, 10**6), KINDS)
def test_the_base_and_all_contributions_are_the_scores(seed, kinds):
    rng = torch.Generator().manual_seed(seed)
    change, start = change_of(kinds, 4, 5, rng), torch.rand(4, 5, generator=rng)
    scores = change.apply(start)
    for query in range(4):
        total = start[query].double() * change.scale[query].double()
        for number, term in enumerate(change.terms):
            classes, given = change.contributions(query, number)
            assert len(classes) == term.rows.shape[1]
            assert (given[term.rows[query] < 0] == 0).all()
            total.index_add_(0, classes.reshape(-1), given.reshape(-1).double())
        torch.testing.assert_close(scores[query].double(), total, rtol=0, atol=1e-5)
    if all(kind != "table" for kind in kinds):
        by_entry = (start * change.scale).scatter_add_(1, *change.entries())
        torch.testing.assert_close(by_entry, scores, rtol=0, atol=1e-5)
        assert change.entries()[0].shape == (4, change.width)
    else:
        assert change.width is None
    assert change.signed == any(kind != "labels" for kind in kinds)
