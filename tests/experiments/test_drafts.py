"""Drafts beside none, on a tiny model: every way writes the same text, and what is said of it is counted by hand."""

import keyword

import numpy as np
import pytest

from experiments import drafts
from experiments.work import Work
from residua.errors import InputError, ParameterError

WORDS = keyword.kwlist[:12]


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_model, tiny_tokenizer):
    root = tmp_path_factory.mktemp("drafts")
    tiny_model("gpt2").save_pretrained(root / "model")
    tiny_tokenizer.save_pretrained(root / "model")
    (root / "texts").mkdir()
    for number in range(30):
        (root / "texts" / f"{number}.py").write_text(" ".join(np.random.default_rng(number).choice(WORDS, 15)))
    given = {"model": str(root / "model"), "texts": str(root / "texts"), "validation": "", "test": "", "glob": "*.py"}
    given |= {"window": 32, "stride": 24, "memory_tokens": 300, "eval_tokens": 50, "index": "exact", "device": "cpu"}
    return given | {
        "prompts": 1,
        "prompt_tokens": 4,
        "new_tokens": 10,
        "rounds": 1,
        "checkpoints": str(root / "memories"),
    }


@pytest.mark.slow
def test_every_way_writes_the_same_text(settings, monkeypatch):
    monkeypatch.setattr(drafts, "DRAWS", 50)
    one = drafts.corpus(settings, "toy", settings["texts"])
    assert list(one["ways"]) == list(drafts.WAYS) and 2 <= one["documents"] == one["prompts"]
    for way, found in one["ways"].items():
        assert found["same"] == one["prompts"] and found["tokens_per_step"] >= 1
        assert found["undrafted"][1] <= found["undrafted"][0] <= found["undrafted"][2]
        if way in ("base", "knnlm"):
            assert found["undrafted"] == [1, 1, 1] and found["tokens_per_step"] == 1
    for way in ("base", "knnlm"):
        drafted, alone = (one["ways"][f"{way}+{how}"]["tokens_per_step"] for how in ("drafts", "memory"))
        assert drafted > 1 and alone >= 1
    table = drafts.tables({"corpora": [one]})["toy"]
    assert len(table.rows) == len(drafts.WAYS) and table.rows[0][3:] == ["", "", ""]
    assert len(drafts.draw({"corpora": [one, one]}).axes) == 2
    with pytest.raises(InputError, match="prompt_tokens=99"):
        drafts.corpus(settings | {"prompt_tokens": 99}, "toy", settings["texts"])


def test_prompts_are_spread_over_a_document(tiny_tokenizer):
    settings = {"prompt_tokens": 4, "prompts": 2}
    text = drafts.Text("", "def add(first, second):\n    return first + second\n", 0)
    tokens = tiny_tokenizer(text.text)["input_ids"]
    middle = (len(tokens) - 4) // 2
    assert drafts.taken(tiny_tokenizer, text, settings) == [tokens[middle : middle + 4], tokens[-4:]]
    assert drafts.taken(tiny_tokenizer, text, settings | {"prompt_tokens": 999}) == []


def test_a_ratio_is_of_each_prompt_and_its_interval_over_documents():
    made = [drafts.Made([0] * 10, 4, [seconds, 9.0, seconds]) for seconds in (1.0, 2.0, 4.0)]
    other = [drafts.Made([0] * 10, 10, [4.0])] * 3
    assert drafts.ratio(made, other, np.array([0, 0, 1])) == [2.0, 1.0, 3.0]


def test_numbers_are_positive():
    with pytest.raises(ParameterError, match="rounds=0"):
        drafts.measure(Work(), rounds=0)
