import numpy as np
import pytest
import torch

from residua.encoding import TextEncoder, text_encoder
from residua.encoding.pairs import PairEncoder
from residua.errors import EncodeError, InputError, ParameterError

PAIRS = [("def add(a, b):", "adds two numbers"), ("x", "y"), ("class Counter:", "counts what it is given")]


@pytest.mark.parametrize("kind", ["t5", "bart"])
@pytest.mark.parametrize("key", ["ffn", "head"])
def test_batches_equal_plain_forward_passes(kind, key, tiny_model, tiny_tokenizer):
    """Against transformers' own path: one pair at a time, ``labels=`` making the decoder's input."""
    model = tiny_model(kind)
    encoder = text_encoder(model, tiny_tokenizer, key=key)
    assert isinstance(encoder, PairEncoder) and encoder.key.startswith(("decoder", "model.decoder", "lm_head"))
    (batch,) = encoder.batches(PAIRS)
    enc = encoder.encode(batch)
    assert (encoder.head is not None) == (key == "head")
    for document, (source, target) in zip(encoder.names, PAIRS, strict=True):
        mine = enc[enc.ids == document]
        labels = [*tiny_tokenizer(target)["input_ids"], 0]
        assert mine.labels.tolist() == labels
        assert mine.columns["offset"].tolist() == list(range(len(labels)))
        seen = []
        handle = model.get_submodule(encoder.key.removesuffix(":input")).register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(args[0])
        )
        with torch.no_grad():
            said = model(tiny_tokenizer(source, return_tensors="pt")["input_ids"], labels=torch.tensor([labels])).logits
        handle.remove()
        np.testing.assert_allclose(mine.keys, seen[0][0], atol=2e-5)
        np.testing.assert_allclose(np.asarray(mine.logits), said[0], atol=2e-4)


def test_rows_of_a_dataset_and_small_batches(tiny_model, tiny_tokenizer):
    encoder = PairEncoder(tiny_model("t5"), tiny_tokenizer, logits=False)
    rows = [{"code": source, "doc": target} for source, target in PAIRS]
    batches = list(encoder.batches(rows, 2, source_column="code", target_column="doc"))
    assert [len(batch.windows) for batch in batches] == [2, 1]
    keys = np.concatenate([encoder.encode(batch).keys for batch in batches])
    (whole,) = encoder.batches(iter(PAIRS))
    np.testing.assert_allclose(keys, encoder.encode(whole).keys, atol=1e-5)
    assert encoder.encode(whole).logits.shape == (len(whole), 300) and list(encoder.names.values()) == ["0", "1", "2"]
    with pytest.raises(InputError, match="pass source_column="):
        next(encoder.batches(rows))


def test_long_pairs_are_cut_and_counted(tiny_model, tiny_tokenizer):
    encoder = PairEncoder(tiny_model("t5"), tiny_tokenizer, max_source=5, max_target=4)
    with pytest.warns(UserWarning, match="2 of 3 pairs were cut to 5 source and 4 target tokens"):
        (batch,) = encoder.batches(PAIRS)
    full = tiny_tokenizer(PAIRS[0][1])["input_ids"]
    assert batch.labels[batch.ids == batch.ids[0]].tolist() == [*full[:3], 0]  # the closing token stays
    assert [len(window.source) for window in batch.windows] == [5, 1, 5]
    assert len(encoder.encode(batch)) == len(batch) == 4 + 2 + 4


def test_empty_sides_are_left_out(tiny_model, tiny_tokenizer):
    encoder = PairEncoder(tiny_model("t5"), tiny_tokenizer)
    with pytest.warns(UserWarning, match="2 of 3 texts are empty"):
        (batch,) = encoder.batches([("a", ""), ("b", "c"), ("", "d")])
    assert [encoder.names[i] for i in set(batch.ids)] == ["1"]
    with pytest.raises(InputError, match="there are no texts"):
        list(encoder.batches([]))


def test_an_eos_is_not_added_twice(tiny_model, tiny_tokenizer):
    (batch,) = PairEncoder(tiny_model("t5"), tiny_tokenizer).batches([("a", "b<|endoftext|>")])
    assert batch.labels.tolist() == [*tiny_tokenizer("b")["input_ids"], 0]


def test_which_encoder_and_which_lengths(tiny_model, tiny_tokenizer):
    assert type(text_encoder(tiny_model("gpt2"), tiny_tokenizer)) is TextEncoder
    assert PairEncoder(tiny_model("bart"), tiny_tokenizer).max_target == 128
    assert text_encoder(tiny_model("t5"), tiny_tokenizer).max_source == 1024
    assert text_encoder(tiny_model("t5"), tiny_tokenizer, window=20).max_target == 20
    with pytest.raises(ParameterError, match="max_source=129"):
        PairEncoder(tiny_model("bart"), tiny_tokenizer, max_source=129)
    with pytest.raises(ParameterError, match="reads pairs whole"):
        text_encoder(tiny_model("t5"), tiny_tokenizer, stride=10)
    with pytest.raises(EncodeError, match="expected a transformers encoder-decoder"):
        PairEncoder(tiny_model("gpt2").lm_head, tiny_tokenizer)
