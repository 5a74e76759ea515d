"""The whole experiment on a tiny model: every number it should be, tabled, drawn, and not computed twice."""

import json
import keyword

import numpy as np
import pytest

import residua as rs
from experiments import knnlm
from experiments.knnlm.distances import distances
from experiments.knnlm.key_layers import key_layers
from experiments.knnlm.language import Language
from experiments.knnlm.residuals import first
from experiments.knnlm.sizes import beginning
from experiments.knnlm.texts import pairs
from experiments.published import WIKITEXT103_KEYS
from experiments.runner import UNFINISHED, run
from residua.errors import InputError, ParameterError

WORDS = [*keyword.kwlist[:20]]
SMALL = {"memory_tokens": 1200, "eval_tokens": 300, "window": 32, "stride": 24, "sizes": (0.5,), "device": "cpu"}


@pytest.fixture(scope="module")
def given(tmp_path_factory, tiny_model, tiny_tokenizer):
    root = tmp_path_factory.mktemp("knnlm")
    tiny_model("gpt2").save_pretrained(root / "model")
    tiny_tokenizer.save_pretrained(root / "model")
    for corpus, words in (("own", WORDS), ("other", WORDS[::-1][:8])):
        (root / corpus).mkdir()
        for number in range(40):
            rng = np.random.default_rng([number, len(words)])
            (root / corpus / f"{number}.py").write_text(" ".join(rng.choice(words, 30)))
    options = {"model": str(root / "model"), "texts": str(root / "own"), "domain": (f"other={root / 'other'}",)}
    return root, {**SMALL, **options, "checkpoints": str(root / "memories")}


@pytest.fixture(scope="module")
def made(given):
    root, options = given
    return run("knnlm", root / "results", **options)


def settings_of(options: dict) -> dict:
    own = {name: value for name, value in options.items() if name not in ("domain", "sizes")}
    return {**own, "validation": "", "test": "", "glob": "**/*.py", "index": "knnlm-fast"}


def test_tables_are_every_table_and_figure(made):
    found = knnlm.tables(made["results"])
    corpora = ("own domain", "other")
    expected = {"own", "other", "sizes", "k", "lmbda", "keys"}
    assert found.keys() == expected | {f"{kind} {name}" for kind in ("sigma", "residuals") for name in corpora}
    assert "18.65" in str(found["own"]) and "34.84" in str(found["other"])
    assert [row[0] for row in found["sizes"].rows] == ["50 %", "100 %"]
    assert len(knnlm.draw(made["results"]).axes) == 6


def test_numbers_are_those_of_a_dense_float64_computation(given, made):
    _, options = given
    results = made["results"]
    language = Language(settings_of(options))
    texts = language.texts()
    memory = language.remember(pairs(texts.memory), "own")
    batches = list(language.encoded(texts.score, memory))
    logits = np.concatenate([batch.logits.dense().numpy() for batch in batches]).astype(np.float64)
    keys = np.concatenate([batch.keys for batch in batches]).astype(np.float64)
    labels = np.concatenate([batch.labels for batch in batches])
    stored, own = memory.keys, np.asarray(memory.labels)
    assert results["own"]["rows"] == len(stored) == pytest.approx(1200, rel=0.1)
    squared = ((keys[:, None] - stored) ** 2).sum(axis=2)
    for name in ("knnlm", "knnlm_paper"):
        reader = results["own"]["readers"][name]
        chosen = reader["settings"]
        base = np.exp(logits / chosen["temperature"])
        base /= base.sum(axis=1, keepdims=True)
        near = np.argsort(squared, axis=1)[:, : chosen["k"]]
        gaps = np.take_along_axis(squared, near, 1) - squared.min(axis=1, keepdims=True)
        weights = np.exp(-gaps / chosen["sigma"])
        weights /= weights.sum(axis=1, keepdims=True)
        said = np.zeros_like(base)
        for row in range(len(said)):
            np.add.at(said[row], own[near[row]], weights[row])
        mixed = chosen["lmbda"] * said + (1 - chosen["lmbda"]) * base
        loss = -np.log(mixed[np.arange(len(mixed)), labels]).mean()
        assert reader["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
        assert reader["accuracy"] == pytest.approx(100 * (mixed.argmax(axis=1) == labels).mean(), abs=0.4)


def test_what_is_the_same_is_the_same_number(made):
    results = made["results"]
    own, readers = results["own"], results["own"]["readers"]
    assert readers["knnlm_paper"]["settings"]["sigma"] == 1
    assert readers["base_tuned"]["settings"]["k"] == 0
    same = results["sizes"][-1]["perplexity"]  # both are searched exactly here; keys are rounded around other centres
    assert same == pytest.approx(own["curves"]["best"]["perplexity"], abs=1e-3)
    assert results["sizes"][0]["rows"] == round(own["rows"] / 2)
    assert len({one["rows"] for one in results["places"]}) == 1
    assert {one["name"] for one in results["places"]} == set(WIKITEXT103_KEYS)
    assert [reader["settings"]["lmbda"] for reader in results["against"]["knnlm"]] == [0.2, 0.4, 0.5, 0.6, 0.8, 1.0]
    assert results["quantised"] is None  # so few rows are searched exactly
    for reader in (*readers.values(), *results["against"]["resmem"].values()):
        assert reader["gain"][0] == pytest.approx(reader["tpr"] - reader["fpr"], abs=1e-4)
        assert reader["accuracy"] == pytest.approx(reader["base"]["accuracy"] + reader["gain"][0], abs=1e-3)


def test_a_stopped_run_goes_on_and_says_the_same(given, made, monkeypatch):
    root, options = given
    cells = {"in_domain": 1, "across": 1, "at_size": 2, "distances": 2, "placed": 4}
    rooms = (knnlm.domains, knnlm.domains, knnlm.by_size, knnlm.distances, knnlm.key_layers)

    def stopped(name):
        def cell(*_):
            raise KeyboardInterrupt

        cell.__name__ = name
        return cell

    with monkeypatch.context() as patch:
        patch.setattr(knnlm.residuals, "against", stopped("against"))
        with pytest.raises(KeyboardInterrupt):
            run("knnlm", root / "again", **options)
    lines = (root / "again" / UNFINISHED / "knnlm.jsonl").read_text().splitlines()
    done = [json.loads(line)["cell"] for line in lines[1:] if line]
    assert {name: sum(f'"{name}"' in cell for cell in done) for name in cells} == cells
    for room, name in zip(rooms, cells):
        monkeypatch.setattr(room, name, stopped(name))  # a finished cell is not computed again
    assert run("knnlm", root / "again", **options)["results"] == made["results"]


@pytest.mark.parametrize(
    ("kind", "key", "before"),
    [
        ("gpt2", "ffn input before layer norm", "transformer.h.1.ln_2:input"),
        ("gpt2", "model output", "transformer.ln_f:input"),
        ("llama", "ffn input before layer norm", "model.layers.1.post_attention_layernorm:input"),
        ("llama", "model output", "model.norm:input"),
    ],
)
def test_the_papers_keys_are_found_by_what_runs(kind, key, before, tiny_model, tiny_tokenizer):
    model = tiny_model(kind)
    found = key_layers(model, tiny_tokenizer)
    assert found[key] == before
    assert found["ffn input after layer norm"] == "ffn"
    assert found["model output after layer norm"] == "head"
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_beginning_of_a_memory_is_its_first_rows(tiny_model, tiny_tokenizer):
    texts = [(str(i), " ".join(WORDS[i:])) for i in range(4)]
    memory = rs.lm.remember(tiny_model("gpt2"), tiny_tokenizer, texts, window=32, key_dtype="float32")
    part = rs.Memory(beginning(memory, 0.3), storage="none")
    assert len(part) == round(0.3 * len(memory))
    np.testing.assert_allclose(part.keys, memory.keys[: len(part)], atol=2e-3)  # half precision, another centre
    assert np.array_equal(part.labels, memory.labels[: len(part)])
    assert part.schema.is_text


def test_first_rows_of_batches():
    batches = [rs.Encoded(np.ones((4, 2)), np.zeros((4, 3)), [0, 1, 2, 0]) for _ in range(3)]
    assert [len(batch) for batch in first(iter(batches), 6)] == [4, 2]
    assert [len(batch) for batch in first(iter(batches), 100)] == [4, 4, 4]


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"domain": ("other",)}, ParameterError, "NAME=FOLDER"),
        ({"sizes": (1.5,)}, ParameterError, "up to 1"),
        ({"eval_tokens": 0}, ParameterError, "at least 1"),
        ({"model": "no/such/folder/at/all"}, InputError, "no causal language model"),
    ],
)
def test_bad_options_are_refused(given, wrong, error, words, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    root, options = given
    with pytest.raises(error, match=words):
        run("knnlm", root / "refused", **{**options, **wrong})
    assert not (root / "refused").exists()


def test_distances_to_codes_and_exact_ones_differ(given):
    _, options = given
    settings = {**settings_of(options), "index": "PQ8x4fs"}
    codes, exact = distances(settings, False), distances(settings, True)
    assert codes["best"]["k"] == exact["best"]["k"] == codes["paper"]["k"]
    assert codes["paper"]["sigma"] == 1
    assert codes["best"]["perplexity"] != exact["best"]["perplexity"]
