"""A memory without influence changes nothing, whatever generation does with the logits."""

import numpy as np
import pytest
import torch

import residua as rs

TEXTS = ["def add(first, second):\n    return first + second\n", "class Counter:\n    def count(self, name):\n"]
LENGTH = 12
OPTIONS = {
    "greedy": {},
    "beams, length penalty": {"num_beams": 3, "length_penalty": -2.0, "early_stopping": True, "eos_token_id": 88},
    "beams, sampled": {"num_beams": 2, "do_sample": True},
    "length penalty": {"exponential_decay_length_penalty": (2, 1.7), "eos_token_id": 0},
    "repetition penalty": {"repetition_penalty": 1.8},
    "encoder repetition penalty": {"encoder_repetition_penalty": 1.8},
    "no repeated n-gram": {"no_repeat_ngram_size": 2},
    "sequence bias": {"sequence_bias": [[[88], 4.0], [[3, 5], -2.0]]},
    "bad words": {"bad_words_ids": [[88], [12, 13]]},
    "guidance": {"guidance_scale": 1.7},
    "suppressed": {"suppress_tokens": [88, 12], "begin_suppress_tokens": [3]},
    "minimum length": {"min_new_tokens": 8, "eos_token_id": 88},
    "renormalised": {"renormalize_logits": True, "num_beams": 2, "repetition_penalty": 1.3},
    "temperature": {"do_sample": True, "temperature": 3.0},
    "top k, top p": {"do_sample": True, "top_k": 7, "top_p": 0.6},
    "min p": {"do_sample": True, "min_p": 0.2},
    "top h": {"do_sample": True, "top_h": 0.4},
    "typical": {"do_sample": True, "typical_p": 0.5},
    "epsilon": {"do_sample": True, "epsilon_cutoff": 0.01},
    "eta": {"do_sample": True, "eta_cutoff": 0.01},
}


@pytest.fixture(scope="module")
def gpt2(tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2")
    return model, rs.lm.remember(model, tiny_tokenizer, TEXTS, window=32, key_dtype="float32", progress=False)


def generated(model, ids, **options):
    torch.manual_seed(3)
    return model.generate(
        ids, **{"max_new_tokens": LENGTH, "pad_token_id": 1, "eos_token_id": None, **options}
    ).tolist()


@pytest.mark.parametrize("name", OPTIONS)
def test_no_influence_no_change(gpt2, tiny_tokenizer, name):
    model, memory = gpt2
    ids = tiny_tokenizer("def count(self, name):\n    self", return_tensors="pt")["input_ids"]
    base = generated(model, ids, **OPTIONS[name])
    with rs.attach(model, rs.KNNLM(memory, k=4, lmbda=1e-6, sigma=5.0)):
        assert generated(model, ids, **OPTIONS[name]) == base


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nor_in_half_precision(gpt2, tiny_model, tiny_tokenizer, dtype):
    model = tiny_model("gpt2").to(dtype)
    memory = rs.lm.remember(model, tiny_tokenizer, TEXTS, window=32, progress=False)
    ids = tiny_tokenizer("def count(self, name):\n    self", return_tensors="pt")["input_ids"]
    options = {"repetition_penalty": 1.8, "exponential_decay_length_penalty": (2, 1.7), "eos_token_id": 0}
    base = generated(model, ids, **options)
    with torch.no_grad():
        plain = model(ids).logits.float()
        with rs.attach(model, rs.KNNLM(memory, k=4, lmbda=1e-9, sigma=5.0)):
            torch.testing.assert_close(model(ids).logits, plain, atol=1e-3, rtol=1e-3)
            assert generated(model, ids, **options) == base


@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("storage", ["none", "full"])
def test_logits_have_the_probabilities_of_the_reader_and_the_logsumexp_of_the_base(
    gpt2, tiny_tokenizer, temperature, storage
):
    model, _ = gpt2
    memory = rs.lm.remember(model, tiny_tokenizer, TEXTS, storage=storage, key_dtype="float32", progress=False)
    settings = {"k": 4, "sigma": 5.0, "temperature": temperature}
    reader = rs.KNNLM(memory, **settings) if storage == "none" else rs.ResMem(memory, space="exponent", **settings)
    encoded = rs.encode((model, tiny_tokenizer), TEXTS, like=memory)
    said = reader.predict_proba(encoded, exclude=None)
    ids = torch.tensor([[0, *tiny_tokenizer(TEXTS[0])["input_ids"]]])
    with torch.no_grad():
        plain = model(ids).logits
        with rs.attach(model, reader):
            changed = model(ids).logits
    torch.testing.assert_close(changed.logsumexp(-1), plain.logsumexp(-1), atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(changed[0, :-1].softmax(-1).numpy(), said[: ids.shape[1] - 1], atol=1e-5)
