"""Texts as data that can be iterated again: what is known of them, and the model left as it was."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.core import Encoded
from residua.encoding import TextStream, last_row
from residua.errors import EncodeError, InputError, KeyModuleError, ParameterError, SourceMismatchError

TEXTS = [("add", "def add(first, second):\n    return first + second\n"), ("short", "x"), ("count", "class Counter:")]
CUT = {"window": 16, "stride": 12}


@pytest.fixture(scope="module")
def gpt2(tiny_model):
    return tiny_model("gpt2")


def hooks_in(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def rows(batches, part="labels"):
    return np.concatenate([getattr(batch, part) for batch in batches])


def test_it_gives_the_same_rows_each_time(gpt2, tiny_tokenizer):
    stream = rs.encode((gpt2, tiny_tokenizer), TEXTS, batch_size=2, **CUT)
    assert isinstance(stream, TextStream) and stream.names == {}
    first, second = list(stream), list(stream)
    assert all(isinstance(batch, Encoded) and batch.source is stream.source for batch in first) and len(first) > 1
    for part in ("labels", "ids", "keys"):
        np.testing.assert_array_equal(rows(first, part), rows(second, part))
    assert list(stream.names.values()) == ["add", "short", "count"]
    assert (
        stream.windowing == {**CUT, "prefix": 0, "suffix": 0, "split_special_tokens": True} == stream.about["windowing"]
    )
    assert (stream.key, stream.n_outputs) == ("transformer.h.1.mlp.c_fc:input", 300)


def test_paths_and_datasets_can_be_read_again_and_iterators_cannot(gpt2, tiny_tokenizer, tmp_path):
    (tmp_path / "a.py").write_text("x = 1")

    class Rows:
        def __iter__(self):
            return iter([{"text": "x = 1"}])

    for texts in (tmp_path, str(tmp_path), [tmp_path / "a.py"], Rows()):
        stream = rs.encode((gpt2, tiny_tokenizer), texts)
        assert [len(batch) for batch in stream] == [len(batch) for batch in stream] != []
    stream = rs.encode((gpt2, tiny_tokenizer), (text for text in ["x = 1"]))
    assert len(list(stream)) == 1
    for again in (stream, stream.batches()):
        with pytest.raises(InputError, match="generator, which can be read once, and it was; pass a list"):
            list(again)


def test_batches_are_known_before_the_model_runs(gpt2, tiny_tokenizer):
    stream = rs.encode((gpt2, tiny_tokenizer), TEXTS, batch_size=2, **CUT)
    calls = []
    handle = gpt2.register_forward_hook(lambda *_: calls.append(1))
    planned = list(stream.batches())
    assert not calls
    handle.remove()
    for plan, batch in zip(planned, stream, strict=True):
        assert len(plan) == len(batch)
        for mine, theirs in (
            (plan.labels, batch.labels),
            (plan.ids, batch.ids),
            (plan.offsets, batch.columns["offset"]),
        ):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(stream.encode(plan).keys, batch.keys)


def test_two_iterations_at_once(gpt2, tiny_tokenizer):
    stream = rs.encode((gpt2, tiny_tokenizer), TEXTS, batch_size=2, **CUT)
    for one, other in zip(stream, stream, strict=True):
        np.testing.assert_array_equal(one.keys, other.keys)


@pytest.mark.parametrize("how", ["held", "abandoned", "interrupted", "finished"])
def test_the_model_has_no_hooks_and_keeps_its_flags(how, tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2").train()

    def texts():
        yield from TEXTS
        if how == "interrupted":
            raise KeyboardInterrupt

    iterator = iter(rs.encode((model, tiny_tokenizer), texts(), batch_size=1, **CUT))
    if how == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            list(iterator)
    elif how == "finished":
        list(iterator)
    else:
        next(iterator)
        if how == "abandoned":
            del iterator
    assert hooks_in(model) == 0 and model.training and not torch.is_inference_mode_enabled()


def test_a_failing_forward_pass_leaves_no_hooks(tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2")
    stream = rs.encode((model, tiny_tokenizer), TEXTS, **CUT)

    def fail(*_):
        raise KeyboardInterrupt

    handle = model.transformer.h[1].register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    handle.remove()
    assert hooks_in(model) == 0 and len(list(stream)) == 1


def test_a_memory_of_it(gpt2, tiny_tokenizer):
    stream = rs.encode((gpt2, tiny_tokenizer), TEXTS, logits=False, **CUT)
    memory = rs.Memory(stream, storage="none", about=stream.about)
    assert len(memory) == sum(map(len, stream)) and memory.source == stream.source
    again = rs.encode((gpt2, tiny_tokenizer), TEXTS, like=memory)
    assert again.windowing == stream.windowing
    np.testing.assert_array_equal(rows(again), memory.labels)


@pytest.mark.parametrize("kind", ["stream", "memory", "reader", "encoded", "source"])
def test_like_is_whatever_knows_its_model(kind, gpt2, tiny_model, tiny_tokenizer):
    first = rs.encode((gpt2, tiny_tokenizer), TEXTS, key="head", **CUT)
    (batch,) = first
    memory = rs.Memory(first, storage="none", about=first.about)
    like = {
        "stream": first,
        "memory": memory,
        "reader": rs.KNNLM(memory, k=2),
        "encoded": batch,
        "source": first.source,
    }
    stream = rs.encode((gpt2, tiny_tokenizer), TEXTS, like=like[kind])
    assert stream.key == "lm_head:input"
    assert stream.windowing["window"] == (128 if kind in ("encoded", "source") else 16)
    assert rs.encode((gpt2, tiny_tokenizer), TEXTS, like=like[kind], window=20).windowing["stride"] == 15
    for key in (None, "ffn"):
        with pytest.raises(SourceMismatchError):
            rs.encode((tiny_model("gpt2", n_layer=1), tiny_tokenizer), TEXTS, like=like[kind], key=key)


def test_like_keeps_the_token_before_each_document(gpt2, tiny_tokenizer):
    first = rs.encode((gpt2, tiny_tokenizer), TEXTS)

    class WithoutBos:
        backend_tokenizer = tiny_tokenizer.backend_tokenizer

        def __call__(self, texts, **options):
            return tiny_tokenizer(texts, **options)

    assert rs.encode((gpt2, WithoutBos()), TEXTS).windowing["prefix"] is None
    assert rs.encode((gpt2, WithoutBos()), TEXTS, like=first).windowing == first.windowing


def test_another_model_that_lacks_the_key_is_another_model(gpt2, tiny_model, tiny_tokenizer):
    like = rs.encode((gpt2, tiny_tokenizer), TEXTS)
    with pytest.raises(SourceMismatchError):
        rs.encode((tiny_model("llama"), tiny_tokenizer), TEXTS, like=like)
    with pytest.raises(KeyModuleError):
        rs.encode((gpt2, tiny_tokenizer), TEXTS, key="transformer.h.9.mlp")
    with pytest.raises(ParameterError, match="does not know its model"):
        rs.encode((gpt2, tiny_tokenizer), TEXTS, like=rs.Encoded(np.eye(2), 2 * np.eye(2)))


def test_pairs(tiny_model, tiny_tokenizer):
    pairs = [{"code": "def add(a, b):", "doc": "adds"}, {"code": "x", "doc": "y"}]
    columns = {"source_column": "code", "target_column": "doc"}
    stream = rs.encode((tiny_model("t5"), tiny_tokenizer), pairs, window=20, **columns)
    assert stream.windowing == {"window": 20} and stream.estimate_tokens() is None
    (batch,), (again,) = stream, stream
    np.testing.assert_array_equal(batch.keys, again.keys)
    assert rs.encode((tiny_model("t5"), tiny_tokenizer), pairs, like=stream, **columns).windowing == {"window": 20}


def test_how_many_tokens(gpt2, tiny_tokenizer, tmp_path):
    for texts in (TEXTS, [text for _, text in TEXTS], [{"text": text} for _, text in TEXTS]):
        stream = rs.encode((gpt2, tiny_tokenizer), texts)
        assert stream.estimate_tokens() == pytest.approx(sum(map(len, stream.batches())), abs=2)
    (tmp_path / "a.py").write_text("x = 1\n" * 30)
    stream = rs.encode((gpt2, tiny_tokenizer), tmp_path)
    assert stream.estimate_tokens() == sum(map(len, stream.batches()))
    assert rs.encode((gpt2, tiny_tokenizer), iter(["x"])).estimate_tokens() is None


@pytest.mark.parametrize("texts", ["a text", ["a text"], [("name", "a text")], [{"text": "a text"}], ("a", "b")])
def test_texts_without_a_tokenizer_name_the_pair(texts, gpt2):
    for model in (gpt2, torch.nn.Linear(2, 2)):
        with pytest.raises(InputError, match=r"rs\.encode\(\(model, tokenizer\), texts\)"):
            rs.encode(model, texts)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": [1]}, "labels= is not for texts"),
        ({"ids": [1]}, "ids= is not for texts"),
        ({"glub": "*"}, r"unexpected glub=; .*'text_column', 'name_column', 'glob', 'errors'"),
        ({"source_column": "a"}, "unexpected source_column="),
        ({"window": 500}, "128 positions"),
    ],
)
def test_options_that_do_not_fit(options, said, gpt2, tiny_tokenizer):
    with pytest.raises(ParameterError, match=said):
        rs.encode((gpt2, tiny_tokenizer), TEXTS, **options)


def test_options_of_texts_for_rows_and_pairs_that_are_none(gpt2, tiny_tokenizer):
    with pytest.raises(ParameterError, match=r"unexpected window=.*rs\.encode\(\(model, tokenizer\), texts\)"):
        rs.encode(torch.nn.Linear(2, 2), torch.zeros(2, 2), window=5)
    with pytest.raises(EncodeError, match=r"got a GPT2LMHeadModel with a str; expected a pair"):
        rs.encode((gpt2, "gpt2"), TEXTS)
    with pytest.raises(EncodeError, match="expected a transformers model with an LM head"):
        rs.encode((tiny_tokenizer, gpt2), TEXTS)


def test_the_last_row_is_the_state_after_a_prompt(gpt2, tiny_tokenizer):
    stream = rs.encode((gpt2, tiny_tokenizer), TEXTS)
    row = last_row((gpt2, tiny_tokenizer), TEXTS[0][1], like=stream)
    ids = torch.tensor([[0, *tiny_tokenizer(TEXTS[0][1])["input_ids"]]])
    with torch.no_grad():
        np.testing.assert_allclose(np.asarray(row.logits)[0], gpt2(ids).logits[0, -1], atol=1e-4)
    assert len(row) == 1 and row.labels is None and row.ids is None and row.source == stream.source
    for text in ("", None, 5, ("a", "b")):
        with pytest.raises(InputError, match="what comes before the predicted token"):
            last_row((gpt2, tiny_tokenizer), text)


def test_the_last_row_of_a_pair(tiny_model, tiny_tokenizer):
    model = tiny_model("t5")
    row = last_row((model, tiny_tokenizer), ("x = 1", "sets"))
    source = tiny_tokenizer("x = 1", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        labels = torch.tensor([[*tiny_tokenizer("sets")["input_ids"], 0]])
        np.testing.assert_allclose(np.asarray(row.logits)[0], model(source, labels=labels).logits[0, -1], atol=1e-4)
    with pytest.raises(InputError, match="expected a pair of texts"):
        last_row((model, tiny_tokenizer), "x = 1")


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_progress_is_shown_on_demand(progress, shown, gpt2, tiny_tokenizer, capsys):
    list(rs.encode((gpt2, tiny_tokenizer), TEXTS, progress=progress))
    rs.encode(torch.nn.Linear(2, 2), torch.zeros(2, 2), progress=progress)
    out, err = capsys.readouterr()
    assert out == "" and (err.count("encode:") >= 2 if shown else err == "")
