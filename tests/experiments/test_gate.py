"""The gate beside λ by distance, on a tiny model: what is compared with what, and that nothing is left out."""

import keyword

import numpy as np
import pytest

from experiments import gate
from experiments.runner import run
from residua.errors import ParameterError

WORDS = keyword.kwlist[:12]


@pytest.fixture(scope="module")
def given(tmp_path_factory, tiny_model, tiny_tokenizer):
    root = tmp_path_factory.mktemp("gate")
    tiny_model("gpt2").save_pretrained(root / "model")
    tiny_tokenizer.save_pretrained(root / "model")
    for corpus in ("own", "other"):
        (root / corpus).mkdir()
        for number in range(24):
            rng = np.random.default_rng([number, len(corpus)])
            (root / corpus / f"{number}.py").write_text(" ".join(rng.choice(WORDS, 15)))
    options = {"model": str(root / "model"), "texts": str(root / "own"), "domain": str(root / "other"), "window": 32}
    sizes = {"stride": 24, "domain_tokens": 500, "own_tokens": 300, "eval_tokens": 150, "device": "cpu"}
    return root, options | sizes | {"checkpoints": str(root / "memories")}


@pytest.mark.slow
def test_every_reader_on_both_corpora(given):
    root, options = given
    results = run("gate", root / "results", **options)["results"]
    for one, tokens in zip(results["corpora"], (300, 500), strict=True):
        assert abs(one["rows"] - tokens) < 30 and list(one["readers"]) == list(gate.NAMES)
        readers = one["readers"]
        for name, found in readers.items():
            other = readers[gate.NAMES[name][1]]
            assert found["change"][0] == pytest.approx(100 * (found["perplexity"] / other["perplexity"] - 1), abs=0.01)
            assert found["change"][1] <= found["change"][0] <= found["change"][2] and found["documents"] <= found["of"]
        assert readers["gate"]["power"] == 1 and readers["cached"]["weights"] in (0, 48)
        assert readers["gate"]["perplexity"] < 0.5 * one["base"]
    found = gate.tables(results)
    assert [len(table.rows) for table in found.values()] == [9, 9]
    assert len(gate.draw(results).axes) == 2


def test_tokens_are_numbers(given):
    with pytest.raises(ParameterError, match="own_tokens=0"):
        run("gate", given[0] / "results", **given[1] | {"own_tokens": 0})
