"""check_reader passes what keeps the protocol, and names what does not."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.core import Change, LabelValues, Neighbours, Sigmoid, TableValues, Term
from residua.readers import READERS, NeighbourReader, register_reader
from residua.readers.neighbour import weigh
from residua.testing import check_reader

pytestmark = pytest.mark.slow

CLASSES = 5


def rows(n, seed, first_id=0, **more):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    keys = 2 * np.eye(CLASSES)[labels][:, :3] + rng.normal(size=(n, 3))
    logits = rng.normal(size=(n, CLASSES)) + np.eye(CLASSES)[labels]
    return rs.Encoded(keys, logits, labels, first_id + np.arange(n), **more)


@pytest.fixture(scope="module")
def memory():
    return rs.Memory(rows(80, 0))


@pytest.fixture(scope="module")
def queries():
    return rows(12, 1, first_id=1000)


READERS_OF_OURS = {
    "ResMem": lambda memory: rs.ResMem(memory, k=7, temperature=1.3),
    "ResMem in the exponent": lambda memory: rs.ResMem(memory, k=7, space="exponent", temperature=1.3),
    "ResMem that skips": lambda memory: rs.ResMem(memory, k=7, skip=0.5),
    "KNNLM": lambda memory: rs.KNNLM(memory, k=7, lmbda=0.4),
    "KNNLM by distance": lambda memory: rs.KNNLM(memory, k=7, lmbda=rs.AdaptiveLambda([1.0], [0.7, 0.1])),
    "KNNLM that skips": lambda memory: rs.KNNLM(memory, k=7, skip=0.5),
    "label k-NN": lambda memory: rs.KNNLM(memory, k=7, lmbda=1.0),
    "ContinuousCache": lambda memory: rs.ContinuousCache(rs.KNNLM(memory, k=7), theta=0.3),
}


@pytest.mark.parametrize("name", READERS_OF_OURS)
def test_ours_keep_it(name, memory, queries):
    if name == "ContinuousCache":
        queries = rs.Encoded(queries.keys, queries.logits, queries.labels, np.full(12, 1000))
    check_reader(READERS_OF_OURS[name](memory), queries)


@pytest.mark.parametrize("storage", ["head", "top-m"])
def test_ours_keep_it_over_other_storages(storage, queries):
    head = rs.core.Head(torch.randn(CLASSES, 3, generator=torch.Generator().manual_seed(0)))
    train = rows(80, 0)
    train = rs.Encoded(train.keys, head(torch.from_numpy(train.keys)), train.labels, head=head)
    check_reader(rs.ResMem(rs.Memory(train, storage=storage, m=3), k=7), queries)


def test_ours_keep_it_in_regression():
    keys = np.random.default_rng(0).normal(size=(60, 2))
    memory = rs.Memory(rs.Encoded(keys, keys, np.sin(3 * keys)))
    queries = rs.Encoded(keys[:9] + 0.1, keys[:9], np.sin(3 * keys[:9]), np.arange(9) + 1000)
    check_reader(rs.ResMem(memory, k=5), queries)
    check_reader(rs.KNNLM(memory, k=5, lmbda=0.5), queries)


class TwoKernels(NeighbourReader):
    """A narrow and a wide kernel over the same neighbours: two terms."""

    def __init__(self, memory, k=9, narrow=0.2, wide=3.0, lmbda=0.4):
        super().__init__(memory, k, narrow, 1.0, "exponential")
        self.narrow, self.wide, self.lmbda = narrow, wide, lmbda

    def values(self, queries):
        return LabelValues(self.memory.column("label"))

    def change(self, neighbours, queries, values=None):
        values = self.values(len(neighbours)) if values is None else values
        weights = [weigh(neighbours, sigma) * self.lmbda / 2 for sigma in (self.narrow, self.wide)]
        scale = 1 - sum(weight.sum(dim=1, keepdim=True) for weight in weights)
        return Change(scale, tuple(Term(neighbours.rows, weight, values) for weight in weights))


class LogitVotes(NeighbourReader):
    """Votes are added to the logits, which are sharpened first."""

    def __init__(self, memory, k=5, factor=1.5, vote=2.0):
        super().__init__(memory, k, 1.0, 1.0, "exponential")
        self.factor, self.vote = factor, vote

    @property
    def score_space(self):
        return "logit"

    def values(self, queries):
        return LabelValues(self.memory.column("label"))

    def share(self, neighbours, queries):
        return self.factor, self.vote


class TwoSources(NeighbourReader):
    """The memory, and a fixed opinion of the class of each query's sign; the shares depend on the query."""

    def __init__(self, memory, k=5):
        super().__init__(memory, k, 1.0, 1.0, "gaussian")

    def values(self, queries):
        return LabelValues(self.memory.column("label"))

    def change(self, neighbours, queries, values=None):
        values = self.values(len(neighbours)) if values is None else values
        weights = self.weights(neighbours, queries)
        there = weights.sum(dim=1, keepdim=True)
        sure = torch.sigmoid(queries.keys[:, :1].float()) * there  # of no neighbours nothing is left: the base
        told = (queries.keys[:, 1:2] > 0).long()
        opinion = TableValues(torch.eye(CLASSES)[:2])
        return Change(
            1 - 0.6 * there,
            (
                Term(neighbours.rows, 0.6 * sure * weights, values),
                Term(told, 0.6 * (1 - sure) * there, opinion, source="sign"),
            ),
        )


class ManyLabels(NeighbourReader):
    """Labels that do not exclude each other: residuals of sigmoids, over a memory of 0/1 targets."""

    def __init__(self, memory, k=5):
        super().__init__(memory, k, 1.0, 1.0, "exponential")

    def base(self, logits):
        return Sigmoid(logits, self.temperature)

    def values(self, queries):
        said = self.base(self.memory.stored_logits).table()
        return TableValues(self.memory.column("label") - said)


@pytest.mark.parametrize("cls", [TwoKernels, LogitVotes, TwoSources])
def test_toys_keep_it(cls, memory, queries):
    grid = {"k": [2, 5]} | ({"wide": [1.0, 3.0]} if cls is TwoKernels else {})
    check_reader(cls(memory), queries, grid=grid)


def test_sigmoids_add_up_and_stay_probabilities():
    rng = np.random.default_rng(0)
    keys, labels = rng.normal(size=(60, 2)), rng.integers(0, 2, (60, 4)).astype(np.float64)
    memory = rs.Memory(rs.Encoded(keys, rng.normal(size=(60, 4)), labels, task="regression"))
    reader = ManyLabels(memory)
    queries = rs.Encoded(keys[:7] + 0.01, rng.normal(size=(7, 4)), labels[:7], task="regression")
    (_, now), *_ = reader.predictions(queries)
    said = 1 / (1 + np.exp(-queries.logits.dense().numpy()))
    near = now.neighbours.rows
    residuals = reader.values(1).table
    expected = said + (weigh(now.neighbours, 1.0)[:, :, None] * residuals[near]).sum(dim=1).numpy()
    np.testing.assert_allclose(now.scores, expected, atol=1e-6)
    assert float(now.probabilities.min()) >= 0 and float(now.probabilities.max()) <= 1
    assert isinstance(now.neighbours, Neighbours)


class Loses(rs.KNNLM):
    """Its weights do not sum to one."""

    def weights(self, neighbours, queries):
        return 0.5 * super().weights(neighbours, queries)


class Forgets(rs.KNNLM):
    """A parameter that it does not keep."""

    def __init__(self, memory, k=None, colour="red"):
        super().__init__(memory, k)


class Remembers(rs.KNNLM):
    """What it says depends on how many are asked at once."""

    def weights(self, neighbours, queries):
        weights = super().weights(neighbours, queries)
        return weights if len(neighbours) > 1 else weights.flip(1)


@pytest.mark.parametrize(
    ("cls", "says"),
    [
        (Loses, "log_probabilities and probabilities differ"),
        (Forgets, "colour"),
        (Remembers, "rows given one by one get other scores"),
    ],
)
def test_what_breaks_it_is_named(cls, says, memory, queries):
    with pytest.raises(AssertionError, match=says):
        check_reader(cls(memory, k=7), queries)


def test_a_registered_reader_is_saved_and_loaded(memory, queries):
    @register_reader
    class Halves(rs.KNNLM):
        """kNN-LM with half of everything."""

        def __init__(self, memory, k=None, lmbda=0.5):
            super().__init__(memory, k, lmbda)

    assert READERS.get("Halves") is Halves
    check_reader(Halves(memory, k=7), queries)
