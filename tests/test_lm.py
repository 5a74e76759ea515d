"""The verbs on text, from end to end: remember, tune, evaluate, explain, forget."""

import json
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import (
    EmptyMemoryError,
    InputError,
    KeyModuleError,
    MemoryFileError,
    ParameterError,
    SourceMismatchError,
    StorageError,
)

TEXTS = [
    ("add.py", "def add(first, second):\n    return first + second\n" * 2),
    ("counter.py", "class Counter:\n    def count(self, name):\n        return self.seen[name]\n" * 2),
    ("more.py", "def count(self, name):\n    self.seen[name] = self.seen.get(name, 0) + 1\n"),
]
NEW = [("new.py", "class Adder:\n    def add(self, name):\n        return self.seen[name] + 1\n")]


@pytest.fixture(scope="module")
def gpt2(tiny_model):
    return tiny_model("gpt2")


@pytest.fixture(scope="module")
def memory(gpt2, tiny_tokenizer):
    return rs.lm.remember(gpt2, tiny_tokenizer, TEXTS, window=24, stride=16, key_dtype="float32", progress=False)


def test_every_token_is_a_row_once_and_documents_have_names(memory, tiny_tokenizer):
    assert len(memory.context(5, 3)) == 3 and list(memory.names.values()) == [name for name, _ in TEXTS]
    for document, (_, text) in zip(memory.names, TEXTS, strict=True):
        assert tiny_tokenizer.decode(memory.labels[memory.ids == document]) == f"{text}<|endoftext|>"
    assert memory.source.key == "transformer.h.1.mlp.c_fc:input"


def test_a_memory_on_disk_is_the_one_in_ram(gpt2, tiny_tokenizer, memory, tmp_path):
    streamed = rs.lm.remember(
        gpt2, tiny_tokenizer, TEXTS, out=tmp_path / "mem", window=24, stride=16, key_dtype="float32", progress=False
    )
    np.testing.assert_array_equal(np.asarray(streamed.keys), np.asarray(memory.keys))
    assert streamed.labels.tolist() == memory.labels.tolist() and streamed.ids.tolist() == memory.ids.tolist()
    assert streamed.names == memory.names and streamed.about == memory.about
    with pytest.raises(MemoryFileError, match="overwrite"):
        rs.lm.remember(gpt2, tiny_tokenizer, TEXTS, out=tmp_path / "mem", window=24, progress=False)


def test_it_is_the_verbs_of_rows_over_a_stream(gpt2, tiny_tokenizer, memory):
    verbs = ["draft", "encode", "evaluate", "explain", "fit", "forget", "prompt", "remember", "update"]
    assert sorted(rs.lm.__all__) == verbs
    stream = rs.encode((gpt2, tiny_tokenizer), TEXTS, like=memory)
    again = rs.Memory(stream, storage="none", about=stream.about)
    np.testing.assert_array_equal(np.asarray(again.keys), np.asarray(memory.keys))
    assert again.about == memory.about and stream.names == memory.names
    reader = rs.KNNLM(memory, k=2, lmbda=0.5, sigma=1.0)
    short = rs.lm.evaluate(gpt2, tiny_tokenizer, NEW, reader, progress=False)
    long = rs.evaluate(reader, rs.encode((gpt2, tiny_tokenizer), NEW, like=reader), progress=False)
    assert (short.n, short.perplexity) == (long.n, long.perplexity)


def test_a_folder_may_be_named_by_a_str(gpt2, tiny_tokenizer, tmp_path):
    for name, text in TEXTS:
        (tmp_path / name).write_text(text)
    memory = rs.lm.remember(gpt2, tiny_tokenizer, str(tmp_path), glob="c*.py", keep_keys=True, progress=False)
    assert list(memory.names.values()) == ["counter.py"]


def test_perplexity_of_the_base_is_the_model_s_own(gpt2, tiny_tokenizer, memory):
    result = rs.lm.evaluate(gpt2, tiny_tokenizer, NEW, rs.KNNLM(memory, k=0), window=64)
    ids = torch.tensor([[0, *tiny_tokenizer(NEW[0][1])["input_ids"], 0]])
    assert ids.shape[1] <= 64
    with torch.no_grad():
        loss = gpt2(ids, labels=ids).loss
    assert result.base_perplexity == pytest.approx(float(loss.exp()), rel=1e-5)
    assert result.n == ids.shape[1] - 1
    assert result.base_tokens_per_second > result.tokens_per_second > 0


def test_tuned_it_helps_on_new_text_and_a_document_is_kept_from_itself(gpt2, tiny_tokenizer, memory):
    val = list(rs.lm.encode(gpt2, tiny_tokenizer, NEW, like=memory))
    best = rs.tune(rs.KNNLM(memory, k=8), val)
    assert best.best_params_["k"] > 0
    result = rs.lm.evaluate(gpt2, tiny_tokenizer, NEW, best)
    assert result.perplexity < 0.5 * result.base_perplexity  # a random model knows nothing
    by_heart = rs.KNNLM(memory, k=1, lmbda=0.9, sigma=1.0)
    own = rs.lm.evaluate(gpt2, tiny_tokenizer, TEXTS, by_heart)
    seen = rs.lm.evaluate(gpt2, tiny_tokenizer, TEXTS, by_heart, exclude=None)
    assert seen.accuracy > 0.97 > own.accuracy


def test_a_gate_is_fitted_on_remembered_documents_without_themselves(gpt2, tiny_tokenizer):
    texts = [(f"{n}.py", f"def add{n}(first, second):\n    return first + second + {n}\n" * 3) for n in range(12)]
    memory = rs.lm.remember(gpt2, tiny_tokenizer, texts, window=24, key_dtype="float32", progress=False)
    reader = rs.lm.fit(gpt2, tiny_tokenizer, rs.Gated(memory, 30), progress=False)
    again = rs.lm.fit(
        gpt2, tiny_tokenizer, rs.Gated(memory, 30), texts, progress=False
    )  # the same, read from the texts
    assert reader.evidence_.used and reader.evidence_.rows == len(memory) and reader.evidence_.groups == 12
    kept = rs.lm.remember(gpt2, tiny_tokenizer, texts, storage="full", window=24, key_dtype="float32", progress=False)
    for other in (again, rs.Gated(kept, 30).fit()):  # and from what the memory has kept
        np.testing.assert_allclose(reader.shares.weights, other.shares.weights, rtol=0.05, atol=0.05)
    new = [("new.py", "def add77(first, second):\n    return first + second + 77\n")]
    result = rs.lm.evaluate(gpt2, tiny_tokenizer, new, reader, label_knn=False)
    assert result.perplexity < 0.5 * result.base_perplexity
    assert "by query, 18 weights" in str(result) and "by query, 18 weights" in repr(reader)
    why = rs.lm.explain(gpt2, tiny_tokenizer, "def add", reader)
    np.testing.assert_allclose(why.scale * why.base + why.contributions.sum(axis=0), why.scores, atol=1e-5)


@pytest.mark.parametrize(("storage", "key"), [("top-m", "ffn"), ("full", "ffn"), ("head", "head")])
def test_resmem_of_every_storage(gpt2, tiny_tokenizer, storage, key):
    memory = rs.lm.remember(
        gpt2, tiny_tokenizer, TEXTS, window=24, storage=storage, m=300, key=key, key_dtype="float32", progress=False
    )
    result = rs.lm.evaluate(gpt2, tiny_tokenizer, TEXTS, rs.ResMem(memory, k=1, sigma=1.0), exclude=None)
    assert result.accuracy > 0.97 and result.tpr > 0.5


def test_forgetting_a_document_forgets_all_its_tokens(gpt2, tiny_tokenizer):
    memory = rs.lm.remember(gpt2, tiny_tokenizer, TEXTS, window=24, progress=False)
    rows = len(memory)
    document = next(i for i, name in memory.names.items() if name == "counter.py")
    count = memory.forget(document)
    assert count == (len(tiny_tokenizer(TEXTS[1][1])["input_ids"])) + 1 and len(memory) == rows - count
    assert document not in memory.ids


def test_another_text_is_added_to_a_memory(gpt2, tiny_tokenizer):
    memory = rs.lm.remember(gpt2, tiny_tokenizer, TEXTS[:1], window=24, progress=False)
    ids = memory.add(rs.lm.encode(gpt2, tiny_tokenizer, TEXTS[1:2], like=memory))
    assert len(set(ids)) == 1 and tiny_tokenizer.decode(memory.labels[memory.ids == ids[0]]).startswith(TEXTS[1][1])
    with pytest.raises(rs.errors.IdError, match="in the memory already"):
        memory.add(rs.lm.encode(gpt2, tiny_tokenizer, TEXTS[1:2], like=memory))


def test_a_prediction_is_explained_as_text(gpt2, tiny_tokenizer, memory):
    text = tiny_tokenizer.decode(tiny_tokenizer(TEXTS[0][1])["input_ids"][:9])
    reader = rs.KNNLM(memory, k=3, lmbda=0.9, sigma=1.0)
    why = rs.lm.explain(gpt2, tiny_tokenizer, text, reader)
    ids = torch.tensor([[0, *tiny_tokenizer(text)["input_ids"]]])
    with rs.attach(gpt2, reader), torch.no_grad():
        assert why.prediction == gpt2(ids).logits[0, -1].argmax()
    assert why.distances[0] == pytest.approx(0, abs=1e-4)
    assert text.endswith(tiny_tokenizer.decode(why.contexts[0])[-8:])
    assert "add.py" in str(why) and why.label is None


def test_another_model_tokenizer_or_layer_is_refused(gpt2, tiny_model, tiny_tokenizer, memory):
    reader = rs.KNNLM(memory, k=2)
    with pytest.raises(SourceMismatchError):
        rs.lm.evaluate(tiny_model("gpt2", n_layer=1), tiny_tokenizer, NEW, reader)
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>")
    with pytest.raises(SourceMismatchError, match="tokenizer"):
        rs.lm.evaluate(gpt2, other, NEW, reader)
    with pytest.raises(SourceMismatchError, match="keys come from"):
        next(iter(rs.lm.encode(gpt2, tiny_tokenizer, NEW, like=memory, key="head")))


def test_bad_input(gpt2, tiny_tokenizer, memory, tmp_path):
    def remember(texts=TEXTS, **options):
        return rs.lm.remember(gpt2, tiny_tokenizer, texts, **{"window": 24, "progress": False, **options})

    with pytest.raises(InputError, match="no token"):
        remember([""])
    with pytest.raises(ParameterError, match="128"):
        remember(window=500)
    with pytest.raises(KeyModuleError, match="no module"):
        remember(key="transformer.h.9.mlp")
    with pytest.raises(StorageError, match="storage='head'"):
        remember(storage="head")
    (tmp_path / "bad.py").write_bytes(b"x = 1\nname = '\xff'\n")
    with pytest.raises(InputError, match=r"bad\.py is not UTF-8: byte 0xff at position 14"):
        remember(tmp_path)
    with pytest.raises(ParameterError, match="k=9999"):
        rs.KNNLM(memory, k=9999)
    with pytest.raises(InputError, match="what comes before"):
        rs.lm.explain(gpt2, tiny_tokenizer, "", rs.KNNLM(memory, k=2))
    with pytest.raises(ParameterError, match="where a reader is expected"):
        rs.lm.evaluate(gpt2, tiny_tokenizer, NEW, memory)
    emptied = remember()
    reader = rs.KNNLM(emptied, k=2)
    emptied.forget(list(emptied.names))
    with pytest.raises(EmptyMemoryError):
        rs.lm.evaluate(gpt2, tiny_tokenizer, NEW, reader)
    with pytest.raises(StorageError, match="labels only"):
        rs.ResMem(memory, k=2)


def test_a_model_without_output_embeddings_is_refused(gpt2, tiny_tokenizer):
    with pytest.raises(rs.errors.EncodeError, match="head"):
        rs.lm.remember(gpt2.transformer, tiny_tokenizer, TEXTS, progress=False)


@pytest.fixture(scope="module")
def code(shared):
    """The trained model, its tokenizer, and the standard library's files it was and was not trained on."""
    if sys.version_info[:3] != (3, 11, 7):
        pytest.skip("the corpus is CPython 3.11.7's standard library, and this is another Python")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared / "models" / "code-gpt2"
    split = json.loads((folder / "split.json").read_text())
    library = Path(sysconfig.get_paths()["stdlib"])
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), library, split


def named(library, names):
    return [(name, (library / name).read_text("utf-8", errors="replace")) for name in names]


@pytest.mark.slow
def test_a_trained_model_gains_from_text_it_never_saw(code):
    """scikit-learn's source is new to the model; a memory of some of its files halves the perplexity of others."""
    import sklearn

    model, tokenizer, _, _ = code
    folder = Path(sklearn.__file__).parent / "linear_model"
    files = sorted(folder.glob("*.py"))
    names = [file.name for file in files]
    memory = rs.lm.remember(
        model,
        tokenizer,
        [f for f in files if f.name in ("_base.py", "_ridge.py", "_logistic.py")],
        window=256,
        progress=False,
    )
    assert "_bayes.py" in names and "_huber.py" in names
    val, test = (
        [(f.name, f.read_text("utf-8")[:9000]) for f in files if f.name == n] for n in ("_bayes.py", "_huber.py")
    )
    best = rs.tune(rs.KNNLM(memory, k=64), rs.lm.encode(model, tokenizer, val, like=memory))
    result = rs.lm.evaluate(model, tokenizer, test, best)
    assert result.perplexity < 0.6 * result.base_perplexity and result.gain > 0.05
    assert np.isfinite(best.best_score_) and best.best_params_["lmbda"] >= 0.3
