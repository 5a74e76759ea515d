"""Passages beside kNN-LM, on a tiny model: what is compared with what, and where questions come from."""

import keyword

import numpy as np
import pytest

from experiments import passages
from experiments.passages.questions import Question, definitions, plain, questions
from experiments.passages.ranking import Ranking, counted
from experiments.runner import run
from residua.errors import ParameterError
from residua.passages import Passages

WORDS = keyword.kwlist[:12]
SCORE = '''
def {name}(truth, said):
    """Measure the {what}.

    Parameters
    ----------
    truth : array
        What is so.

    See Also
    --------
    {other} : Says how large the {said} is.
    nowhere : Unknown.

    Examples
    --------
    >>> 1
    """
'''


def module(name, what, other, said):
    return SCORE.format(name=name, what=what, other=other, said=said)


@pytest.fixture(scope="module")
def given(tmp_path_factory, tiny_model, tiny_tokenizer):
    root = tmp_path_factory.mktemp("passages")
    tiny_model("gpt2").save_pretrained(root / "model")
    tiny_tokenizer.save_pretrained(root / "model")
    (root / "texts").mkdir()
    for number in range(24):
        words = " ".join(np.random.default_rng(number).choice(WORDS, 15))
        text = module(f"score{number}", f"mean {number}", f"score{(number + 1) % 24}", f"middle {number + 1}")
        (root / "texts" / f"{number}.py").write_text(f"# {words}\n{text}")
    sizes = {"window": 100, "stride": 75, "length": 12, "target": 10, "memory_tokens": 900, "eval_tokens": 300}
    options = {"model": str(root / "model"), "domain": str(root / "texts"), "device": "cpu", "every": 2} | sizes
    return root, options | {"checkpoints": str(root / "memories")}


def test_see_also_asks_in_other_words(tmp_path):
    (tmp_path / "a.py").write_text(module("bias", "bias", "spread", "spread") + module("_own", "x", "bias", "x"))
    twice = module("twice", "first", "bias", "bias")
    (tmp_path / "b.py").write_text(module("spread", "spread", "bias", "bias") + twice)
    (tmp_path / "c.py").write_text(module("twice", "second", "spread", "spread"))
    files = [(path.name, path) for path in sorted(tmp_path.glob("*.py"))]
    known = definitions(files)
    assert known == {
        "bias": ("Measure the bias.", "def bias(truth, said)"),
        "spread": ("Measure the spread.", "def spread(truth, said)"),
    }
    found = questions(files, known)
    wanted = {Question(f"Says how large the {name} is.", name) for name in known}
    assert set(found) == wanted and len(found) == 2
    same = {"bias": ("says how LARGE the bias is", "def bias()"), "spread": known["spread"]}
    assert [one.name for one in questions(files, same)] == ["spread"]
    assert plain("R^2, of y") == "r 2 of y"


def test_words_find_what_shares_rare_ones(tiny_model, tiny_tokenizer):
    texts = [(str(number), " ".join(WORDS[number : number + 3]) + " the the") for number in range(8)]
    held = Passages.remember(tiny_model("gpt2"), tiny_tokenizer, texts, length=32, k=2)
    ranking = Ranking(held, 2)
    tokens = [np.array(tiny_tokenizer(text)["input_ids"]) for _, text in texts]
    for number, found in enumerate(ranking.find("words", tokens)):
        assert found.names[0] == str(number) and found.distances[0] == pytest.approx(0, abs=1e-3)
        assert found.distances[1] > 0.1
    one, other = (ranking.find("random", tokens, seed) for seed in (0, 1))
    assert any((a.rows != b.rows).any() for a, b in zip(one, other))
    assert counted([np.array([1, 1, 3]), np.array([0])], 4).toarray().tolist() == [[0, 2, 0, 1], [1, 0, 0, 0]]


def test_settings_are_chosen_on_other_cells():
    def heard(scale):
        found = type("", (), {"distances": np.arange(1.0, 9)})
        return [type("", (), {"each": np.log(np.full((8, 2), scale)), "alone": np.log([0.5, 0.5]), "found": found})]

    chosen, said = passages.best("token", heard(0.9), heard(0.1))
    assert chosen["lmbda"] == 1 and np.exp(said) == pytest.approx(0.1)
    chosen, said = passages.best("sequence", heard(0.1), heard(0.9))
    assert chosen["lmbda"] == 0.25 and np.exp(said[0]) == pytest.approx(0.25 * 0.9 + 0.75 * 0.5)


@pytest.mark.slow
def test_every_system_on_text_and_questions(given):
    root, options = given
    results = run("passages", root / "results", **options)["results"]
    text, asked = results["text"]["systems"], results["questions"]["systems"]
    assert len(asked) == 1 + 6 and len(text) == 8 + 1 + 6
    for one in (text, asked):
        for found in one.values():
            if "change" in found:
                exact = 100 * (found["perplexity"] / one[found["against"]]["perplexity"] - 1)
                assert found["change"][0] == pytest.approx(exact, abs=0.01)
                assert found["change"][1] <= found["change"][0] <= found["change"][2]
    assert results["questions"]["hits"]["words"][1] > results["questions"]["hits"]["random"][1]
    shown = {name: len(table.rows) for name, table in passages.tables(results).items()}
    assert shown == {"text": len(text), "questions": len(asked), "found": 3}
    assert len(passages.draw(results).axes) == 2 and len(passages.draw({"text": results["text"]}).axes) == 1


def test_passage_and_target_fit_the_window(given):
    with pytest.raises(ParameterError, match="parts="):
        run("passages", given[0] / "results", **given[1] | {"parts": ("answers",)})
    with pytest.raises(ParameterError, match="length=90"):
        run("passages", given[0] / "results", **given[1] | {"length": 90})
