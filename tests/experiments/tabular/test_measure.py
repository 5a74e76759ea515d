"""A cell is what the verbs give, and the tables follow the numbers."""

import numpy as np
import pytest

import residua as rs
from experiments.intervals import sign
from experiments.runner import rounded
from experiments.tabular import draw, errors, measure, tables
from experiments.tabular.bases import bases_may_stop_early, fit
from experiments.tabular.data import split
from experiments.work import Work
from residua.errors import ParameterError


@pytest.fixture(scope="module")
def results():
    chosen = {"data": ("long_tail", "wine", "linear"), "bases": ("linear",), "splits": 3}
    return rounded(measure(Work(), **chosen))


def test_cell_is_what_the_verbs_give():
    found = errors("diabetes", "linear", 1)
    parts = split("diabetes", 1)
    model = fit("linear", "regression", *parts.train, 1)
    enc = rs.encode(model, parts.train)
    validation, test = (rs.encode(model, part, like=enc) for part in (parts.validation, parts.test))
    best = rs.tune(rs.ResMem(rs.Memory(enc), k=1), validation, evidence=None)
    spread = np.var(parts.test[1])
    assert found["in_sample"] == pytest.approx(
        100 * np.mean((best.predict(test) - parts.test[1]) ** 2) / spread, rel=1e-4
    )
    assert found["base"] == pytest.approx(
        100 * np.mean((model.predict(parts.test[0]) - parts.test[1]) ** 2) / spread, rel=1e-4
    )
    assert found["in_sample_k"] == best.k


def test_memory_helps_where_the_base_cannot_follow(results):
    rows = {row["data"]: row for row in results["rows"]}
    assert rows["long_tail"]["gain"]["in_sample"][0] > 15
    assert sign(rows["long_tail"]["gain"]["in_sample"]) == 1
    assert abs(rows["linear"]["gain"]["in_sample"][0]) < 3  # a linear base on linear data leaves nothing
    for row in rows.values():
        for kind, (mean, low, high) in row["gain"].items():
            assert low <= mean <= high
            by_hand = np.mean(np.subtract(row["errors"]["base"], row["errors"][kind]))
            assert mean == pytest.approx(by_hand, abs=1e-3)


def test_synthetic_draws_are_independent_and_splits_of_a_table_are_not(results):
    rows = {row["data"]: row for row in results["rows"]}
    for name, factor in (("long_tail", 1 / 3), ("wine", 1 / 3 + 0.2 / 0.6)):
        difference = np.subtract(rows[name]["errors"]["base"], rows[name]["errors"]["label_knn"])
        kind = np.subtract(rows[name]["errors"]["label_knn"], rows[name]["errors"]["in_sample"])
        _, low, high = rows[name]["over_label_knn"]["in_sample"]
        assert (high - low) / 2 == pytest.approx(4.302653 * np.sqrt(factor * kind.var(ddof=1)), rel=1e-3, abs=1e-6)
        assert len(difference) == 3


def test_tables_follow_the_numbers(results):
    found = tables(results)
    summary = {words: rest for words, *rest in found["summary"].rows}
    assert summary["cases in which the error falls"][0] in ("1 of 3", "2 of 3")
    gain = results["rows"][0]["gain"]["in_sample"][0]
    assert found["gains"].rows[0][0] == "long_tail, linear"
    assert found["gains"].rows[0][4].startswith(f"**+{gain:.2f} [")
    turned = []
    for row in results["rows"]:
        turned.append({**row, "gain": {kind: [-mean, -high, -low] for kind, (mean, low, high) in row["gain"].items()}})
    reversed_summary = {words: rest for words, *rest in tables({**results, "rows": turned})["summary"].rows}
    assert reversed_summary["cases in which it rises"] == summary["cases in which the error falls"]


def test_one_split_has_no_intervals():
    results = rounded(measure(Work(), data=("wine",), bases=("linear",), splits=1))
    assert results["rows"][0]["gain"]["in_sample"][1:] == [None, None]
    assert "[" not in tables(results)["gains"].rows[0][4]
    assert draw(results).axes


def test_a_panel_for_each_base(results):
    assert len(draw(results).axes) == 1


@pytest.mark.parametrize(
    ("wrong", "match"),
    [({"splits": 0}, "splits=0"), ({"bases": ("tree",)}, "bases=tree"), ({"data": ("wine", "beer")}, "data=wine,beer")],
)
def test_wrong_options_are_refused(wrong, match):
    with pytest.raises(ParameterError, match=match):
        measure(Work(), **{"data": ("wine",), "bases": ("linear",), "splits": 1, **wrong})


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("base", ["mlp", "boosting"])
def test_bases_are_fitted_without_warnings_and_can_be_encoded_out_of_fold(base, task):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    y = (X[:, 0] > 0).astype(int) if task == "classification" else X[:, 0]
    model = fit(base, task, X, y, 0)
    with bases_may_stop_early():
        assert len(rs.encode(model, (X, y), cv=3)) == 60
