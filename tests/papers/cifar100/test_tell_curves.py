"""Sentences turn when the numbers do."""

import pytest

from residua.papers.cifar100.tell_curves import curve_findings, curves, tables, trend


def made(depth, epoch, fraction, base, gain, seed=0, last=True, train=70.0):
    reader = {"accuracy": base + gain, "gain": [gain, gain - 0.5, gain + 0.5]}
    return {
        "depth": depth,
        "epoch": epoch,
        "fraction": fraction,
        "seed": seed,
        "last": last,
        "base": base,
        "train_base": train,
        "train_resmem": 99.5,
        "readers": {name: reader for name in ("resmem_paper", "resmem_tuned", "interpolation_tuned")},
        "difference": [0.1, -0.2, 0.4],
    }


def paper():
    """As the paper says: large gains early, for small networks, and with much data."""
    return [
        made(8, 8, 1.0, 34.0, 15.0, last=False),
        made(8, 16, 1.0, 56.0, 3.0),
        made(14, 16, 1.0, 62.0, 2.0, train=80.0),
        made(8, 16, 0.1, 30.0, 0.5, train=95.0),
        made(14, 16, 0.1, 33.0, 0.4, train=99.0),
    ]


def test_the_papers_claims_are_found_where_they_hold():
    epochs, depths, shares, crossed, _ = curve_findings(paper())
    assert "+15.00 points at the first mark and +3.00 at the last (the paper: +15.3 and +2.9)" in epochs
    assert "the first mark's is the largest gain" in epochs and "falls at every step" in epochs
    assert "(59.00 %) is between ResNet-8 alone (56.00 %) and ResNet-14 alone (62.00 %)" in depths
    assert "ResNet-8 +3.00, ResNet-14 +2.00; it falls at every step" in depths
    assert "from +0.50 to +3.00 points; it grows at every step (the paper: it grows)" in shares
    assert "from 95.0 % to 70.0 %; it falls at every step" in shares and "at least 99.50 %" in shares
    assert "largest with ResNet-8 on 100 % of the data (+3.00 points)" in crossed
    assert "smallest with ResNet-14 on 10 % (+0.40)" in crossed


def test_the_opposite_is_told_too():
    points = [
        made(8, 8, 1.0, 50.0, 1.0, last=False),
        made(8, 16, 1.0, 56.0, 7.0),
        made(14, 16, 1.0, 62.0, 8.0),
        made(8, 16, 0.1, 30.0, 9.0),
    ]
    epochs, depths, shares, crossed, _ = curve_findings(points)
    assert "first mark's is not the largest" in epochs and "grows at every step" in epochs
    assert "is not between" in depths and "it grows at every step" in depths
    assert "it falls at every step (the paper: it grows)" in shares
    assert "of 3 cells" in crossed and "largest with ResNet-8 on 10 %" in crossed


def test_when_residuals_beat_interpolation_is_counted():
    points = paper()
    for point, difference, train in zip(points, ([1.0, 0.5, 1.5], [0.5, 0.1, 0.9], [-0.2, -0.4, -0.1]), (50, 60, 70)):
        point["difference"], point["train_base"] = difference, float(train)
    told = curve_findings(points)[-1]
    assert "5 networks" in told and "from -0.20 to +1.00 points; it is positive on 4" in told
    assert "above 0 on 2 and below 0 on 1" in told
    assert "(3 networks" in told and "training accuracy is -1.00" in told
    for point in points:
        point["difference"] = [0.1, -0.2, 0.4]
    assert "rank correlation" not in curve_findings(points)[-1]


def test_tables_have_the_paper_beside_ours_and_say_what_was_not_trained():
    blocks = list(map(str, tables(paper()[:4], 16)))
    assert "| 8 (128)" in blocks[2] and "34.0 |" in blocks[2] and "49.3 |" in blocks[2]
    assert "+15.00 [+14.50, +15.50]" in blocks[2]
    assert "not trained" in blocks[-1] and "56.00 → 59.00 (+3.00)" in blocks[-1]


def test_seeds_are_averaged_with_their_spread():
    points = [
        made(8, epoch, 1.0, base, 2.0, seed, epoch == 16) for epoch in (8, 16) for seed, base in ((0, 50), (1, 52))
    ]
    assert {epoch: len(own) for epoch, own in curves(points)["epoch"].items()} == {8: 2, 16: 2}
    assert "51.00 ± 1.41" in str(tables(points, 16)[2])
    assert "+2.00 [+2.00, +2.00]" in str(tables(points, 16)[2])


def test_given_networks_have_no_curves():
    assert curves([]) == {}
    assert tables([], 1) == curve_findings([]) == []


def test_single_training_without_other_marks_has_no_curves():
    assert curves([made(8, 1, 1.0, 50.0, 1.0)]) == {}
    assert tables([made(8, 1, 1.0, 50.0, 1.0)], 1) == curve_findings([made(8, 1, 1.0, 50.0, 1.0)]) == []


@pytest.mark.parametrize("values", [[1.0, 1.0], [2.0, 1.0, 1.5]])
def test_trend_needs_every_step(values):
    assert trend(values).startswith("neither")
