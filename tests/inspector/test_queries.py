import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.inspector.queries import Queries
from residua.inspector.sliders import moved

SHOWN = {
    "classification": (
        "accuracy",
        "base_accuracy",
        "log_loss",
        "base_log_loss",
        "ece",
        "tpr",
        "fpr",
        "gain",
        "f1_macro",
    ),
    "multi-label": ("accuracy", "base_accuracy", "log_loss", "tpr", "fpr", "gain", "mean_average_precision"),
    "regression": ("mse", "base_mse", "gain", "r2", "improved", "worsened"),
}


def readers(memory, task):
    yield rs.ResMem(memory, k=20, sigma=1.0)
    yield rs.KNNLM(memory, k=20, lmbda=0.4, sigma=1.0, temperature=1.0 if task == "regression" else 2.0)
    if task != "regression":
        yield rs.ResMem(memory, k=9, sigma=2.0, temperature=1.7, space="exponent")
    if task == "classification":
        yield rs.ResMem(memory, k=20, sigma=1.0, skip=0.6)
        yield rs.Gated(memory, k=20).fit(evidence=None)
    if task != "multi-label":
        yield rs.Pooled(memory, k=20).fit(evidence=None)


@pytest.mark.parametrize("task", SHOWN)
def test_figures_are_those_of_evaluate_whatever_the_settings(made, task):
    memory, test = rs.Memory(made(300, 0, task)), made(90, 1, task)
    for reader in readers(memory, task):
        queries = Queries(reader, test)
        for own in ({}, {"k": 7}, {"k": 0}, {"k": 60}):
            setting = moved(reader, own)
            found, expected = queries.figures(setting), rs.evaluate(setting, test, label_knn=False)
            for name in SHOWN[task]:
                assert found[name] == getattr(expected, name), (reader, own, name)


def test_settings_are_searched_once(made, memory, monkeypatch):
    reader = rs.ResMem(memory, k=20)
    queries, searched = Queries(reader, made(50, 1)), []
    search = rs.Memory.search
    monkeypatch.setattr(rs.Memory, "search", lambda self, *a, **o: searched.append(1) or search(self, *a, **o))
    for k, sigma, temperature in [(1, 1.0, 1.0), (20, 0.3, 2.0), (50, 3.0, 0.5)]:
        queries.figures(reader.with_params(k=k, sigma=sigma, temperature=temperature))
    assert len(searched) == 1


EDITS = st.lists(st.tuples(st.sampled_from(["forget", "relabel", "add", "undo"]), st.integers(0, 10**6)), max_size=6)


@given(edits=EDITS, normalise=st.booleans())
@settings(max_examples=25)
def test_after_edits_the_neighbours_are_those_of_a_search_anew(made, edits, normalise):
    memory = rs.Memory(made(40), normalise=normalise)
    reader, test = rs.ResMem(memory, k=5), made(12, 1)
    queries = Queries(reader, test, depth=8)
    queries.figures(reader)
    for what, number in edits:
        if what == "forget" and len(memory) > 10:
            memory.forget(int(memory.ids[number % len(memory)]))
        elif what == "relabel":
            memory.relabel(int(memory.ids[number % len(memory)]), number % 3)
        elif what == "add":
            memory.add(made(3, number % 1000))
        elif len(memory.log()) > 1 and any(e.undoes is None for e in memory.log()[1:]):
            try:
                memory.undo()
            except rs.errors.StorageError:
                continue
        now = reader.with_params(k=min(5, len(memory)))
        found, anew = queries.measured(now), Queries(now, test, depth=8).measured(now)
        assert {name: found[name].tolist() for name in found} == {name: anew[name].tolist() for name in anew}


def test_an_edit_searches_few_queries_again(made, monkeypatch):
    memory = rs.Memory(made(3000))
    reader = rs.ResMem(memory, k=5)
    queries, asked = Queries(reader, made(500, 1), depth=5), []
    queries.figures(reader)
    search = rs.Memory.search
    monkeypatch.setattr(
        rs.Memory, "search", lambda self, keys, *a, **o: asked.append(len(keys)) or search(self, keys, *a, **o)
    )
    memory.forget(7)
    queries.figures(reader)
    memory.undo()
    queries.figures(reader)
    memory.relabel(7, 1)
    queries.figures(reader)
    assert sum(asked) < 100


def test_a_rebuild_and_a_refresh_search_everything_again(made, tmp_path):
    memory = rs.Memory(made(60))
    memory.save(tmp_path / "mem")
    reader, test = rs.ResMem(memory, k=5), made(20, 1)
    queries = Queries(reader, test)
    queries.figures(reader)
    memory.forget(list(range(30)))
    memory.rebuild()
    assert queries.figures(reader)["log_loss"] == Queries(reader, test).figures(reader)["log_loss"]
    memory.save(tmp_path / "mem")
    other = rs.Memory.load(tmp_path / "mem")
    other.forget(list(range(30, 50)))
    other.save(tmp_path / "mem")
    memory.refresh()
    reader = reader.with_params(k=5)
    assert queries.figures(reader)["log_loss"] == Queries(reader, test).figures(reader)["log_loss"]


def test_own_ids_are_no_neighbours(made):
    data = made(100)
    data = rs.Encoded(data.keys, data.logits, data.labels, ids=np.arange(100))
    reader = rs.ResMem(rs.Memory(data), k=5)
    assert Queries(reader, data).figures(reader)["accuracy"] == rs.evaluate(reader, data, label_knn=False).accuracy


def test_of_many_rows_some_at_equal_distances_are_held(made, memory):
    queries = Queries(rs.ResMem(memory), made(1000, 1), most=10)
    assert queries.numbers.tolist() == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert (len(queries), queries.total) == (10, 1000)
    parts = [made(7, 1), made(5, 2)]
    queries = Queries(rs.ResMem(memory), parts, most=4)
    assert queries.numbers.tolist() == [0, 4, 7, 11]
    assert queries[2].keys.tolist() == parts[1][0].keys.tolist()


def test_of_a_stream_the_first_rows_are_held(made, memory):
    queries = Queries(rs.ResMem(memory), (made(30, seed) for seed in (1, 2, 3)), most=40)
    assert (len(queries), queries.total) == (40, None)
    assert queries.numbers.tolist() == list(range(40))


def test_without_labels_answers_are_known_and_figures_are_not(made, memory):
    data, reader = made(30, 1), rs.ResMem(memory)
    bare = rs.Encoded(data.keys, data.logits)
    queries = Queries(reader, bare)
    assert not queries.has_labels
    said = queries.answers(reader)
    assert said["prediction"].tolist() == reader.predict(bare).tolist()
    assert said["base_prediction"].tolist() == data.logits.argmax().tolist()
    with pytest.raises(rs.errors.LabelError):
        queries.figures(reader)


def test_no_rows_are_refused(made, memory):
    with pytest.raises(rs.errors.InputError, match="no rows"):
        Queries(rs.ResMem(memory), made(5)[:0])


def test_a_memory_that_is_emptied_is_the_model_alone(made):
    memory, test = rs.Memory(made(20)), made(30, 1)
    reader = rs.ResMem(memory, k=5)
    queries = Queries(reader, test)
    queries.figures(reader)
    memory.forget(memory.ids)
    found = queries.figures(reader)
    assert found["accuracy"] == found["base_accuracy"]


def test_twice_as_many_neighbours_are_known_as_are_read(made):
    memory, test = rs.Memory(made(3000)), made(4, 1)
    found = {k: Queries(rs.KNNLM(memory, k=k, sigma=1.0), test).depth for k in (5, 200, 800, 2000)}
    assert found == {5: 256, 200: 400, 800: 1024, 2000: 2000}
