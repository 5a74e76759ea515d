"""What is said of a memory is what its attributes hold."""

import numpy as np

import residua as rs
from residua.core import Source
from residua.memory.facts import facts


def rows(n=600, **more):
    rng = np.random.default_rng(0)
    return rs.Encoded(rng.normal(size=(n, 8)), rng.normal(size=(n, 3)), rng.integers(0, 3, n), **more)


def test_rows_that_are_there_and_rows_that_are_forgotten():
    memory = rs.Memory(rows(columns={"page": np.arange(600)}, source=Source("Net", "fc:input")), key_dtype="float16")
    assert facts(memory)["rows"] == "600"
    memory.forget(memory.ids[:7])
    found = facts(memory)
    assert found["rows"] == "593 (7 more are forgotten)"
    assert found["columns"] == "page"
    assert found["keys"] == "8 numbers each, kept as float16"
    assert found["bytes per row"].startswith(f"{sum(memory.bytes_per_row.values())} (key 16, ")
    assert found["made by"] == "Net (float32), key fc:input"


def test_a_text_has_tokens_and_those_documents_that_are_remembered():
    columns = {"offset": np.tile(np.arange(100), 6)}
    memory = rs.Memory(rows(ids=np.repeat(np.arange(6), 100), columns=columns), storage="none")
    memory.forget([2, 5])
    found = facts(memory)
    assert (found["tokens"], found["documents"]) == ("400 (200 more are forgotten)", "4")
    assert found["storage"] == "none" and "rows" not in found


def test_a_trained_index_and_discarded_keys():
    memory = rs.Memory(rows(), index="IVF4,SQ8", index_params={"nprobe": 4}, storage="top-m", m=2)
    found = facts(memory)
    assert found["index"] == f"IVF4,SQ8, {memory.recall}"
    assert found["storage"] == "top-m (m=2, temperature=1)"
    memory.discard_keys()
    assert facts(memory)["keys"] == "8 numbers each, discarded: the index keeps codes of them"


def test_a_regression():
    memory = rs.Memory(rs.Encoded(np.eye(3)[:, :1], np.zeros(3), np.arange(3.0)))
    found = facts(memory)
    assert found["task"] == "regression, 1 output" and found["keys"].startswith("1 number each")
