"""A student beside its teacher: the parts on a toy memory, and text on a tiny model."""

import keyword

import numpy as np
import pytest

import residua as rs
from experiments import distil
from experiments.pooled import differences, judged
from residua.errors import ParameterError


def task(n, seed):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    labels = (keys[:, 0] > 0).astype(int) + (keys[:, 0] * keys[:, 1] > 0)
    return rs.Encoded(keys, rng.normal(size=(n, 3)) + 0.5 * np.eye(3)[labels], labels)


@pytest.mark.slow
def test_every_reader_answers_every_test_row(monkeypatch):
    monkeypatch.setattr(distil, "PLACES", {"k": [10, 20, 1000], "temperature": [1.0, 2.0]})
    memory, test = rs.Memory(task(300, 0)), task(200, 1)
    teacher = distil.teacher_of(memory)
    assert teacher.k in (10, 20)
    students = {
        name: rs.distil(teacher, epochs=5, batch_size=32, rate=2e-3, progress=False, **how)
        for name, (_, how) in distil.READERS.items()
        if how is not None
    }
    said = distil.answers(memory, teacher, students, test)
    assert list(said) == list(distil.READERS)
    readers = {name: judged(table, test.labels, said["base"]) for name, table in said.items()}
    for name, found in readers.items():
        np.testing.assert_allclose(said[name].sum(axis=1), 1, atol=1e-4)
        assert name == "base" or found["over"]["accuracy"][1] > 0
    pairs = {f"{a}, {b}": differences(said[a], said[b], test.labels) for a, b in distil.PAIRS}
    taken = {"base": 1.0, "student": 1.5, "teacher": 2.0}
    about = {"network": "toy", "memory": 300, "n": 200, "readers": readers, "pairs": pairs}
    about |= {"bytes": {"student": 1e6, "memory": 2e6}, "latency": {"milliseconds": {"1": taken}, "threads": 1}}
    found = distil.tables({"networks": [about, about], "texts": []})
    assert len(found["network 2"].rows) == len(distil.READERS) and len(found["pairs"].columns) == 3
    assert found["cost 1"].rows[0] == ["1 image", "1.00", "1.50 (+50 %)", "2.00 (+100 %)"]
    assert len(distil.draw({"networks": [about, about]}).axes) == 2


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
    found = distil.text(settings, str(tmp_path / "other"), {"epochs": 8})
    assert list(found["readers"]) == list(distil.TEXT) and abs(found["rows"] - 500) < 30
    assert found["readers"]["knnlm"]["share"] == pytest.approx(100)
    student = found["readers"]["student"]
    assert student["share"] > 50 and student["perplexity"] < found["base"] / 2
    results = {"networks": [], "texts": [found]}
    assert len(distil.tables(results)["text"].rows) == 5 and distil.draw(results).axes


def test_it_needs_a_network_or_a_language_model():
    with pytest.raises(ParameterError, match="neither weights nor a model"):
        distil.measure(None, weights=())
