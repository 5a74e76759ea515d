"""Pictures hold what the results say, of every task, and show words as they are."""

import numpy as np
import pytest

import residua as rs
from residua import explanation
from residua.errors import MissingDependencyError
from residua.explanation.picture import decisive, swing

matplotlib = pytest.importorskip("matplotlib")
NASTY = "<b>$x^2$\nend"


def words(figure) -> str:
    found = list(figure.findobj(matplotlib.text.Text))
    return "\n".join(text.get_text() for text in found)


def classifier(k=8, classes=None):
    keys = np.arange(8.0)[:, None]
    enc = rs.Encoded(keys, np.tile([2.0, 0.0, 0.0], (8, 1)), [0, 0, 1, 1, 1, 2, 2, 2], classes=classes)
    query = rs.Encoded([[3.1], [6.2]], [[2.0, 0.0, 0.0]] * 2, [1, 2])
    return rs.ResMem(rs.Memory(enc), k=k, sigma=1.0), query


def regression(outputs=1):
    keys = np.arange(6.0)[:, None]
    targets = np.repeat(keys, outputs, axis=1)
    enc = rs.Encoded(keys, targets + 1, targets, task="regression", columns={"age": np.arange(6)})
    return rs.ResMem(rs.Memory(enc), k=2), enc[1:4]


def several():
    rng = np.random.default_rng(0)
    enc = rs.Encoded(rng.normal(size=(9, 2)), rng.normal(size=(9, 3)), rng.integers(0, 2, (9, 3)), task="multi-label")
    return rs.ResMem(rs.Memory(enc), k=3), enc


@pytest.mark.parametrize(
    "made", [classifier, lambda: regression(1), lambda: regression(3), several, lambda: classifier(0)]
)
@pytest.mark.slow
def test_every_task_is_drawn(made, tmp_path):
    reader, query = made()
    rs.evaluate(reader, query).plot().savefig(tmp_path / "a.png")
    rs.explain(reader, query[0]).plot().savefig(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "b.png").stat().st_size > 1000


def test_an_evaluation_shows_its_own_numbers():
    reader, query = classifier()
    result = rs.evaluate(reader, query)
    shown = words(result.plot())
    assert f"{100 * result.accuracy:.4g}" in shown and "2 wrong made right, 0 right made wrong" in shown
    assert "off by" in shown and result.verdict.split(",")[0] in shown


def test_the_most_decisive_memories_come_first():
    reader, query = classifier()
    why = rs.explain(reader, query[0])
    moved = np.abs(why.contributions[:, why.prediction] - why.contributions[:, why.base_prediction])
    assert (np.abs(swing(why)) == moved).all() and (np.diff(moved[decisive(why)]) <= 0).all()


def test_nothing_decisive_is_shown_of_a_base_alone():
    reader, query = classifier(0)
    assert decisive(rs.explain(reader, query[0])) == []


def test_an_explanation_shows_exact_contributions_and_pictures():
    reader, query = classifier()
    why = rs.explain(reader, query[0])
    shades = np.linspace(0, 1, 8)[:, None, None] * np.ones((8, 2, 2))
    made = why.plot(shades, np.ones((2, 2)), memories=3)
    pictures = [axes.images[0].get_array() for axes in made.axes if axes.images]
    ids = why.ids[decisive(why)[:3]]
    assert [int(one[0, 0]) for one in pictures] == [255, *np.round(255 * shades[ids, 0, 0]).astype(int)]
    near = decisive(why)[0]
    assert f"{why.contributions[near, why.prediction]:+.2f} to {why.prediction}" in words(made)
    assert "truth: 1" in words(made)


def test_several_explanations_share_a_picture():
    reader, query = classifier()
    whys = [rs.explain(reader, query[i]) for i in range(2)]
    made = explanation.plot(whys, title="Two of them", memories=2)
    assert len(made.axes) == 8 and "Two of them" in words(made)


@pytest.mark.slow
def test_words_are_shown_as_they_are(tmp_path):
    reader, query = classifier(classes=("a", NASTY, "c"))
    for made in (rs.evaluate(reader, query).plot(), rs.explain(reader, query[0]).plot(), rs.audit(reader).plot()):
        made.savefig(tmp_path / "a.png")  # a formula that is none would raise
        assert "<b>" in words(made) and "\nend" not in words(made)


def test_an_audit_shows_the_most_doubtful_first():
    reader, _ = classifier()
    queue = rs.audit(reader)
    shown = words(queue.plot(np.zeros((8, 2, 2)), rows=2))
    assert f"id {queue.ids[queue.order[0]]}" in shown and f"label: {queue.labels[queue.order[0]]}" in shown


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch):
    reader, query = classifier()
    result = rs.evaluate(reader, query)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    monkeypatch.delitem(__import__("sys").modules, "residua.drawing.shown", raising=False)
    with pytest.raises(MissingDependencyError, match=r"residua\[plot\]"):
        result.plot()


def test_a_notebook_shows_a_picture_where_pyplot_never_was():
    reader, query = classifier()
    assert rs.evaluate(reader, query).plot()._repr_png_().startswith(b"\x89PNG")
