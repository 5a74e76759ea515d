"""Invented facts: who is asked about what, and a small model that recites and does not conclude."""

import pytest

from experiments import reasoning
from experiments.runner import run


def test_the_right_answer_is_the_first_of_ten_different_ones():
    told, asked = dict(reasoning.stories(30)), reasoning.questions(30)
    lands, capitals, mayors = reasoning.people(30)
    assert len({*lands, *capitals, *mayors}) == 90
    for kind, answers in (("recited", capitals), ("reworded", capitals), ("reversed", lands), ("composed", mayors)):
        assert [among[0] for _, among in asked[kind]] == answers
        assert all(len(set(among)) == 10 for _, among in asked[kind])
    assert told[f"{lands[4]}.py"] == f"{asked['recited'][4][0]} {capitals[4]}.\n"
    assert reasoning.before_of("composed", 4, 30, told).endswith(f"{capitals[4]} is {mayors[4]}.\n")


def test_a_share_has_wilsons_interval():
    assert [round(edge, 2) for edge in reasoning.share({"right": 8, "asked": 10})] == [80.0, 49.02, 94.33]


@pytest.mark.slow
def test_facts_are_recited(tmp_path, tiny_model, tiny_tokenizer):
    tiny_model("gpt2").save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    options = {"model": str(tmp_path / "model"), "checkpoints": str(tmp_path / "facts"), "device": "cpu"}
    found = run("reasoning", tmp_path, facts=12, **options)["results"]
    assert found["readers"]["knnlm"]["recited"]["right"] >= 11 > found["readers"]["base"]["recited"]["right"]
    assert len(reasoning.tables(found)["facts"].rows) == 3 and reasoning.draw(found).axes
