"""Forgetting twice: what is measured by hand, and a small run of each part from model to tables and picture."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import residua as rs
from experiments import canaries, unlearn
from experiments.dampening import dampened, importance
from experiments.knnlm.language import Language
from experiments.runner import run
from experiments.work import Work
from residua.errors import ParameterError


def test_a_weight_of_the_forgotten_alone_is_dampened():
    model = nn.Linear(2, 2, bias=False)
    nn.init.ones_(model.weight)
    forgotten = importance(model, [(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))])
    retained = importance(model, [(torch.tensor([[0.1, 1.0]]), torch.tensor([1]))])
    # Both classes are as likely, so the gradient of one row is half its input.
    assert forgotten["weight"].tolist() == [[0.25, 0.0], [0.25, 0.0]]
    after, share = dampened(model, forgotten, retained, alpha=10, lmbda=2.0)
    np.testing.assert_allclose(after.weight.detach(), [[0.02, 1.0], [0.02, 1.0]], rtol=1e-4)
    assert share == 0.5 and (model.weight == 1).all()
    assert dampened(model, forgotten, retained, alpha=101)[1] == 0
    large, _ = dampened(model, forgotten, retained, alpha=10, lmbda=1000.0)
    assert (large.weight == 1).all()  # never more than it was


def test_an_attack_finds_what_is_unlikelier_than_if_never_seen():
    rng = np.random.default_rng(0)
    members, others = rng.normal(-3, 1, (200, 3)), rng.normal(0, 1, (300, 3))
    assert unlearn.area(members[:, 0], others[:, 0])[0] < 0.1
    middle, low, high = unlearn.attacked(members, others)
    assert 0.95 < low <= middle <= high <= 1
    assert abs(unlearn.attacked(rng.normal(size=(200, 3)), others)[0] - 0.5) < 0.1


def test_equal_scores_have_the_middle_rank():
    assert canaries.exposure(np.zeros(8)) == np.log2(8) - np.log2(4.5)
    assert canaries.exposure(np.array([0.0, 1.0, -1.0, -1.0])) == 1.0


def test_tokens_are_found_in_files_as_labels_are_stored(tmp_path):
    (tmp_path / "rows").write_bytes(b"x" + np.array([5, 700, 3], np.int16).tobytes())
    (tmp_path / "more").write_bytes(np.array([9, 70_000], np.int32).tobytes())
    assert canaries.in_files(str(tmp_path), [[5, 700], [9, 70_000 % 2**15], [700, 5]]) == 1
    assert canaries.in_files(str(tmp_path), [[700, 3], [700, 3, 1]]) == 1


@pytest.mark.slow
def test_images(small_cifar, small_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(unlearn, "BATCH", 4)
    monkeypatch.setattr(unlearn, "RESAMPLES", 80)
    options = {"remembered": 60, "tests": 30, "forgotten": 20, "category": "bear", "alphas": (1e-9, 1e9)}
    found = run("unlearn", tmp_path, weights=(str(small_weights),), data="here", model="", device="cpu", **options)[
        "results"
    ]
    ((name, one), (_, random)) = found["images"][0]["sets"].items()
    assert name == "one class" and one["n"] == 24 and random["n"] == 20  # of 120 every fifth; as asked for
    assert one["exact"] and random["exact"]
    assert random["sweep"][0]["dampened"] > random["sweep"][1]["dampened"]
    assert one["alpha"] is not None
    assert set(one["ways"]) == set(unlearn.WAYS)


@pytest.mark.parametrize("wrong", [{"category": "zebra"}, {"category": ""}])
def test_the_class_is_one_of_the_data(wrong):
    with pytest.raises(ParameterError, match="expected a class of CIFAR-100"):
        unlearn.measure(Work(), model="", **wrong)


@pytest.fixture
def code(tmp_path, tiny_model, tiny_tokenizer, monkeypatch):
    """A tiny model's folder, with the split of a library of four files."""
    rng, model = np.random.default_rng(0), tmp_path / "model"
    tiny_model("gpt2").save_pretrained(model)
    tiny_tokenizer.save_pretrained(model)
    files = [f"part{number}.py" for number in range(4)]
    for file in files:
        text = "\n".join(f"{rng.choice(['def', 'self', 'x'])} = {rng.integers(9)}" for _ in range(30))
        (tmp_path / file).write_text(text)
    (tmp_path / "short.py").write_text("x = 1\n")
    (model / "split.json").write_text(json.dumps({"train": [], "validation": ["short.py", *files]}))
    monkeypatch.setattr(canaries.sysconfig, "get_path", lambda _: str(tmp_path))
    for name, value in (("LINES", 9), ("BEFORE", 2), ("WINDOW", 64)):
        monkeypatch.setattr(canaries, name, value)
    return str(model)


@pytest.mark.slow
def test_a_memory_tells_secrets_until_it_forgets_them(code):
    found = canaries.leaks(code, "cpu", secrets=3, candidates=8)
    assert (found["secrets"], found["documents"], found["most"]) == (3, 6, 3.0)
    assert found["same"] == {"forgotten": True, "purged": True}
    assert found["files"] == {"saved": 3, "forgotten and saved": 3, "purged": 0}
    said = found["said"]["k 8, λ 0.75"]
    assert said["memory"]["lines"]["exposure"][0] == 3.0 and said["memory"]["lines"]["first"] == 3
    assert said["memory"]["lines"]["extracted"] >= 2 and said["forgotten"]["lines"]["extracted"] == 0
    assert said["forgotten"] == said["purged"] == said["never"]
    shown = unlearn.tables({"images": [], "text": [found]})
    assert [len(shown[name].rows) for name in ("secrets", "files", "exact")] == [10, 3, 1]
    assert len(unlearn.draw({"images": [], "text": [found]}).axes) == 1


def test_scores_are_the_models_own_log_probabilities(code):
    plain, secret, told = canaries.planted(code, 2)
    assert [name for name, _ in secret] == ["part0.py", "part1.py"] and len(plain) == 2
    before, line, digits = told[0]
    assert before.endswith(line) and f'{before}{digits}"' in secret[0][1] and len(digits) == 9
    language = Language({"model": code, "device": "cpu"})
    memory = rs.lm.remember(language.model, language.tokenizer, plain, window=64, index="exact", progress=False)
    words = [digits, *canaries.others(digits, 3, 0)]
    ((scores, _),) = canaries.scored(language, {"base": rs.KNNLM(memory, k=0)}, line, words).values()
    for word, score in zip(words, scores):
        start, whole = (language.tokenizer(text, return_tensors="pt")["input_ids"] for text in (line, line + word))
        first = torch.tensor([[language.tokenizer.bos_token_id]])
        with torch.inference_mode():
            said = language.model(torch.cat([first, whole], dim=1)).logits[0].log_softmax(dim=1)
        own = [said[at, whole[0, at]].item() for at in range(start.shape[1], whole.shape[1])]
        assert score == pytest.approx(sum(own), rel=1e-4)
