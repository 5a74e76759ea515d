"""Random add, forget, relabel, rebuild, save and load against a plain NumPy model of a memory."""

import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import residua as rs
from residua.errors import IdError

DIM, CLASSES = 2, 3
SIGMA, TEMPERATURE, LMBDA = 0.8, 1.4, 0.3
QUERIES = np.array([[0, 0], [1, -2], [0.5, 0.25]], np.float32)

# Whole keys in a small box, so that many distances are equal and the order of rows decides.
row = st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.integers(0, CLASSES - 1), st.integers(-4, 4))
rows = st.lists(row, min_size=1, max_size=6)
ids = st.integers(0, 12)


def softmax(logits):
    powers = np.exp(logits / TEMPERATURE)
    return powers / powers.sum(axis=1, keepdims=True)


class Plain:
    """The same memory in the simplest way: lists, and every distance computed."""

    def __init__(self):
        self.key, self.label, self.logits, self.id, self.alive = [], [], [], [], []
        self.next_id = 0

    def add(self, keys, logits, labels, given):
        given = list(range(self.next_id, self.next_id + len(keys))) if given is None else given
        self.next_id = max(self.next_id, max(given) + 1)
        self.key += list(keys)
        self.logits += list(logits)
        self.label += list(labels)
        self.id += given
        self.alive += [True] * len(keys)
        return given

    @property
    def here(self):
        return [i for i, alive in enumerate(self.alive) if alive]

    @property
    def present(self):
        return {self.id[i] for i in self.here}

    def forget(self, gone):
        rows = [i for i in self.here if self.id[i] in gone]
        for i in rows:
            self.alive[i] = False
        return len(rows)

    def rebuild(self):
        here = self.here
        for name in ("key", "label", "logits", "id"):
            setattr(self, name, [getattr(self, name)[i] for i in here])
        self.alive = [True] * len(here)

    def nearest(self, query, k, excluded=()):
        rows = np.array([i for i in self.here if self.id[i] not in excluded], int)
        keys = np.array(self.key, np.float32).reshape(-1, DIM)[rows]
        distances = np.sqrt(((keys - query) ** 2).sum(axis=1, dtype=np.float32))
        order = np.lexsort((rows, distances))[:k]
        return rows[order], distances[order]

    def resmem(self, query, logits, k):
        rows, distances = self.nearest(query, k)
        base = softmax(logits[None])[0]
        if not len(rows):
            return base
        weights = np.exp(-distances.astype(np.float64) / SIGMA)
        residuals = np.eye(CLASSES)[np.array(self.label)[rows]] - softmax(np.array(self.logits)[rows])
        return base + weights / weights.sum() @ residuals

    def knnlm(self, query, logits, k):
        rows, distances = self.nearest(query, k)
        base = softmax(logits[None])[0]
        if not len(rows):
            return base
        weights = np.exp(-(distances.astype(np.float64) ** 2) / SIGMA)
        labels = np.eye(CLASSES)[np.array(self.label)[rows]]
        return LMBDA * (weights / weights.sum() @ labels) + (1 - LMBDA) * base


class Machine(RuleBasedStateMachine):
    storage: ClassVar = {"storage": "full"}

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.plain, self.readers, self.block = Plain(), [], None

    def teardown(self):
        if self.block is not None:
            self.block.__exit__(None, None, None)
        shutil.rmtree(self.folder)

    @precondition(lambda self: self.block is None)
    @rule()
    def begin_a_block(self):
        """Edits that follow are one, and take effect at its end."""
        self.block = self.memory.editing()
        self.block.__enter__()

    @precondition(lambda self: self.block is not None)
    @rule()
    def end_the_block(self):
        self.block.__exit__(None, None, None)
        self.block = None

    def encoded(self, rows, given=None):
        keys, labels = [row[:2] for row in rows], [row[2] for row in rows]
        logits = np.array([[row[3], row[0], -row[3] * row[1]] for row in rows]) / 4
        return rs.Encoded(keys, logits, labels, given, output="logits"), (keys, logits, labels)

    def read_by(self, memory):
        """The readers live as long as the memory does: what they keep between calls must follow every edit."""
        self.memory = memory
        here = min(5, len(memory))
        full = {} if memory.storage.name == "none" else {"resmem": rs.ResMem(memory, here, SIGMA, TEMPERATURE)}
        self.readers = full | {"knnlm": rs.KNNLM(memory, here, LMBDA, SIGMA, TEMPERATURE)}

    @initialize(rows=rows)
    def start(self, rows):
        enc, plain = self.encoded(rows)
        self.plain.add(*plain, None)
        self.read_by(rs.Memory(enc, **self.storage))

    @rule(rows=rows)
    def add(self, rows):
        enc, plain = self.encoded(rows)
        assert self.memory.add(enc).tolist() == self.plain.add(*plain, None)

    @rule(rows=rows, data=st.data(), replace=st.booleans())
    def add_with_ids(self, rows, data, replace):
        given = data.draw(st.lists(ids, min_size=len(rows), max_size=len(rows)))
        enc, plain = self.encoded(rows, given)
        if set(given) & self.plain.present and not replace:
            with pytest.raises(IdError):
                self.memory.add(enc)
            return
        self.plain.forget(given)
        self.plain.add(*plain, given)
        assert self.memory.add(enc, replace=replace).tolist() == given

    @rule(gone=st.lists(ids, max_size=4))
    def forget(self, gone):
        if set(gone) <= self.plain.present:
            assert self.memory.forget(gone) == self.plain.forget(gone)
        else:
            with pytest.raises(IdError):
                self.memory.forget(gone)

    @precondition(lambda self: self.plain.present)
    @rule(data=st.data())
    def relabel(self, data):
        changed = data.draw(st.lists(st.sampled_from(sorted(self.plain.present)), min_size=1, max_size=3, unique=True))
        labels = data.draw(st.lists(st.integers(0, CLASSES - 1), min_size=len(changed), max_size=len(changed)))
        hit = [i for i in self.plain.here if self.plain.id[i] in changed]
        for i in hit:
            self.plain.label[i] = labels[changed.index(self.plain.id[i])]
        assert self.memory.relabel(changed, labels) == len(hit)

    @rule()
    def rebuild(self):
        self.memory.rebuild()
        self.plain.rebuild()

    @precondition(lambda self: self.block is None)
    @rule(elsewhere=st.booleans())
    def save(self, elsewhere):
        self.memory.save(self.folder / ("b" if elsewhere else "a"))

    @precondition(lambda self: self.block is None)
    @rule(elsewhere=st.booleans())
    def save_and_load(self, elsewhere):
        folder = self.folder / ("b" if elsewhere else "a")
        self.memory.save(folder)
        self.read_by(rs.Memory.load(folder))

    @precondition(lambda self: self.block is None)
    @invariant()
    def same_rows(self):
        here = self.plain.here
        assert (len(self.memory), self.memory.active_rows.tolist()) == (len(here), here)
        assert self.memory.ids.tolist() == [self.plain.id[i] for i in here]
        assert self.memory.labels.tolist() == [self.plain.label[i] for i in here]
        assert all(id in self.memory for id in self.plain.present)

    @precondition(lambda self: self.block is None)
    @invariant()
    def same_neighbours(self):
        for excluded in (None, [[0, 1]] * 3):
            found = self.memory.search(QUERIES, 6, exclude=excluded)
            for q, query in enumerate(QUERIES):
                rows, distances = self.plain.nearest(query, 6, () if excluded is None else excluded[q])
                missing = 6 - len(rows)
                assert found.rows[q].tolist() == rows.tolist() + [-1] * missing
                assert found.distances[q].tolist() == distances.tolist() + [np.inf] * missing

    @precondition(lambda self: self.block is None)
    @invariant()
    def same_scores(self):
        logits = np.array([[0, 1, 2], [3, 0, 0], [-1, 0.5, 0]], np.float32)
        for name, reader in self.readers.items():
            expected = [getattr(self.plain, name)(q, f, reader.k) for q, f in zip(QUERIES, logits, strict=True)]
            scores = reader.scores(rs.Encoded(QUERIES, logits, output="logits"))
            np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-6, err_msg=name)


class TopM(Machine):
    """All entries kept, so that the formulas above hold, in the other code path."""

    storage: ClassVar = {"storage": "top-m", "m": CLASSES, "temperature": TEMPERATURE}


class Labels(Machine):
    storage: ClassVar = {"storage": "none"}


class Engine(Machine):
    """An index that has the keys itself; as it re-ranks them all, its answers are exact, too."""

    storage: ClassVar = {"storage": "full", "index": "Flat", "overfetch": 1000}


class TorchEngine(Machine):
    """The exact search of a machine without FAISS."""

    def read_by(self, memory):
        memory.index.backend = "torch"
        super().read_by(memory)


@pytest.mark.parametrize(
    ("machine", "examples"), [(Machine, 25), (TopM, 12), (Labels, 8), (Engine, 25), (TorchEngine, 12)]
)
@pytest.mark.slow
def test_random_histories(machine, examples):
    case = machine.TestCase
    case.settings = settings(max_examples=examples, stateful_step_count=15, deadline=None)
    case().runTest()


def test_scores_are_those_of_the_formula_whichever_path_is_taken():
    """One query makes residuals when they are read, a batch a table of all of them first."""
    rng = np.random.default_rng(0)
    keys, logits, labels = rng.integers(-3, 4, (200, DIM)), rng.normal(size=(200, CLASSES)), rng.integers(0, 3, 200)
    plain = Plain()
    plain.add(keys, logits, labels, None)
    plain.forget(range(0, 200, 5))
    memory = rs.Memory(rs.Encoded(keys, logits, labels))
    memory.forget(np.arange(0, 200, 5))
    queries, said = rng.normal(size=(40, DIM)).astype(np.float32), rng.normal(size=(40, CLASSES))
    expected = [plain.resmem(q, f, 7) for q, f in zip(queries, said, strict=True)]
    reader = rs.ResMem(memory, 7, SIGMA, TEMPERATURE)
    enc = rs.Encoded(queries, said)
    single = np.concatenate([reader.scores(enc[i]) for i in range(40)])
    whole = reader.scores(enc)
    np.testing.assert_allclose(single, expected, atol=1e-6)
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    assert torch.equal(
        memory.search(queries, 3).rows, torch.tensor(np.stack([plain.nearest(q, 3)[0] for q in queries]))
    )
