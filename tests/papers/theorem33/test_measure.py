"""A small run comes out as the theorem says, and says so."""

import pytest

from residua.errors import ParameterError
from residua.papers.record import rounded
from residua.papers.theorem33 import REPRODUCTION
from residua.papers.work import Work

SMALL = {"dims": (1, 3), "radii": (0.5, 0.8), "sizes": (32, 64, 128, 256, 512, 1024), "seeds": 6, "test_points": 400}


@pytest.fixture(scope="module")
def results():
    return rounded(REPRODUCTION.run(Work(), **SMALL))


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


def test_telling_reads_nothing_but_the_numbers(results):
    text = "\n".join(map(str, REPRODUCTION.tell(results)))
    assert "held in 144 of 144 draws" in text
    assert "stays below C · bound" in text
    assert "| 3 " in text
    worse = {**results, "holds": 143, "constant": results["constant"] / 100}
    text = "\n".join(map(str, REPRODUCTION.tell(worse)))
    assert "held in 143 of 144 draws" in text
    assert "exceeds C · bound" in text


def test_figure_has_a_column_per_dimension(results):
    assert len(REPRODUCTION.draw(results).axes) == 3 * 2
    assert len(REPRODUCTION.draw({**results, "dims": results["dims"][:1]}).axes) == 3


@pytest.mark.parametrize("bad", [{"radii": (1.0,)}, {"dims": (0,)}, {"seeds": 1}, {"sizes": (10, 20)}])
def test_settings_outside_the_theorem_are_refused(bad):
    with pytest.raises(ParameterError, match="expected"):
        REPRODUCTION.run(Work(), **{**SMALL, **bad})
