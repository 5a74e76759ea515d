"""A small run comes out as the theorem says, and says so."""

import pytest

from experiments.runner import rounded
from experiments.theorem33 import draw, measure, tables
from experiments.work import Work
from residua.errors import ParameterError

SMALL = {"dims": (1, 3), "radii": (0.5, 0.8), "sizes": (32, 64, 128, 256, 512, 1024), "seeds": 6, "test_points": 400}


@pytest.fixture(scope="module")
def results():
    return rounded(measure(Work(), **SMALL))


def test_rates_and_ratios(results):
    for entry in results["dims"]:
        assert entry["knn_slope"][0] == pytest.approx(-2 / entry["d"], abs=0.25)
        for curve in entry["curves"]:
            limit = (1 - curve["L"]) ** 2
            assert curve["base"][-1] == pytest.approx(limit, rel=0.02)
            middle, low, high = curve["ratio_at_largest"]
            assert low <= middle <= high
            assert middle == pytest.approx(limit, rel=0.02)
    assert results["dims"][0]["curves"][0]["t1_slope"] is None
    assert set(results["dims"][0]["curves"][0]["t1"]) == {0}
    assert -1.8 < results["dims"][1]["curves"][0]["t1_slope"][0] < -0.4


def test_proof_step_and_bound_hold(results):
    assert results["holds"] == results["draws"] == 2 * 6 * 6 * 2
    for entry in results["dims"]:
        for curve in entry["curves"]:
            below = [
                value <= results["constant"] * allowed * 1.00001
                for value, allowed in zip(curve["resmem"], curve["bound"])
            ]
            assert all(below)


def test_tables_read_nothing_but_the_numbers(results):
    steps = dict(tables(results)["steps"].rows)
    assert steps["draws in which risk ≤ 3 (T1 + T2)"] == "144 of 144"
    assert steps["dimensions whose whole interval of 1-NN's slope is below the theorem's -1/d"] == "2 of 2"
    share = "ResMem / (C · bound) at larger n, at most"
    assert float(steps[share].split(" %")[0]) <= 100
    worse = dict(tables({**results, "holds": 143, "constant": results["constant"] / 100})["steps"].rows)
    assert worse["draws in which risk ≤ 3 (T1 + T2)"] == "143 of 144"
    assert float(worse[share].split(" %")[0]) > 100
    assert [row[0] for row in tables(results)["slopes"].rows] == [1, 3]


def test_figure_has_a_column_per_dimension(results):
    assert len(draw(results).axes) == 3 * 2
    assert len(draw({**results, "dims": results["dims"][:1]}).axes) == 3


@pytest.mark.parametrize("bad", [{"radii": (1.0,)}, {"dims": (0,)}, {"seeds": 1}, {"sizes": (10, 20)}])
def test_settings_outside_the_theorem_are_refused(bad):
    with pytest.raises(ParameterError, match="expected"):
        measure(Work(), **{**SMALL, **bad})
