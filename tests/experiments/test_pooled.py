"""Pooled beside the papers' readers: the parts on a toy memory."""

import numpy as np
import pytest

import residua as rs
from experiments import pooled
from residua.errors import ParameterError


def task(n, seed):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    labels = (keys[:, 0] > 0).astype(int) + (keys[:, 0] * keys[:, 1] > 0)
    return rs.Encoded(keys, rng.normal(size=(n, 3)), labels)


@pytest.mark.slow
def test_every_reader_answers_rows_that_it_was_not_fitted_on(monkeypatch):
    monkeypatch.setattr(pooled, "GRID", {"k": [10, 20, 1000], "temperature": [1.0, 2.0]})
    memory, test = rs.Memory(task(300, 0)), task(200, 1)
    said = pooled.answers(memory, test)
    assert set(said) == set(pooled.READERS)
    readers = {name: pooled.judged(table, test.labels, said["base"]) for name, table in said.items()}
    for name, found in readers.items():
        np.testing.assert_allclose(said[name].sum(axis=1), 1, atol=1e-4)
        assert name == "base" or found["over"]["log_loss"][2] < 0 < found["over"]["accuracy"][1]
    pairs = {"pooled, accuracy": pooled.differences(said["pooled"], said["accuracy"], test.labels)}
    about = {"network": "toy", "memory": 300, "n": 200, "readers": readers, "pairs": pairs}
    results = {"networks": [about, about]}
    tables = pooled.tables(results)
    assert len(tables["network 2"].rows) == len(pooled.READERS) and len(tables["pairs"].columns) == 3
    assert len(pooled.draw(results).axes) == 2


def test_it_needs_a_network():
    with pytest.raises(ParameterError, match="weights is empty"):
        pooled.measure(None)
