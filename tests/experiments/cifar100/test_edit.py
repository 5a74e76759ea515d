"""Edits measured: what is measured by hand, and small runs from network and model to tables and picture."""

import numpy as np
import pytest

import residua as rs
from experiments import edit
from experiments.edit import _taken, contexts, cropped, lines, share
from experiments.knnlm.texts import Text
from experiments.runner import run


def test_shares_have_an_interval():
    middle, low, high = share(np.array([True] * 8 + [False] * 2))
    assert (middle, round(low, 2), round(high, 2)) == (80.0, 49.02, 94.33)  # Wilson's, by hand


def test_crops_move_and_fill_with_black():
    pictures = np.arange(2 * 32 * 32 * 3, dtype=np.uint8).reshape(2, 32, 32, 3) | 1
    for one, moved in zip(pictures, cropped(pictures, np.random.default_rng(0))):
        padded = np.pad(one, ((4, 4), (4, 4), (0, 0)))
        places = [(top, left) for top in range(9) for left in range(9)]
        assert any((padded[top : top + 32, left : left + 32] == moved).all() for top, left in places)


def test_rows_are_taken_across_parts():
    parts = [
        rs.Encoded(np.arange(a, b)[:, None], np.zeros((b - a, 2)), np.zeros(b - a, int)) for a, b in [(0, 4), (4, 9)]
    ]

    def found(start, count):
        return [row for part in _taken(parts, start, count) for row in part.keys[:, 0].tolist()]

    assert found(2, 4) == [2, 3, 4, 5]
    assert found(5, 2) == [5, 6]
    assert found(3, 0) == []


def test_lines_and_what_is_before_them():
    code = "\n".join([f"a{n} = {n}0" for n in range(14)] + ["f(x)", "a3 = 30"])
    asked = lines([Text("a.py", code, 50)], 5)
    assert sorted(value for _, _, value in asked) == [" 120", " 130", " 30"]
    own, short, other = contexts(asked)
    for prompt, few, elsewhere, (before, name, _) in zip(own, short, other, asked):
        assert prompt == f"{before}\n{name}"
        assert prompt.endswith(few) and len(few.split("\n")) == 3
        assert elsewhere.endswith(f"\n{name}") and elsewhere != prompt


@pytest.mark.slow
def test_images(small_cifar, small_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(edit, "GROUP", 3)
    monkeypatch.setattr(edit, "PAPER", {"k": 3})
    found = run(
        "edit", tmp_path, weights=(str(small_weights),), data="here", counts=(2, 5), others=10, model="", device="cpu"
    )
    (one,), (aged,) = found["results"]["images"], found["results"]["ages"]
    for ways in one["ways"].values():
        assert list(ways) == ["2", "5"]
    assert one["ways"]["edits"]["5"]["reliability"][0] == 100
    assert one["undone"] == one["undone_half"] == 100
    assert aged["total"] == 10 + 3 and list(aged["ages"]) == ["1", "10"]
    assert aged["ages"]["10"]["recall"][0] == aged["ages"]["10"]["recognition"][0] == 100
    assert set(edit.tables(found["results"])) == {one["name"], f"{one['name']} reach", "ages"}


@pytest.mark.slow
def test_text(tmp_path, tiny_model, tiny_tokenizer):
    tiny_model("gpt2").save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    for number in range(60):
        (tmp_path / "own").mkdir(exist_ok=True)
        code = "\n".join(
            f"{rng.choice(['def', 'self', 'x'])} = {rng.choice(['None', 'True', 'import'])}" for _ in range(20)
        )
        (tmp_path / "own" / f"{number}.py").write_text(code)
    settings = {"model": str(tmp_path / "model"), "texts": str(tmp_path / "own"), "validation": "", "test": ""}
    settings |= {"glob": "**/*.py", "window": 32, "stride": 24, "index": "exact", "memory_tokens": 600}
    found = edit.text(settings | {"eval_tokens": 3000, "checkpoints": str(tmp_path / "out"), "device": "cpu"}, 4)
    assert found["ways"]["edits"][found["facts"]]["reliability"][0] == 100
    assert found["undone"] == 100 and found["base"]["reliability_lines"][0] == 0
