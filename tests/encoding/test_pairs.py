import numpy as np
import pytest
import torch
import transformers

import residua as rs
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


# Those without a way of their own to shift targets, those that begin with the last target token, and relatives.
FAMILIES = {
    "blenderbot": {},
    "blenderbot-small": {},
    "m2m_100": {},
    "nllb-moe": {"num_experts": 4, "expert_capacity": 64, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
    "marian": {"decoder_vocab_size": 300},
    "mbart": {},
    "plbart": {},
    "pegasus": {},
    "mvp": {},
    "fsmt": {"src_vocab_size": 300, "tgt_vocab_size": 300, "langs": ["en", "de"]},
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_each_token_is_as_likely_as_when_the_targets_grow(kind, tiny_model, tiny_tokenizer):
    """A padded batch, against one token after the other behind the start token that ``generate`` begins with."""
    model = tiny_model(kind, **FAMILIES[kind])
    encoder = text_encoder(model, tiny_tokenizer)
    # One of a mixture's experts may read every token, in an order of its own.
    assert kind != "nllb-moe" or encoder.key.endswith(".ffn:input")
    (batch,) = encoder.batches(PAIRS)
    enc = encoder.encode(batch)
    for document, (source, target) in zip(encoder.names, PAIRS, strict=True):
        labels, said = [*tiny_tokenizer(target)["input_ids"], 0], []
        ids, grown = tiny_tokenizer(source, return_tensors="pt")["input_ids"], [model.config.decoder_start_token_id]
        for label in labels:
            with torch.no_grad():
                said.append(model(ids, decoder_input_ids=torch.tensor([grown]), use_cache=False).logits[0, -1])
            grown.append(label)
        mine = enc[enc.ids == document]
        assert mine.labels.tolist() == labels
        np.testing.assert_allclose(
            torch.as_tensor(np.asarray(mine.logits)).log_softmax(1), torch.stack(said).log_softmax(1), atol=1e-4
        )


LETTERS = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]


def coded(kind, **languages):
    """transformers' own tokenizers of letters, with their language codes."""
    if kind == "mbart":
        return transformers.MBartTokenizer(vocab=[(letter, -1.0) for letter in LETTERS], **languages)
    vocabulary = {letter: number for number, letter in enumerate(LETTERS)}
    return transformers.NllbTokenizer(vocab=vocabulary, merges=[], **languages)


@pytest.mark.parametrize(
    ("kind", "languages", "read", "labels"),
    [
        ("mbart", ("en_XX", "de_DE"), "de_DE ▁ a b </s>", "▁ a b </s> de_DE"),
        ("m2m_100", ("eng_Latn", "deu_Latn"), "</s> deu_Latn ▁ a b", "deu_Latn ▁ a b </s>"),
    ],
)
def test_language_codes_stand_where_they_do_in_training(kind, languages, read, labels, tiny_model):
    tokenizer = coded(kind, src_lang=languages[0], tgt_lang=languages[1])
    model = tiny_model(kind, vocab_size=len(tokenizer), eos_token_id=2, decoder_start_token_id=2)
    encoder = text_encoder(model, tokenizer)
    (batch,) = encoder.batches([("c", "ab"), ("cd", "b")])
    assert tokenizer.convert_ids_to_tokens(batch.windows[0].targets) == labels.split()
    seen = []
    handle = model.get_decoder().embed_tokens.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(input_ids=torch.tensor([[5]]), labels=torch.as_tensor(batch.windows[0].targets)[None])
    encoder.encode(batch)
    handle.remove()
    theirs, mine = seen
    assert torch.equal(mine[0], theirs[0])
    assert tokenizer.convert_ids_to_tokens(mine[0]) == read.split()


def test_a_target_s_language_that_nobody_named(tiny_model):
    tokenizer = coded("m2m_100", src_lang="eng_Latn")
    encoder = text_encoder(tiny_model("m2m_100", vocab_size=len(tokenizer)), tokenizer)
    with pytest.warns(UserWarning, match="set tokenizer.tgt_lang"):
        list(encoder.batches([("c", "ab")]))


def test_encoder_and_decoder_may_have_vocabularies_and_lengths_of_their_own(tiny_tokenizer):
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    encoder, decoder = (
        transformers.BertConfig(**small, vocab_size=vocabulary, max_position_embeddings=length)
        for vocabulary, length in ((320, 48), (300, 64))
    )
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = transformers.EncoderDecoderModel(config).eval()
    with pytest.raises(EncodeError, match=r"set model.config.decoder_start_token_id"):
        text_encoder(model, tiny_tokenizer)
    model.config.decoder_start_token_id, model.config.pad_token_id = 0, 1
    stream = rs.encode((model, tiny_tokenizer), PAIRS)
    assert (stream.encoder.max_source, stream.encoder.max_target) == (48, 64)
    again = rs.encode((model, tiny_tokenizer), PAIRS, like=stream)
    assert (again.encoder.max_source, again.encoder.max_target) == (48, 64)

    def tokenizer(texts=None, text_target=None, **options):
        return {"input_ids": [[310]] * len(texts) if text_target is None else [[310, 0]] * len(text_target)}

    with pytest.raises(InputError, match="the target of pair 0 has token 310"):
        PairEncoder(model, Callable(tiny_tokenizer, tokenizer)).batches(PAIRS).__next__()


class Callable:
    """A tokenizer that is called otherwise."""

    def __init__(self, tokenizer, call):
        self.tokenizer, self.call = tokenizer, call

    def __call__(self, *args, **options):
        return self.call(*args, **options)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __len__(self):
        return len(self.tokenizer)


def test_models_that_do_not_read_texts_are_refused(tiny_tokenizer):
    config = transformers.WhisperConfig(
        vocab_size=300, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=1, max_source_positions=4,
    )  # fmt: skip
    with pytest.raises(EncodeError, match="expected a transformers encoder-decoder of texts"):
        text_encoder(transformers.WhisperForConditionalGeneration(config), tiny_tokenizer)


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
