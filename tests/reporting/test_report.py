"""One page says what the verbs say, whatever the task, and leaves out what does not apply."""

import json
import re
import sys

import numpy as np
import pytest

import residua as rs
from residua.core import LabelValues
from residua.errors import IdError, MemoryFileError, MissingDependencyError, ParameterError, ShapeError
from residua.readers import NeighbourReader


def test_the_numbers_are_those_of_the_verbs(reader, rows, parsed):
    test, calibration = rows(2, 90), rows(3, 60)
    found = rs.report(reader, test, calibration=calibration, path=None)
    result = rs.evaluate(reader, test)
    assert found.result.to_dict() == result.to_dict()
    assert found.coverage.to_dict() == rs.conformal(reader, calibration).evaluate(test, 0.9).to_dict()
    review = rs.audit(reader, test)
    assert found.to_dict()["harmed"] == review.ids[np.argsort(review.influence, kind="stable")][:8].tolist()
    text = parsed(found).text
    assert f"{100 * result.base_accuracy:.2f} % → {100 * result.accuracy:.2f} %" in text
    assert result.verdict in text and f"{int((result.row_gain < 0).sum())} row" in text


def test_seven_questions_have_an_answer_with_a_number_in_it(reader, rows, parsed):
    found = rs.report(reader, rows(2, 90), path=None)
    questions = ["help", "sure", "Where", "cost", "confidence", "break", "next"]
    assert [word in one.question for word, one in zip(questions, found.answers, strict=True)] == [True] * 7
    for one in found.answers[:-1]:
        assert any(letter.isdigit() for letter in " ".join(one.lines)), one
    page = parsed(found)
    assert page.tags.index("ol") < page.tags.index("section")
    assert all(line in page.text for one in found.answers for line in one.lines)


def test_every_drawing_has_words_and_its_numbers(reader, rows):
    html = rs.report(reader, rows(2, 90), validation=rows(4, 60), path=None).html
    assert html.count("<svg") == html.count('role="img" aria-label="') == html.count("<figure>") > 5
    assert html.count("The numbers") == html.count("<svg")
    assert "prefers-color-scheme: dark" in html and "@media print" in html


def test_it_is_written_and_a_bad_path_leaves_nothing(reader, rows, tmp_path):
    path = tmp_path / "a page.html"
    found = rs.report(reader, rows(2, 30), path=path, title="Blobs & more")
    assert path.read_text(encoding="utf-8") == found.html and "<title>Blobs &amp; more</title>" in found.html
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["title"] == "Blobs & more"
    with pytest.raises(MemoryFileError, match="cannot write"):
        rs.report(reader, rows(2, 30), path=tmp_path / "none" / "page.html")
    with pytest.raises(MemoryFileError, match="cannot write"):
        rs.report(reader, rows(2, 30), path=tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["a page.html"]


def test_an_example_shows_the_memories_that_moved_it(reader, rows):
    test = rows(2, 90)
    found = rs.report(reader, test, path=None, examples=3, memories=2)
    result = rs.evaluate(reader, test)
    assert len(found.corrected) == 3 and all(result.row_gain[one.row] > 0 for one in found.corrected)
    assert all(result.row_gain[one.row] < 0 for one in found.broken)
    one = found.corrected[0]
    why = rs.explain(reader, test[one.row])
    assert len(one.memories) == 2 and {near.id for near in one.memories} <= set(why.ids.tolist())
    assert one.truth == one.now == str(test.labels[one.row]) and one.base == str(why.base_prediction)
    assert one.memories[0].helped is True


def test_a_tuned_reader_shows_its_settings_and_rows_it_was_tuned_on_calibrate_nothing(rows, parsed):
    validation = rows(4, 90)
    best = rs.tune(rs.ResMem(rs.Memory(rows(1, 90))), validation, {"k": [1, 3, 9], "sigma": [0.5, 1, 2]})
    found = rs.report(best, rows(2, 60), validation=validation, path=None)
    (surface,) = found.surfaces
    assert surface.settings == len(best.results_["k"]) and len(surface.profiles) == 3 and surface.map is not None
    assert found.coverage is None and "calibration=" in found.notes[0] and found.notes[0] in parsed(found).text
    with pytest.raises(rs.errors.InputError, match="tuned on"):
        rs.report(best, rows(2, 60), calibration=validation, path=None)
    assert rs.report(best, rows(2, 60), calibration=rows(5, 60), path=None).notes == []


def test_validation_tries_the_settings_of_a_reader_that_does_not_know_them(rows):
    reader = rs.KNNLM(rs.Memory(rows(1, 40)), k=5, lmbda=0.5, sigma=1.0)
    found = rs.report(reader, rows(2, 40), validation=rows(4, 40), path=None)
    assert found.surfaces[0].settings > 1000 and found.coverage.calibrated == 40
    assert reader.params == rs.KNNLM(reader.memory, k=5, lmbda=0.5, sigma=1.0).params


def regression(seed, n, m=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    y = np.repeat(x[:, :1] ** 2, m, axis=1) + 0.1 * rng.normal(size=(n, m))
    return rs.Encoded(x, np.zeros((n, m)), y, classes=[f"<y{i}>" for i in range(m)])


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_regression(outputs, parsed):
    reader = rs.ResMem(rs.Memory(regression(1, 150, outputs)), k=5)
    found = rs.report(reader, regression(2, 80, outputs), calibration=regression(3, 60, outputs), path=None)
    page = parsed(found)
    assert "mean squared error" in found.answers[0].short and found.answers[0].mood == "good"
    assert found.coverage is not None and "intervals" in " ".join(found.answers[4].lines)
    assert {"where", "trust", "corrected", "cost"} <= set(page.ids) and not {"classes", "memories"} & set(page.ids)
    assert ("<y1>" in page.text) == (outputs > 1)


def test_several_labels_a_row(parsed):
    def rows(seed, n):
        x = np.random.default_rng(seed).normal(size=(n, 3))
        return rs.Encoded(x, np.tile([1.0, -1.0, 0.2], (n, 1)), (x > 0).astype(int), classes=["<i>a", "b", "c"])

    found = rs.report(rs.ResMem(rs.Memory(rows(1, 100)), k=5), rows(2, 80), validation=rows(3, 50), path=None)
    page = parsed(found)
    assert found.coverage is None and found.notes == [] and "of 3 labels right" in page.text
    assert "Labels" in page.text and "<i>a" in page.text and "i" not in page.tags


def text(seed, documents, length=30):
    rng = np.random.default_rng(seed)
    n = len(documents) * length
    keys = rng.normal(size=(n, 4)).astype(np.float32)
    columns = {"offset": np.tile(np.arange(length), len(documents))}
    labels = (keys[:, 0] > 0) * 3 + (keys[:, 1] > 0)
    return rs.Encoded(keys, rng.normal(size=(n, 9)), labels, ids=np.repeat(documents, length), columns=columns)


class Letters:
    def decode(self, ids):
        return "".join("ab<d>\nghi"[i] for i in ids)


READERS = {
    "plain": lambda memory: rs.KNNLM(memory, k=5, lmbda=0.5),
    "cache": lambda memory: rs.ContinuousCache(rs.KNNLM(memory, k=5, lmbda=0.5), window=8, theta=1.0, lmbda=0.1),
    "adaptive": lambda memory: rs.KNNLM(memory, k=5, lmbda=rs.AdaptiveLambda([1.0], [0.5, 0.1])),
    "gated": lambda memory: rs.Gated(memory, k=5).fit(text(4, [30, 31, 32]), evidence=None),
    "gated with a cache": lambda memory: rs.Gated(memory, k=5, cache=8).fit(text(4, [30, 31, 32]), evidence=None),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("gated")) for name in READERS]
)
def test_a_text(name, parsed):
    memory = rs.Memory(text(1, [3, 4, 5]), names={4: "<four>.py"})
    data = [text(2, [8, 9, 10])[:50], text(2, [8, 9, 10])[50:]]
    found = rs.report(READERS[name](memory), iter(data), tokenizer=Letters(), path=None, examples=4)
    page = parsed(found)
    assert "perplexity" in found.answers[0].short and found.answers[0].mood == "good"
    assert {"where", "classes", "trust", "corrected"} <= set(page.ids) and "settings" not in page.ids
    one = found.corrected[0]
    before, token = one.look.text
    labels = np.concatenate([part.labels for part in data])
    start = one.row - one.row % 30
    assert before == repr(Letters().decode(labels[start : one.row]))[1:-1] and token == one.truth
    assert bool(one.memories) == (name != "gated with a cache") == (not found.notes)
    assert page.tags.count("mark") >= len(found.corrected)


def test_a_reader_that_is_not_used(rows, parsed):
    found = rs.report(rs.ResMem(rs.Memory(rows(1, 60)), k=0), rows(2, 60), path=None)
    assert found.answers[0].short == "No memory is used" and found.corrected == found.broken == []
    assert not {"corrected", "broken", "memories"} & set(parsed(found).ids)


def test_one_row_one_class_and_nothing_to_mend(rows, parsed):
    for test in (rows(2, 60)[7:8], rows(2, 60)[::3]):
        page = parsed(rs.report(rs.ResMem(rs.Memory(rows(1, 60)[::3]), k=3, sigma=1.0), test, path=None))
        assert "No difference" in page.text and "corrected" not in page.ids


@pytest.mark.slow
def test_keys_that_were_discarded_are_not_audited(rows, parsed):
    memory = rs.Memory(rows(1, 200), index="IVF2,PQ2x4")
    memory.discard_keys()
    found = rs.report(rs.ResMem(memory, k=5, sigma=1.0), rows(2, 60), path=None)
    assert found.review is None and "memories" not in parsed(found).ids and found.cost.found is not None


def test_an_audit_is_taken_made_or_left(reader, rows):
    test = rows(2, 30)
    given = rs.audit(reader, rows(3, 30))
    assert rs.report(reader, test, review=given, path=None).review.on == "30 test rows"
    assert rs.report(reader, test, review=False, path=None).review is None
    assert rs.report(reader, test, path=None).review is not None


def test_classes_are_called_as_one_says(reader, rows, parsed):
    page = parsed(rs.report(reader, rows(2, 60), classes=["cat", "dog", "<emu>"], path=None))
    assert "dog" in page.text and "<emu>" in page.text and "label dog" in re.sub(" +", " ", page.text)


def test_ids_that_are_excluded_are_no_neighbours_of_an_example_either(reader, rows):
    excluded = np.arange(60)[:, None] + np.arange(30)
    found = rs.report(reader, rows(2, 60), exclude=excluded.tolist(), path=None)
    assert found.corrected
    for one in found.corrected:
        assert not {near.id for near in one.memories} & set(excluded[one.row].tolist())


def test_a_reader_of_ones_own(rows, parsed):
    class Nearest(NeighbourReader):
        def __init__(self, memory, k, bonus):
            super().__init__(memory, k, 1.0, 1.0, "exponential")
            self.bonus = bonus

        def values(self, queries):
            return LabelValues(self.memory.column("label"))

    parsed(rs.report(Nearest(rs.Memory(rows(1, 60)), 3, 0.5), rows(2, 60), path=None))


def test_what_is_wrong_is_said(reader, rows, monkeypatch):
    with pytest.raises(ParameterError, match="where a reader is expected"):
        rs.report(reader.memory, rows(2, 30))
    with pytest.raises(ParameterError, match="examples=-1"):
        rs.report(reader, rows(2, 30), examples=-1)
    with pytest.raises(ShapeError, match="2 names for 3 outputs"):
        rs.report(reader, rows(2, 30), classes=["a", "b"])
    with pytest.raises(IdError):
        rs.report(reader, rows(2, 30), calibration=rows(3, 30, ids=np.arange(30)), path=None)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"residua\[report\]"):
        rs.report(reader, rows(2, 30))


def test_in_a_notebook_it_is_its_answers(reader, rows):
    found = rs.report(reader, rows(2, 60), path=None, title="<b>")
    assert "Did it help?" in found._repr_html_() and "<b>" not in found._repr_html_()
    assert str(found).splitlines()[0] == "<b>" and "Did it help? Yes" in str(found)
    assert repr(found).startswith("Report('<b>', Evaluation(ResMem on 60 rows")
