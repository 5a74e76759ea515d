"""How small a memory may be: the parts on a toy memory."""

import keyword

import numpy as np
import pytest

import residua as rs
from experiments import compress
from residua.core import Head
from residua.errors import ParameterError

pytest.importorskip("sklearn")


def task(n, seed, head=None):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2)).astype(np.float32)
    labels = (keys[:, 0] > 0).astype(int) + (keys[:, 0] * keys[:, 1] > 0)
    logits = head(rs.core.as_tensor(keys))
    return rs.Encoded(keys, logits, labels, head=head)


@pytest.mark.slow
def test_every_way_makes_a_memory_that_is_read(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(compress, "GRID", {"k": [3, 10], "temperature": [1.0]})
    rng = np.random.default_rng(0)
    head = Head(*(rs.core.as_tensor(rng.normal(size=shape).astype(np.float32)) for shape in ((3, 2), (3,))))
    rows, test = task(400, 0, head), task(200, 1, head)
    monkeypatch.setattr(compress.networks, "encoded", lambda *_: (rows, test))
    sizes = {way: 40 for way in compress.WAYS} | {"quantised": "SQ8"}
    points = [compress.kept("toy", "", "cpu", way, size) for way, size in sizes.items()]
    by_way = {point["way"]: point for point in points}
    assert [by_way[way]["rows"] for way in ("whole", "merged", "random", "quantised")] == [400, 40, 40, 400]
    assert by_way["head"]["bytes"] < by_way["merged"]["bytes"] < by_way["whole"]["bytes"]
    assert by_way["quantised"]["bytes"] == 400 * (2 + 1)  # a byte a dimension, and a label
    assert all(by_way[way]["gain"][1] > 0 for way in ("whole", "merged", "quantised"))
    results = {"networks": [{"network": "toy", "points": points}]}
    assert len(compress.tables(results)["network 1"].rows) == len(compress.WAYS)
    assert len(compress.draw(results).axes) == 1


def test_it_needs_a_network():
    with pytest.raises(ParameterError, match="neither weights nor a model is given"):
        compress.measure(None)


@pytest.mark.slow
def test_text(tmp_path, tiny_model, tiny_tokenizer):
    tiny_model("gpt2").save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "other").mkdir()
    for number in range(24):
        words = np.random.default_rng(number).choice(keyword.kwlist[:12], 15)
        (tmp_path / "other" / f"{number}.py").write_text(" ".join(words))
    settings = {"model": str(tmp_path / "model"), "texts": "", "validation": "", "test": "", "glob": "**/*.py"}
    settings |= {"memory_tokens": 500, "eval_tokens": 150, "window": 32, "stride": 24, "index": "exact"}
    settings |= {"checkpoints": str(tmp_path / "memories"), "device": "cpu"}
    found = [compress.kept_text(settings, str(tmp_path / "other"), way, 0.5) for way in compress.TEXT]
    whole, merged, random = found
    assert merged["rows"] == random["rows"] == round(whole["rows"] / 2)
    assert all(one["perplexity"] < one["base"] for one in found)
    results = {"networks": [], "texts": found}
    assert compress.tables(results)["text"].rows[0][-1] == "100" and compress.draw(results).axes
