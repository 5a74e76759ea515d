import numpy as np
import pytest

import residua as rs
from residua.inspector.session import Session, settings_of


@pytest.fixture
def session(made, memory):
    return Session(rs.ResMem(memory, k=10, sigma=1.0), made(120, 1))


def test_an_explanation_is_that_of_explain(made, session):
    test = made(120, 1)
    own = {"k": 4, "sigma": 0.7, "temperature": 1.3}
    shown = session.explanation(own, "row-17")
    why = rs.explain(session.reader.with_params(**own), test[17])
    assert [one["name"] for one in shown["scores"]].count("cat") == 1
    names = {name: i for i, name in enumerate(session.words.classes)}
    for one in shown["scores"]:
        at = why.outputs.tolist().index(names[one["name"]])
        assert one["base"] == float(why.base[at]) and one["score"] == float(why.scores[at])
        assert one["base"] * shown["scale"] + one["added"] == pytest.approx(one["score"], abs=1e-6)
    assert {int(one["id"]): one["weight"] for one in shown["neighbours"]} == dict(
        zip(why.ids.tolist(), why.weights.tolist())
    )
    first = shown["columns"].index(shown["prediction"])
    to = dict(zip(why.ids.tolist(), why.contributions_to["predicted"].tolist()))
    assert all(one["moved"][first] == to[int(one["id"])] for one in shown["neighbours"])
    assert shown["label"] == session.words.classes[test.labels[17]]


def test_more_neighbours_than_are_shown_are_summed_up(session):
    shown = session.explanation({"k": 200}, "row-0")
    weights = sum(one["weight"] for one in shown["neighbours"]) + shown["rest"]["weight"]
    assert len(shown["neighbours"]) + shown["rest"]["count"] == 200 and weights == pytest.approx(1)


def test_k_of_0_is_the_model_alone(session):
    shown = session.explanation({"k": 0}, "row-0")
    assert shown["neighbours"] == [] and shown["prediction"] == shown["base"]
    assert {one["value"] for one in session.figures({"k": 0})["changes"]} == {0.0}


def test_examples_by_what_became_of_them(made, session):
    test, reader = made(120, 1), session.reader
    now, base = reader.predict(test), test.logits.argmax().numpy()
    places = {
        "all": np.arange(120),
        "fixed": np.flatnonzero((now == test.labels) & (base != test.labels)),
        "broken": np.flatnonzero((now != test.labels) & (base == test.labels)),
        "changed": np.flatnonzero(now != base),
        "wrong": np.flatnonzero(now != test.labels),
    }
    for which, expected in places.items():
        found, page = [], 0
        while True:
            told = session.examples({}, which, page)
            assert told["total"] == len(expected)
            found += [one["example"] for one in told["examples"]]
            page += 1
            if page >= told["pages"]:
                break
        assert found == [f"row-{place}" for place in expected]
    assert len(places["fixed"]) and len(places["broken"])


def test_edits_are_the_memory_s_and_can_be_taken_back(session):
    before, memory = session.remembered(id="3")["rows"][0]["label"], session.memory
    other = next(name for name in session.words.classes if name != before)
    assert session.relabel([3], other)["relabelled"] == 1
    assert session.remembered(id="3")["rows"][0]["label"] == other
    assert session.forget([3])["forgotten"] == 1
    assert session.remembered(id="3")["total"] == 0 and 3 not in memory
    assert "forget" in session.status()["undo"] and session.status()["edits"] == 2
    assert "forget" in session.undo()["undone"]
    session.undo()
    assert session.remembered(id="3")["rows"][0]["label"] == before
    with pytest.raises(rs.errors.StorageError, match="no edit to undo"):
        session.undo()
    assert session.status()["undo"] is None


@pytest.mark.parametrize("label", ["", "horse", "3", "-1", "1.5"])
def test_a_label_that_there_is_not_is_refused(session, label):
    with pytest.raises(rs.errors.LabelError):
        session.relabel([3], label)
    assert session.status()["edits"] == 0


def test_labels_of_several_classes_and_of_numbers(made):
    session = Session(rs.ResMem(rs.Memory(made(40, task="multi-label"))))
    session.relabel([3, 4], "0, 2")
    assert session.memory.labels[3:5].tolist() == [[1, 0, 1]] * 2
    assert session.remembered(id="4")["rows"][0]["label"] == "0, 2"
    session.relabel([3], "none")
    assert session.memory.labels[3].tolist() == [0, 0, 0] and session.remembered(id="3")["rows"][0]["label"] == "none"
    session = Session(rs.ResMem(rs.Memory(made(40, task="regression"))))
    session.relabel([3], " 2.5 ")
    assert session.memory.labels[3] == pytest.approx(2.5)
    with pytest.raises(rs.errors.LabelError, match="no number"):
        session.relabel([3], "much")


def test_what_is_kept_is_in_the_folder_beside_what_others_saved(made, tmp_path):
    path = tmp_path / "mem"
    rs.ResMem(rs.Memory(made(40)), k=5, sigma=1.0).save(path)
    session = Session(rs.load(path), made(10, 1), path=path)
    session.forget([1])
    assert not session.status()["elsewhere"]
    other = rs.Memory.load(path)
    other.forget([2])
    other.save(path)
    assert session.status()["elsewhere"]
    kept = session.keep()
    assert kept["edits"] == 0 and not kept["elsewhere"]
    again = rs.load(path)
    assert again.memory.ids.tolist() == [0, *range(3, 40)] and again.params["k"] == 5
    assert session.figures({}) == Session(again, made(10, 1)).figures({})


def test_without_a_folder_nothing_is_kept(session):
    with pytest.raises(rs.errors.StorageError, match="no folder"):
        session.keep()


def test_a_memory_of_text(text_memory, letters):
    memory = text_memory("the cat sat on the mat", "the dog sat on the log")
    test = text_memory("the cat sat on the log", rows=True, first=7)
    session = Session(rs.KNNLM(memory, k=8, lmbda=0.5), test, tokenizer=letters)
    listed = session.examples({})["examples"]
    assert listed[5]["text"] == ["the c", "a"]
    shown = session.explanation({}, "row-5")
    assert shown["query"]["text"] == ["the c", "a"]
    assert all("".join(one["text"]).endswith(one["label"]) for one in shown["neighbours"])
    figures, expected = session.figures({"lmbda": 0.3}), rs.evaluate(session.reader.with_params(lmbda=0.3), test)
    assert figures["measures"][3]["memory"] == expected.log_loss
    found = session.remembered(text="sat")
    assert [one["name"] for one in found["rows"]] == ["text 0", "text 1"]
    assert found["rows"][0]["text"] == ["the cat sa", "t"] and found["rows"][0]["bearers"] == 22
    with pytest.raises(rs.errors.TaskError, match="forget the document"):
        session.relabel([0], "a")
    assert session.forget([0])["forgotten"] == 22
    assert session.figures({"lmbda": 0.3})["measures"][3]["memory"] != expected.log_loss


def test_a_cache_is_left_out_and_a_gate_with_one_refused(text_memory, letters):
    reader = rs.KNNLM(text_memory("the cat sat on the mat"), k=8)
    with pytest.warns(UserWarning, match="cache is left out"):
        session = Session(rs.ContinuousCache(reader, window=5), tokenizer=letters)
    assert session.reader is reader
    with pytest.raises(rs.errors.ParameterError, match="expected a reader"):
        Session(reader.memory)


def test_without_data_what_is_remembered_can_be_seen(memory):
    session = Session(rs.ResMem(memory))
    assert session.about()["data"] is None and session.remembered()["total"] == 300
    for asked in (session.figures, session.examples):
        with pytest.raises(rs.errors.InputError, match="no data"):
            asked({})


@pytest.mark.parametrize("example", ["row-120", "row--1", "upload-0", "7", "", "row-x", "row-" + "9" * 30])
def test_an_example_that_there_is_not_is_refused(session, example):
    with pytest.raises(rs.errors.InputError):
        session.explanation({}, example)


def test_pictures_are_those_of_ids_and_of_row_numbers(made):
    memory = rs.Memory(made(20))
    memory.forget([0])
    images, tests = np.arange(20 * 4, dtype=np.uint8).reshape(20, 2, 2), np.zeros((50, 2, 2), np.uint8)
    tests[:, 0, 0] = np.arange(50)
    session = Session(rs.ResMem(memory, k=5), made(50, 1), images=tests, remembered=images, rows=3)
    assert session.picture("memory", 7).tolist() == images[7].tolist()
    assert session.picture("row", 1)[0, 0] == 24  # the middle one of 50
    assert session.explanation({}, "row-1")["query"]["picture"] == "picture/row/1"
    assert session.remembered()["rows"][0]["picture"] == "picture/memory/1"
    assert session.picture("memory", 10**6) is None


def test_settings_out_of_an_address():
    assert settings_of({"k": "5", "sigma": "1e-3"}) == {"k": 5.0, "sigma": 0.001}
    for text in ("", "nan", "inf", "5;"):
        with pytest.raises(rs.errors.ParameterError):
            settings_of({"sigma": text})


def test_classes_that_others_added_are_called_by_their_names(made, tmp_path):
    path, data = tmp_path / "mem", made(40)
    bare = rs.Encoded(data.keys, data.logits, data.labels)
    rs.Memory(bare).save(path)
    session = Session(rs.ResMem(rs.Memory.load(path), k=5), rs.Encoded(bare.keys, bare.logits, bare.labels), path=path)
    assert session.figures({})["rows"] == 40
    other = rs.Memory.load(path)
    grown = rs.Encoded(data.keys[:4], data.logits.rows(slice(0, 4)), [4] * 4, new_classes=True)
    other.add(grown, new_classes=True)
    other.save(path)
    session.keep()
    assert session.figures({})["rows"] == 40 and session.about()["outputs"] == 5
    assert session.remembered(label="4")["total"] == 4 and session.explanation({}, "row-3")["scores"]


def test_data_of_another_width_are_refused_at_once(made, memory):
    data = made(9)
    for other in (rs.Encoded(data.keys[:, :5], data.logits), rs.Encoded(data.keys, np.zeros((9, 4)))):
        with pytest.raises(rs.errors.ShapeError):
            Session(rs.ResMem(memory), other)


def test_names_and_labels_of_any_length_are_shown_in_part(made):
    data, long = made(20), "x" * 100_000
    memory = rs.Memory(rs.Encoded(data.keys, data.logits, data.labels, classes=["a" * 10_000, "b", "c"]))
    memory.rename({1: (long,)})
    session = Session(rs.ResMem(memory, k=5), made(5))
    assert max(len(one["name"]) for one in session.remembered()["rows"]) == 300
    assert all(len(one["label"]) <= 300 for one in session.remembered()["rows"])


def test_without_keys_everything_is_searched_again(made):
    memory = rs.Memory(made(3000), index="IVF16,PQ3")
    memory.discard_keys()
    session = Session(rs.KNNLM(memory, k=5, sigma=1.0), made(50, 1))
    session.figures({})
    memory.forget(range(0, 3000, 3))
    expected = Session(rs.KNNLM(memory, k=5, sigma=1.0), made(50, 1)).figures({})
    assert session.figures({}) == expected


def test_keys_and_logits_in_their_files(made, tmp_path):
    rs.ResMem(rs.Memory(made(200, names="kept")), k=5, sigma=1.0).save(tmp_path / "mem")
    mapped = Session(rs.load(tmp_path / "mem", mmap=True), made(50, 1), path=tmp_path / "mem")
    plain = Session(rs.load(tmp_path / "mem"), made(50, 1))
    for session in (mapped, plain):
        session.figures({})
        session.forget([3, 4])
        session.relabel([5], "dog")
    assert mapped.figures({}) == plain.figures({})
    assert mapped.remembered(label="dog") == plain.remembered(label="dog")
    assert mapped.explanation({"k": 3}, "row-3") == plain.explanation({"k": 3}, "row-3")
    mapped.keep()
    assert len(rs.Memory.load(tmp_path / "mem")) == 198
