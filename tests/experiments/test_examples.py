"""Counts of confusions by hand, and examples that are explained as the library explains them."""

import numpy as np
import pytest

import residua as rs
from experiments import examples
from experiments.cifar100.data import CLASS_NAMES
from experiments.cifar100.headline import PAPER
from experiments.examples import choose, confusions, draw, explained, measure, tables, unpack
from experiments.published import CIFAR100_EXAMPLES
from experiments.runner import rounded
from experiments.work import Work
from residua.errors import ParameterError


def test_confusions_by_hand():
    truth = np.array([0, 0, 1, 1, 2, 2, 0])
    before = np.array([1, 1, 0, 1, 2, 3, 0])
    after = np.array([0, 1, 1, 2, 2, 3, 1])
    rows = {tuple(row["pair"]): row for row in confusions(before, after, truth, most=5)}
    zero, one, two = CLASS_NAMES[:3]
    assert rows[zero, one] == {"pair": [zero, one], "errors": 3, "corrected": 2, "introduced": 1, "paper": False}
    assert rows[one, two] == {"pair": [one, two], "errors": 0, "corrected": 0, "introduced": 1, "paper": False}
    assert (two, CLASS_NAMES[3]) not in rows  # neither corrected nor introduced
    named = {tuple(sorted(pair)) for pair in CIFAR100_EXAMPLES["confusions"]}
    assert {pair for pair, row in rows.items() if row["paper"]} == named


def test_paper_pairs_are_chosen_first_then_the_frequent_and_of_each_the_clearest():
    rose, poppy = CLASS_NAMES.index("rose"), CLASS_NAMES.index("poppy")
    truth = np.array([0, 0, 0, rose, 2, 5])
    before = np.array([1, 1, 1, poppy, 3, 6])
    after = np.array([0, 0, 0, rose, 2, 6])
    scores = np.zeros((6, 100))
    scores[np.arange(6), after] = [0.2, 0.9, 0.4, 0.1, 0.8, 0.9]
    assert choose(before, after, truth, scores, 5).tolist() == [3, 1, 4]
    assert choose(before, after, truth, scores, 2).tolist() == [3, 1]
    assert choose(truth, truth, truth, scores, 2).tolist() == []


@pytest.fixture
def small():
    rng = np.random.default_rng(0)

    def part(n):
        labels = rng.integers(0, 4, n)
        keys = (np.eye(4)[labels] + 0.4 * rng.standard_normal((n, 4))).astype(np.float32)
        return rs.Encoded(keys, rng.standard_normal((n, 100)) + 2 * np.eye(100)[labels], labels)

    remembered, test = part(80), part(40)
    images = [rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (80, 40)]
    return remembered, test, images


def test_explained_moves_add_up_to_what_the_scores_did(small):
    remembered, test, images = small
    reader = rs.ResMem(rs.Memory(remembered), **PAPER)
    after = reader.predict(test)
    row = int(np.flatnonzero((test.logits.argmax().numpy() != test.labels) & (after == test.labels))[0])
    all_of_them = explained(reader, test, row, remembered, images, memories=PAPER["k"])
    before, now, other, other_now = all_of_them["scores"]
    assert sum(memory["moved"] for memory in all_of_them["memories"]) == pytest.approx(
        (now - other_now) - (before - other), abs=1e-5
    )
    assert all_of_them["share"] == pytest.approx(1)
    few = explained(reader, test, row, remembered, images, memories=3)
    assert few["memories"] == all_of_them["memories"][:3]
    moved = [memory["moved"] for memory in all_of_them["memories"]]
    assert moved == sorted(moved, reverse=True)
    tiles = unpack(few["tiles"])
    assert (tiles[0] == images[1][row]).all()
    for tile, memory in zip(tiles[1:], few["memories"]):
        assert (tile == images[0][memory["id"]]).all()
        assert memory["label"] == CLASS_NAMES[remembered.labels[memory["id"]]]


def test_run_tabulates_and_draws(small, monkeypatch):
    remembered, test, images = small
    monkeypatch.setattr(examples, "encoded", lambda *_: (remembered, test))
    monkeypatch.setattr(examples, "split", lambda data, name, download=False: (images[name == "test"], None))
    results = rounded(measure(Work(), weights="some", shown=3, memories=2, pairs=2))
    result = rs.evaluate(rs.ResMem(rs.Memory(remembered), **PAPER), test)
    corrected, broken = tables(results)["counts"].rows
    assert corrected == ("corrected (TPR)", "5.89", f"{100 * result.tpr:.2f}", str(round(result.tpr * 40)))
    assert broken[2:] == (f"{100 * result.fpr:.2f}", str(round(result.fpr * 40)))
    assert "palm_tree / pine_tree (the paper's)" in [row[0] for row in tables(results)["confusions"].rows]
    assert [row[3].split()[-1] for row in tables(results)["examples"].rows] == ["2"] * len(results["examples"])
    assert len(draw(results).axes) == 3 * 3
    assert draw({**results, "examples": []}).axes


@pytest.mark.parametrize("wrong", [{"weights": ""}, {"shown": 0}, {"memories": 54}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ParameterError, match="expected"):
        measure(Work(), **{"weights": "some", **wrong})
