"""Edits: their radii by hand, undone by forgetting, nested, saved, explained, tuned and attached."""

import copy
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.errors import (
    EmptyMemoryError,
    IdError,
    InputError,
    LabelError,
    MemoryFileError,
    ParameterError,
    ShapeError,
    StorageError,
    TaskError,
)
from residua.readers.edited import LOOKED_AT, SAME


def line(*places, labels=None, outputs=3, **more):
    """Rows on a line."""
    return rs.Encoded(np.array(places, float)[:, None], np.zeros((len(places), outputs)), labels, **more)


def memory(**options):
    return rs.Memory(line(0, 1, 2, 10, 11, labels=[0, 0, 0, 1, 1]), **options)


def blobs(n, seed, outputs=4, dim=3):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, dim))
    return rs.Encoded(keys, rng.normal(size=(n, outputs)), rng.integers(0, outputs, n))


def radii_by_hand(reader, places, labels, reach):
    """The rule, from the arrays: the nearest row or edit of another label, the nearest edit of the same."""
    found, rows = [], reader.memory
    for place, label in zip(places, labels):
        away = np.linalg.norm(rows.keys - place, axis=1)
        margin = away[rows.labels != label].min()
        among = np.linalg.norm(places - place, axis=1)
        margin = min([margin, *among[labels != label]])
        own = [d for d in among[labels == label] if d > 1e-6]
        found.append(max([reach * margin, *([min(own)] if own and min(own) < margin else [])]))
    return np.array(found)


def test_by_hand():
    reader = rs.edit(rs.ResMem(memory(), k=1), line(5), [1])
    assert reader.radii.tolist() == [2.25]  # three quarters of the way to 2
    queries = line(2, 2.7, 2.75, 5, 7.25, 7.3)
    assert reader.predict(queries).tolist() == [0, 0, 1, 1, 1, 1]  # the last by the memory: 10 is nearer than 2
    p = reader.predict_proba(queries)
    assert p[3] == pytest.approx(0.01 * reader.over.predict_proba(line(5))[0] + [0, 0.99, 0])
    outside = [0, 1, 5]
    assert p[outside] == pytest.approx(reader.over.predict_proba(queries)[outside], abs=1e-6)


def test_another_label_splits_and_the_same_one_grows():
    reader = rs.edit(rs.KNNLM(memory(), k=0), line(5), [2])
    assert reader.radii.tolist() == [2.25]
    rs.edit(reader, line(6), [1])
    assert reader.radii.tolist() == [0.75, 0.75]
    assert reader.predict(line(5.4, 5.6, 6.7, 6.8)).tolist()[:3] == [2, 1, 1]
    reader.edits.forget(1)
    assert reader.radii.tolist() == [2.25]  # as it was
    rs.edit(reader, line(7.5), [2])
    assert reader.radii.tolist() == [2.5, 1.875]  # to the other edit, but the remembered row at 10 is as near
    reader.edits.undo()
    assert reader.radii.tolist() == [2.25]


@given(st.lists(st.tuples(st.integers(3, 9), st.integers(0, 2)), min_size=1, max_size=8, unique_by=lambda e: e[0]))
@settings(max_examples=30, deadline=None)
def test_one_by_one_is_all_at_once_and_the_rule(edits):
    places, labels = (np.array(part) for part in zip(*edits))
    reader = rs.KNNLM(memory(), k=0)
    at_once = rs.edit(reader, line(*places), labels)
    for place, label in edits:
        reader = rs.edit(reader, line(place), [label])
    wanted = radii_by_hand(reader, places[:, None].astype(float), labels, 0.75)
    assert at_once.radii == pytest.approx(wanted)
    assert reader.radii == pytest.approx(wanted)
    assert reader.predict(line(*places)).tolist() == labels.tolist()


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_forgotten_edits_leave_no_trace(seed):
    rng = np.random.default_rng(seed)
    over, queries = rs.ResMem(rs.Memory(blobs(60, seed)), k=5), blobs(40, seed + 1)
    first, more = blobs(6, seed + 2), blobs(6, seed + 3)
    reader = rs.edit(over, first, rng.integers(0, 4, 6))
    before, reached = reader.scores(queries), reader.radii
    rs.edit(reader, more, rng.integers(0, 4, 6))
    reader.edits.forget(np.arange(6, 12))
    assert (reader.scores(queries) == before).all()
    assert (reader.radii == reached).all()
    reader.edits.forget(np.arange(6))
    assert (reader.scores(queries) == over.predict_proba(queries)).all()
    assert (reader.predict(queries) == over.predict(queries)).all()


OVER = {
    "model": lambda rows: rs.KNNLM(rows, k=0, temperature=1.3),
    "knnlm": lambda rows: rs.KNNLM(rows, k=6, lmbda=0.4, skip=0.7),
    "resmem": lambda rows: rs.ResMem(rows, k=6),
    "resmem exponent": lambda rows: rs.ResMem(rows, k=6, space="exponent"),
    "distilled": lambda rows: rs.distil(rs.KNNLM(rows, k=6), epochs=2),
    "gated": lambda rows: rs.Gated(rows).fit(blobs(400, 9), evidence=None),
}


@pytest.mark.parametrize("over", OVER)
def test_over_any_reader(over, tmp_path):
    under = OVER[over](rs.Memory(blobs(200, 0)))
    examples, queries = blobs(8, 1), blobs(3000, 2)
    reader = rs.edit(under, examples, [0, 1, 2, 3, 0, 1, 2, 3])
    told = reader.predict_proba(queries)
    by_hand = under.predict_proba(queries)
    away = np.linalg.norm(queries.keys[:, None] - examples.keys, axis=2)
    nearest = away.argmin(axis=1)
    decided = away.min(axis=1) <= reader.radii[nearest]
    assert 20 < decided.sum() < 1500
    by_hand[decided] = 0.01 * by_hand[decided] + 0.99 * np.eye(4)[nearest[decided] % 4]
    assert told == pytest.approx(by_hand, abs=1e-6)
    found = rs.evaluate(reader, queries)
    assert found.accuracy == pytest.approx((told.argmax(axis=1) == queries.labels).mean())
    assert found.log_loss == pytest.approx(-np.log(told[np.arange(3000), queries.labels]).mean(), rel=1e-4)
    reader.save(tmp_path)
    again = rs.load(tmp_path)
    assert (again.predict_proba(queries) == told).all()
    assert again.params["reach"] == 0.75
    assert [str(event) for event in again.edits.log()] == [str(event) for event in reader.edits.log()]
    again.edits.forget(again.edits.ids)
    again.save(tmp_path)
    assert (rs.load(tmp_path).predict_proba(queries) == under.predict_proba(queries)).all()


def test_a_cache_over_edits_and_edits_over_a_cache(tmp_path):
    rows = rs.Memory(blobs(50, 0))
    text = rs.Encoded(blobs(30, 3).keys, np.zeros((30, 4)), [0, 1, 2] * 10, ids=[0] * 15 + [1] * 15)
    under = rs.ContinuousCache(rs.KNNLM(rows, k=4), theta=1.0, lmbda=0.3)
    wrong = text[4]
    reader = rs.edit(under, wrong, [3])
    assert reader.predict(text)[4] == 3
    rest = [row for row in range(30) if np.linalg.norm(text.keys[row] - text.keys[4]) > reader.radii[0]]
    assert reader.predict_proba(text)[rest] == pytest.approx(under.predict_proba(text)[rest], abs=1e-6)
    above = rs.ContinuousCache(rs.edit(rs.KNNLM(rows, k=4), wrong, [3]), theta=1.0, lmbda=0.3)
    assert above.predict(text)[4] == 3
    above.save(tmp_path)
    assert (rs.load(tmp_path).scores(text) == above.scores(text)).all()
    with pytest.raises(ParameterError, match="reads edits already"):
        rs.edit(above, wrong, [3])


def test_the_same_key_with_another_label_takes_its_place():
    reader = rs.edit(rs.ResMem(memory(), k=1), line(5), [1])
    rs.edit(reader, line(5), [2])
    assert reader.edits.ids.tolist() == [1]
    assert reader.predict(line(5)).tolist() == [2]
    reader.edits.undo()
    assert reader.predict(line(5)).tolist() == [1]
    rs.edit(reader, line(5), [1])  # once more
    assert reader.radii.tolist() == [2.25, 2.25]


def test_a_remembered_row_is_contradicted():
    reader = rs.edit(rs.ResMem(memory(), k=1), line(1), [2])
    assert reader.predict(line(1)).tolist() == [2]
    assert reader.radii.tolist() == [0.75]  # to its neighbours, not to the row that it contradicts


def test_numbers_and_names():
    two = line(4, 5, ids=[70, 70], labels=[1, 1])
    reader = rs.edit(rs.ResMem(memory(), k=1), two, note="by Ann")
    rs.edit(reader, line(6, 7, labels=[1, 1], ids=[70, 71], names=["a.png", "b.png"]), note="by Bo")
    assert reader.edits.ids.tolist() == [0, 0, 1, 2]  # ids of the examples are not the edits'
    assert dict(reader.edits.names) == {1: "a.png", 2: "b.png"}
    assert "by Bo" in str(reader.edits.log()[-1])
    assert reader.edits.to_frame()["margin"].tolist() == [2, 3, 4, 5]
    assert reader.edits.forget(0) == 2
    queries = line(4, 6, labels=[0, 0], ids=[1, 2])  # whose ids exclude rows of the memory, and no edits
    assert reader.predict(queries)[1] == 1


def test_explained():
    reader = rs.edit(rs.ResMem(memory(), k=2), line(5, 6), [1, 1])
    why = rs.explain(reader, line(5.5 + 1))
    assert why.sources == ("edit 1",)
    assert why.distances.tolist() == [0.5]
    assert why.scale * why.base + why.contributions.sum(axis=0) == pytest.approx(reader.scores(line(6.5))[0], abs=1e-6)
    assert "edit 1" in str(why)
    assert (why.prediction, why.base_prediction) == (1, int(reader.over.predict(line(6.5))[0]))
    outside = rs.explain(reader, line(0.5))
    assert outside.ids.tolist() == rs.explain(reader.over, line(0.5)).ids.tolist()
    assert "edit" not in str(outside)


def test_tuned_under_the_edits():
    reader = rs.edit(rs.ResMem(rs.Memory(blobs(200, 0)), k=3), blobs(2, 1), [0, 1])
    best = rs.tune(reader, blobs(200, 2), {"k": [0, 5], "sigma": [1.0], "temperature": [1.0]}, evidence=None)
    same = rs.tune(reader.over, blobs(200, 2), {"k": [0, 5], "sigma": [1.0], "temperature": [1.0]}, evidence=None)
    assert best.over.params == same.params
    assert best.edits is reader.edits
    assert best.best_params_ == same.best_params_


def test_attached():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    x, y = torch.randn(60, 5), torch.arange(60) % 3
    enc = rs.encode(model, (x, y), batch_size=16)
    reader = rs.ResMem(rs.Memory(enc), k=4)
    probe = torch.randn(20, 5)
    asked = rs.encode(model, probe)
    before = reader.predict(asked)
    with rs.attach(model, reader) as handle:
        handle.reader = rs.edit(reader, asked[3], [(before[3] + 1) % 3])
        now = model(probe).argmax(dim=1).numpy()
        alone = torch.cat([model(row[None]) for row in probe]).argmax(dim=1).numpy()
        assert now[3] == (before[3] + 1) % 3
        assert (now == handle.reader.predict(asked)).all()
        assert (alone == now).all()
        handle.reader.edits.forget(0)
        assert (model(probe).argmax(dim=1).numpy() == before).all()


def test_live(tmp_path):
    rs.edit(rs.ResMem(memory(), k=1), line(5), [1]).save(tmp_path)
    one, other = rs.load(tmp_path, live=True), rs.load(tmp_path, live=True)
    rs.edit(one, line(7), [2])
    other.edits.refresh()
    assert other.edits.ids.tolist() == [0, 1]
    assert rs.load(tmp_path).predict(line(7)).tolist() == [2]


def test_saved_aside_and_nothing_foreign_touched(tmp_path):
    reader = rs.edit(rs.ResMem(memory(), k=1), line(5), [1])
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(MemoryFileError, match="not a memory's"):
        reader.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "lock") == ["mine.txt"]
    folder = tmp_path / "mem"
    reader.save(folder)
    assert rs.Memory.load(folder / "edits").ids.tolist() == [0]
    assert len(rs.Memory.load(folder)) == 5
    (folder / "edits" / "manifest.json").unlink()
    with pytest.raises(MemoryFileError, match="edits"):
        rs.load(folder)


def test_what_was_calibrated_before_is_warned_of():
    reader = rs.edit(rs.ResMem(rs.Memory(blobs(200, 0)), k=3), blobs(1, 1), [0])
    sets = rs.conformal(reader, blobs(200, 2))
    sets.predict_set(blobs(5, 3))
    rs.edit(reader, blobs(1, 4), [1])
    with pytest.warns(UserWarning, match="edited after this was calibrated"):
        sets.predict_set(blobs(5, 3))


def test_of_normalised_keys():
    rows = rs.Memory(rs.Encoded([[1.0, 0], [0, 2.0]], np.zeros((2, 2)), [0, 1]), normalise=True)
    reader = rs.edit(rs.KNNLM(rows, k=0), rs.Encoded([[5.0, 5.0]], np.zeros((1, 2))), [1])
    assert reader.edits.to_frame()["margin"].tolist() == pytest.approx([2 * np.sin(np.pi / 8)])
    assert reader.predict(rs.Encoded([[0.1, 0.09]], [[9.0, 0]])).tolist() == [1]


def test_labels_of_one_kind_alone():
    """Where no other label is near, the last neighbour looked at stands for one."""
    alike = rs.Memory(line(*range(2000), labels=[0] * 2000))
    reader = rs.edit(rs.KNNLM(alike, k=0), line(0.5), [0])
    assert reader.edits.to_frame()["margin"].tolist() == [LOOKED_AT[-1] - 1 - 0.5]
    few = rs.edit(rs.KNNLM(rs.Memory(line(0, 2, labels=[0, 0])), k=0), line(1), [0])
    assert few.edits.to_frame()["margin"].tolist() == [2.0]  # the typical distance


def test_of_a_memory_that_holds_nothing_any_more():
    empty = memory()
    reader = rs.edit(rs.ResMem(empty, k=1), line(5), [1])
    empty.forget(empty.ids)
    sure = 4 * np.eye(3)[[0, 0, 0]]
    assert reader.predict(rs.Encoded([[5.0], [7.0], [8.0]], sure)).tolist() == [1, 1, 0]  # with the radius it had
    rs.edit(reader, line(20), [2])
    assert reader.predict(rs.Encoded([[20.0], [20.7], [22.0]], sure)).tolist() == [2, 2, 0]  # typical distance: 1
    alike = rs.KNNLM(rs.Memory(line(3, 3, labels=[0, 0])), k=0)
    assert rs.edit(alike, line(4), [1]).predict(line(4, 3)).tolist() == [1, 1]


def test_a_tiny_difference_is_the_same_example():
    reader = rs.edit(rs.ResMem(memory(), k=1), line(2 + SAME / 4, labels=[1]))
    assert reader.predict(line(2 + SAME / 2)).tolist() == [1]
    assert reader.edits.to_frame()["margin"].tolist() == pytest.approx([1.0], abs=0.01)  # 2 is contradicted, 1 is not


def test_classes_by_name_and_new_ones():
    named = rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1], classes=["cat", "dog"])
    reader = rs.ResMem(rs.Memory(named), k=1)
    wrong = rs.Encoded([[0.5, 0.5, 0.5]], np.zeros((1, 2)), classes=["cat", "dog"])
    assert rs.edit(reader, wrong, ["cat"]).predict(wrong).tolist() == [0]
    with pytest.raises(LabelError, match="cow"):
        rs.edit(reader, wrong, ["cow"])
    grown = memory()
    grown.add(line(20, labels=[3], outputs=3, new_classes=True), new_classes=True)
    late = rs.edit(rs.ResMem(grown, k=1), line(5), [3])
    assert late.predict(line(5)).tolist() == [3]


def test_what_is_refused():
    reader = rs.ResMem(memory(), k=1)
    for examples, labels, error, match in [
        (line(), [], EmptyMemoryError, "no rows"),
        (line(5), None, LabelError, "rs.edit"),
        (line(5), [3], LabelError, "out of range"),
        (line(5, 6), [1, 1, 1], ShapeError, "2 ids"),
        (line(5, 5), [1, 2], LabelError, "same key"),
        (rs.Encoded(np.zeros((1, 2)), np.zeros((1, 3))), [0], ShapeError, "keys of 2"),
        (line(5, outputs=2), [0], ShapeError, "2 outputs"),
    ]:
        with pytest.raises(error, match=match):
            rs.edit(reader, examples, labels)
    edited = rs.edit(reader, line(5), [1])
    with pytest.raises(LabelError):
        rs.edit(edited, line(7, 8), [1, 9])
    assert edited.edits.ids.tolist() == [0]
    with pytest.raises(ParameterError, match="reader is expected"):
        rs.edit(reader.memory, line(5), [1])
    numbers = rs.Memory(rs.Encoded(np.eye(3), np.zeros(3), [0.5, 1.5, 2.0]))
    with pytest.raises(TaskError, match="regression"):
        rs.edit(rs.ResMem(numbers, k=1), rs.Encoded(np.eye(3), np.zeros(3)), [1.0])
    for wrong in ({"reach": 0}, {"reach": 1.5}, {"lmbda": 0.5}, {"lmbda": 1}):
        with pytest.raises(ParameterError):
            edited.with_params(**wrong)
    with pytest.raises(ParameterError, match="Memory of them"):
        rs.Edited(reader, [1])
    with pytest.raises(InputError, match="margin"):
        rs.Edited(reader, memory())
    with pytest.raises(ParameterError, match="already"):
        rs.Edited(edited, edited.edits)
    with pytest.raises(IdError):
        edited.edits.forget(5)


def test_edits_while_others_read():
    reader = rs.edit(rs.ResMem(rs.Memory(blobs(300, 0)), k=3), blobs(1, 1), [0])
    queries, errors = blobs(500, 2), []

    def read():
        try:
            for _ in range(30):
                reader.predict(queries)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(30):
        rs.edit(reader, blobs(1, 10 + number), [number % 4])
        if number % 3 == 0:
            reader.edits.forget(number)
    for thread in threads:
        thread.join()
    assert not errors


def test_a_memory_without_a_folder_has_nothing_beside_it():
    reader = rs.edit(rs.ResMem(memory(), k=1), line(5), [1])
    with pytest.raises(StorageError, match="no folder"):
        rs.Edited.from_json(reader.to_json()["params"], reader.memory)
    copied = copy.deepcopy(reader)
    copied.edits.forget(0)
    assert reader.predict(line(5)).tolist() == [1]
