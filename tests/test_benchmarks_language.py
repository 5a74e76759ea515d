"""The language-model benchmarks on tiny inputs: that both ways answer alike, and that every number is there."""

import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def benchmark(monkeypatch):
    """A module of the benchmarks, by name."""
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_the_rival_is_the_dense_formula(benchmark):
    rng = np.random.default_rng(0)
    labels, rows = rng.integers(0, 5, 20), rng.integers(0, 20, (3, 4))
    squared, logits = rng.uniform(0, 9, (3, 4)), rng.normal(size=(3, 5))
    weights = np.exp(-squared / 2)
    weights /= weights.sum(axis=1, keepdims=True)
    said = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = 0.7 * said
    for query in range(3):
        for row, weight in zip(rows[query], weights[query]):
            expected[query, labels[row]] += 0.3 * weight
    rival = benchmark("_language").Dense(None, torch.from_numpy(labels), 0.3, 2.0)
    found = rival.read(torch.from_numpy(rows), torch.from_numpy(squared).float(), torch.from_numpy(logits).float())
    np.testing.assert_allclose(found.exp().numpy(), expected, atol=1e-6)


def test_the_rival_recomputes_squared_distances(benchmark):
    keys = torch.tensor([[0.0, 0.0], [3.0, 4.0]]).half()
    rows, codes = torch.tensor([[0, 1, -1]]), torch.tensor([[9.0, 9.0, 9.0]])
    rival = benchmark("_language").Dense(lambda queries: (rows, codes), torch.tensor([0, 1]), 0.3, 2.0, keys=keys)
    assert rival.search(torch.zeros(1, 2))[1].tolist() == [[0.0, 25.0, math.inf]]


def test_reading_is_measured_where_both_ways_agree(benchmark):
    found = benchmark("lm_read").main(queries=20, ks=(3, 8), vocabularies=(50, 600), repeat=1)
    assert [(shape["k"], shape["vocabulary"]) for shape in found["shapes"]] == [(3, 50), (8, 50), (3, 600), (8, 600)]
    assert all(shape["largest_difference"] < 1e-5 and shape["score_speedup"] > 0 for shape in found["shapes"])
    json.dumps(found, allow_nan=False)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A folder with a small random GPT-2, its tokenizer, and a split of a few files of Python's library."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    import platform

    folder = tmp_path_factory.mktemp("model")
    letters = {chr(i): i for i in range(1, 128)} | {"<end>": 0}
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=letters, merges=[], unk_token="<end>"))
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<end>", eos_token="<end>")
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": 128, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 256}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(
        folder
    )
    split = {"train": ["__future__.py", "bisect.py"], "validation": ["colorsys.py", "fnmatch.py"] * 2 + ["stat.py"]}
    split["validation"] += ["heapq.py", "keyword.py"]
    split |= {"python": platform.python_version()}
    (folder / "split.json").write_text(json.dumps(split), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def memories(tmp_path_factory):
    return tmp_path_factory.mktemp("memories")


def sizes(memory, model):
    return {"memory": memory, "tokens": 6_000, "eval_tokens": 300, "model": model}


def test_scoring_is_measured_for_every_way(benchmark, language_model, memories):
    found = benchmark("lm_score").main(**sizes(memories, language_model))
    json.dumps(found, allow_nan=False)
    ways = found["ways"]
    assert ways["base"]["times_base"] == 1
    assert all(way["tokens_per_s"] > 0 and 1 < way["perplexity"] < 1000 for way in ways.values())
    # The plain rival and our reader say the same over the same neighbours.
    dense = ways["dense, recipe, recomputed distances"]["perplexity"]
    assert ways["ours, recipe"]["perplexity"] == pytest.approx(dense, rel=2e-3)
    for step in found["steps"].values():
        assert sum(step["share"].values()) == pytest.approx(1, abs=0.01)
        assert step["bound_by"] in step["share"]
    again = benchmark("lm_score").main(**sizes(memories, language_model))
    assert again["settings"] == found["settings"]  # chosen once


def test_tuning_is_measured_at_each_price(benchmark, language_model, memories):
    lm_tune = benchmark("lm_tune")
    found = lm_tune.of_size(memories, 6_000, 300, language_model, rounds=2)
    json.dumps(found, allow_nan=False)
    least, cheap = (found["tuning"][name]["validation_perplexity"] for name in ("best", "budget"))
    assert least <= cheap <= least * (1 + lm_tune.BUDGET) * 1.001
    assert found["scoring"]["base"]["times_base"] == 1 and found["tuning"]["budget"]["cpu_s"] > 0


def test_decoding_is_measured_at_every_batch(benchmark, language_model, memories):
    found = benchmark("lm_decode").main(**sizes(memories, language_model), batches=(1, 3), prompt=8, new=4, repeat=1)
    json.dumps(found, allow_nan=False)
    for batch in ("batch 1", "batch 3"):
        assert found[batch]["base"]["times_base"] == 1
        ways = [way for way in found[batch].values() if isinstance(way, dict) and "p50_ms" in way]
        assert len(ways) == 5 and all(way["p99_ms"] >= way["p50_ms"] > 0 for way in ways)
