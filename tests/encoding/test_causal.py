import json
import logging
import platform
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from residua.encoding import TextEncoder, text_encoder
from residua.encoding.windows import Windowing
from residua.errors import (
    EncodeError,
    InputError,
    KeyModuleError,
    NonFiniteError,
    ParameterError,
    SourceMismatchError,
    StorageError,
)

CAUSAL = ["gpt2", "llama", "qwen2", "opt", "gpt_neox", "bloom"]
TEXTS = ["def add(first, second):\n    return first + second\n", ("short", "x"), "class Counter:\n    pass\n"]
SMALL = Windowing.of(window=16, stride=12, prefix=0)


def bare(model, key, window):
    """What a plain forward pass over one window gives at its targets."""
    name, _, side = key.partition(":")
    seen = []
    module = model.get_submodule(name)
    if side:
        handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    else:
        handle = module.register_forward_hook(lambda _, args, output: seen.append(output))
    with torch.no_grad():
        logits = model(torch.from_numpy(window.tokens)[None]).logits[0, window.first :]
    handle.remove()
    return seen[0].reshape(len(window.tokens), -1)[window.first :].numpy(), logits.numpy()


@pytest.mark.slow
@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("key", ["ffn", "head"])
def test_batches_equal_plain_forward_passes(kind, key, tiny_model, tiny_tokenizer):
    model = tiny_model(kind)
    encoder = TextEncoder(model, tiny_tokenizer, key=key, windowing=SMALL)
    for batch in encoder.batches(TEXTS, batch_size=5):
        enc = encoder.encode(batch)
        expected = [bare(model, encoder.key, window) for window in batch.windows]
        np.testing.assert_allclose(enc.keys, np.concatenate([keys for keys, _ in expected]), atol=2e-5)
        logits = np.concatenate([logits for _, logits in expected])
        np.testing.assert_allclose(np.asarray(enc.logits), logits, atol=2e-4)
        assert enc.logits.shape == (len(batch), 300)
        if key == "head":
            np.testing.assert_allclose(encoder.head(torch.from_numpy(enc.keys)), logits, atol=2e-4)
    assert (encoder.head is not None) == (key == "head")


def test_rows_are_tokens_of_documents(tiny_model, tiny_tokenizer):
    encoder = TextEncoder(tiny_model("gpt2"), tiny_tokenizer, windowing=SMALL)
    rows = [encoder.encode(batch) for batch in encoder.batches(TEXTS, batch_size=2)]
    ids, labels, offsets = (
        np.concatenate(parts)
        for parts in zip(*((enc.ids, enc.labels, enc.columns["offset"]) for enc in rows), strict=True)
    )
    assert list(encoder.names.values()) == ["0", "short", "2"]
    for document, text in zip(encoder.names, [TEXTS[0], "x", TEXTS[2]]):
        assert tiny_tokenizer.decode(labels[ids == document]) == text
        assert offsets[ids == document].tolist() == list(range((ids == document).sum()))
    assert rows[0].task == "classification" and rows[0].source is encoder.source


def test_one_batch_size_is_as_good_as_another(tiny_model, tiny_tokenizer):
    encoder = TextEncoder(tiny_model("llama"), tiny_tokenizer, windowing=SMALL)
    keys = [np.concatenate([encoder.encode(b).keys for b in encoder.batches(TEXTS, size)]) for size in (1, 3, 16)]
    np.testing.assert_allclose(keys[0], keys[1], atol=1e-5)
    np.testing.assert_allclose(keys[0], keys[2], atol=1e-5)


@pytest.mark.parametrize("key", ["ffn", "head"])
def test_without_logits_the_head_sees_one_position(key, tiny_model, tiny_tokenizer):
    model, seen = tiny_model("gpt2"), []
    with_logits = TextEncoder(model, tiny_tokenizer, key=key, windowing=SMALL)
    encoder = TextEncoder(model, tiny_tokenizer, key=key, windowing=SMALL, logits=False)
    batch = next(encoder.batches(TEXTS))
    model.lm_head.register_forward_hook(lambda _, args, output: seen.append(output.shape))
    enc = encoder.encode(batch)
    assert seen == [(1, 1, 300)]
    np.testing.assert_array_equal(enc.keys, with_logits.encode(batch).keys)
    assert enc.logits.shape == (len(batch), 300) and enc.n_outputs == 300 and enc[3:5].logits.shape == (2, 300)
    for question in (enc.logits.dense, enc.logits.logsumexp, enc.logits.argmax, enc.logits.probabilities):
        with pytest.raises(StorageError, match="encoded without logits"):
            question()
    with pytest.raises(StorageError, match="encoded without logits"):
        enc.logits.at(torch.tensor([0]), torch.tensor([0]))


def test_a_head_that_is_not_called_as_a_module(tiny_model, tiny_tokenizer):
    plain = TextEncoder(tiny_model("gpt2"), tiny_tokenizer, windowing=SMALL)
    model = tiny_model("gpt2")
    head = model.lm_head

    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.config = model, model.config

        def get_output_embeddings(self):
            return head

        def get_input_embeddings(self):
            return model.get_input_embeddings()

        def forward(self, input_ids, attention_mask=None):
            states = model.transformer(input_ids, attention_mask=attention_mask).last_hidden_state
            return type("Output", (), {"logits": states @ head.weight.T})()

    encoder = TextEncoder(Direct(), tiny_tokenizer, windowing=SMALL)
    batch = next(plain.batches(TEXTS))
    torch.testing.assert_close(encoder.encode(batch).logits.table, plain.encode(batch).logits.table)


def test_the_model_is_left_as_it_was(tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2").train()
    model.lm_head.eval()
    tokens = torch.tensor([[5, 6, 7]])
    encoder = TextEncoder(model, tiny_tokenizer, windowing=SMALL)
    for batch in encoder.batches(TEXTS, batch_size=2):
        encoder.encode(batch)
        assert model.training and not model.lm_head.training
        assert model(tokens).logits.shape == (1, 3, 300)  # the model can be called meanwhile
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert model(tokens).logits.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(dtype, tiny_model, tiny_tokenizer):
    encoder = TextEncoder(tiny_model("llama").to(dtype), tiny_tokenizer, key="head", windowing=SMALL)
    batch = next(encoder.batches(TEXTS))
    enc = encoder.encode(batch)
    exact = TextEncoder(tiny_model("llama"), tiny_tokenizer, key="head", windowing=SMALL).encode(batch)
    assert enc.keys.dtype == np.float32 and enc.logits.table.dtype == dtype and encoder.head is not None
    cosine = (enc.keys * exact.keys).sum(1) / np.linalg.norm(enc.keys, axis=1) / np.linalg.norm(exact.keys, axis=1)
    assert cosine.min() > 0.99


def test_source_knows_model_key_and_tokenizer(tiny_model, tiny_tokenizer):
    ours = TextEncoder(tiny_model("gpt2"), tiny_tokenizer, windowing=SMALL).source
    ours.require(TextEncoder(tiny_model("gpt2"), tiny_tokenizer).source)
    with pytest.raises(SourceMismatchError, match="lm_head"):
        ours.require(TextEncoder(tiny_model("gpt2"), tiny_tokenizer, key="head").source)

    class Other:
        def __call__(self, texts, **options):
            return tiny_tokenizer(texts, **options)

        def get_vocab(self):
            return {"other": 0}

    with pytest.raises(SourceMismatchError, match="tokenizer"):
        ours.require(TextEncoder(tiny_model("gpt2"), Other(), windowing=SMALL).source)


def test_it_is_said_which_key(tiny_model, tiny_tokenizer, caplog):
    with caplog.at_level(logging.INFO, logger="residua"):
        assert TextEncoder(tiny_model("gpt2"), tiny_tokenizer).key == "transformer.h.1.mlp.c_fc:input"
    assert "'transformer.h.1.mlp.c_fc:input'" in caplog.text
    with pytest.warns(UserWarning, match="no feed-forward network .* key='head'"):
        assert TextEncoder(tiny_model("gpt2", n_inner=32), tiny_tokenizer).key == "lm_head:input"
    assert TextEncoder(tiny_model("gpt2", n_inner=32), tiny_tokenizer, key="head").key == "lm_head:input"


def test_any_module_can_be_the_key(tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2")
    encoder = TextEncoder(model, tiny_tokenizer, key="transformer.h.0.mlp.c_fc", windowing=SMALL)
    batch = next(encoder.batches(TEXTS))
    keys = np.concatenate([bare(model, encoder.key, window)[0] for window in batch.windows])
    np.testing.assert_allclose(encoder.encode(batch).keys, keys, atol=2e-5)
    with pytest.raises(KeyModuleError, match="no module 'lm_heed'; near names: 'lm_head'"):
        TextEncoder(model, tiny_tokenizer, key="lm_heed")
    with pytest.raises(KeyModuleError, match="expected one vector per token"):
        TextEncoder(model, tiny_tokenizer, key="transformer.wpe:input")


def test_windows_follow_the_model(tiny_model, tiny_tokenizer):
    assert TextEncoder(tiny_model("gpt2"), tiny_tokenizer).windowing == Windowing(128, 96, 0, 0, True)
    assert text_encoder(tiny_model("bloom"), tiny_tokenizer).windowing == Windowing(1024, 768, 0, 0, True)
    chosen = text_encoder(tiny_model("gpt2"), tiny_tokenizer, window=100, min_context=30, key="head", logits=False)
    assert chosen.windowing == Windowing(100, 70, 0, 0, True) and chosen.key == "lm_head:input" and not chosen.logits
    for make in (text_encoder, TextEncoder):
        with pytest.raises(ParameterError, match="128 positions"):
            options = {"window": 129} if make is text_encoder else {"windowing": Windowing(129, 96)}
            make(tiny_model("gpt2"), tiny_tokenizer, **options)


def test_texts_with_nothing_to_predict(tiny_model, tiny_tokenizer):
    encoder = TextEncoder(tiny_model("gpt2"), tiny_tokenizer, windowing=Windowing(16, 12, prefix=None))
    with pytest.warns(UserWarning, match="1 of 2 texts have one token"):
        (batch,) = encoder.batches(["x", "x y"])
    assert encoder.names[batch.ids[0]] == "1" and len(set(batch.ids)) == 1
    assert batch.offsets.tolist() == list(range(1, len(batch) + 1))
    with pytest.raises(InputError, match="all 1 texts have one token"):
        list(encoder.batches(["x"]))
    with pytest.raises(InputError, match="a path that does not exist, or a text"):
        list(encoder.batches("a text"))


def test_a_tokenizer_of_another_model(tiny_model, tiny_tokenizer):
    encoder = TextEncoder(tiny_model("gpt2", vocab_size=50), tiny_tokenizer, windowing=SMALL)
    with pytest.raises(InputError, match=r"text '0' has token \d+, of a tokenizer of 300, .* has 50"):
        list(encoder.batches(TEXTS))
    with pytest.raises(InputError, match="the prefix has token 60"):
        TextEncoder(tiny_model("gpt2", vocab_size=50), tiny_tokenizer, windowing=Windowing(16, 12, prefix=60))


@pytest.mark.slow
def test_threads_share_a_model(tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2")
    encoders = [TextEncoder(model, tiny_tokenizer, key=key, windowing=SMALL) for key in ("ffn", "head")] * 2
    batches = [list(encoder.batches(TEXTS, batch_size=1)) for encoder in encoders]
    expected = [[encoder.encode(batch) for batch in mine] for encoder, mine in zip(encoders, batches)]

    def work(which):
        return [encoders[which].encode(batch) for _ in range(5) for batch in batches[which]]

    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(work, range(4)), expected, strict=True):
            for mine, theirs in zip(found, wanted * 5, strict=True):
                np.testing.assert_allclose(mine.keys, theirs.keys, atol=1e-5)
                np.testing.assert_allclose(np.asarray(mine.logits), np.asarray(theirs.logits), atol=1e-4)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_keys_that_are_no_numbers(tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2")
    encoder = TextEncoder(model, tiny_tokenizer, windowing=SMALL)
    with torch.no_grad():
        model.transformer.wpe.weight[3] = torch.nan
    with pytest.raises(NonFiniteError, match="keys hold"):
        encoder.encode(next(encoder.batches(TEXTS)))


def test_what_is_no_language_model(tiny_model, tiny_tokenizer):
    with pytest.raises(EncodeError, match="expected a transformers model"):
        text_encoder(nn.Linear(2, 2), tiny_tokenizer)
    with pytest.raises(EncodeError, match=r"expected a pair \(language model, tokenizer\)"):
        text_encoder(tiny_tokenizer, tiny_model("gpt2").config)
    with pytest.raises(KeyModuleError, match="no output embeddings"):
        text_encoder(tiny_model("gpt2").transformer, tiny_tokenizer)


@pytest.mark.skipif(platform.python_version() != "3.11.7", reason="its texts are CPython 3.11.7's standard library")
@pytest.mark.slow
def test_a_trained_model_scores_as_it_does_in_transformers(shared):
    """Perplexity of validation files, against windows cut here by hand and scored by the model alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared / "models" / "code-gpt2"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    split = json.loads((folder / "split.json").read_text())
    library = Path(sysconfig.get_path("stdlib"))
    files = [library / name for name in split["validation"] if name in ("queue.py", "asyncio/exceptions.py", "bz2.py")]
    encoder = text_encoder(model, tokenizer, window=256, stride=192, end_of_text=False)
    assert encoder.key == "transformer.h.3.mlp.c_fc:input"
    assert encoder.windowing == Windowing(256, 192, 0, split_special_tokens=True)
    ours = 0.0
    for batch in encoder.batches(files):
        enc = encoder.encode(batch)
        rows, labels = torch.arange(len(enc)), torch.from_numpy(enc.labels)
        ours += float((enc.logits.logsumexp() - enc.logits.at(rows, labels)).double().sum())
    theirs, count = 0.0, 0
    for file in files:
        tokens = torch.tensor([0, *tokenizer(file.read_text("utf-8"), verbose=False)["input_ids"]])
        scored = 0
        for start in range(0, len(tokens), 192):
            end = min(start + 256, len(tokens) - 1)
            if end > scored:
                with torch.no_grad():
                    said = model(tokens[None, start:end]).logits[0, scored - start :].log_softmax(1)
                theirs -= float(said.gather(1, tokens[scored + 1 : end + 1, None]).double().sum())
                count, scored = count + end - scored, end
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert 17 < np.exp(ours / count) < 21


def test_a_model_that_looks_ahead_is_refused(tiny_bert, tiny_tokenizer):
    assert TextEncoder(tiny_bert("bert", is_decoder=True), tiny_tokenizer).key.endswith("intermediate.dense:input")
    with pytest.raises(EncodeError, match=r"depends on the tokens after it.*is_decoder=True"):
        TextEncoder(tiny_bert("bert"), tiny_tokenizer)


def test_positions_that_padding_takes_are_none(tiny_bert, tiny_tokenizer):
    model = tiny_bert("roberta", is_decoder=True, max_position_embeddings=20)
    encoder = TextEncoder(model, tiny_tokenizer)
    assert encoder.windowing.window == 18  # the padding token is 1
    for batch in encoder.batches(["x" * 60]):
        encoder.encode(batch)


def test_more_tokens_than_a_model_reads(tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2")
    model.config.n_positions = -1  # as a model without a limit says
    encoder = TextEncoder(model, tiny_tokenizer, windowing=Windowing.of(window=200, prefix=0))
    with pytest.raises(EncodeError, match=r"cannot read 200 tokens.*pass window= with fewer"):
        encoder.encode(next(encoder.batches(["x" * 600])))


@pytest.fixture
def tiny_bert():
    def make(kind, **options):
        from transformers import AutoConfig, AutoModelForCausalLM

        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        sizes["initializer_range"] = 0.3
        config = AutoConfig.for_model(kind, **sizes, vocab_size=300, bos_token_id=0, pad_token_id=1, **options)
        return AutoModelForCausalLM.from_config(config).eval()

    return make
