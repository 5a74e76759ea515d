"""Keys of a small mixture and a small hybrid that are trained: the parts, and the keys."""

import pytest
import torch

from experiments import trained_keys

WANTED = {
    "mixture of experts (Mixtral)": ("model.layers.2.mlp:input", "model.layers.2.self_attn.q_proj:input"),
    "hybrid (Bamba)": ("model.layers.2.feed_forward.gate_proj:input", "model.layers.2.mamba.in_proj:input"),
}


def test_no_file_is_learned_and_scored():
    learned, other = trained_keys.files(trained_keys.LEARNED), trained_keys.files(trained_keys.OTHER)
    parts = trained_keys.split(other)
    assert sorted(text for part in parts for text in part) == sorted(other)
    assert not {name for name, _ in learned} & {name for name, _ in other}


@pytest.mark.slow
@pytest.mark.parametrize("name", trained_keys.MODELS)
def test_the_three_keys(name):
    texts = trained_keys.files(("json",))
    tokenizer = trained_keys.tokenizer_of(texts)
    torch.manual_seed(0)
    model = trained_keys.trained(trained_keys.MODELS[name](), tokenizer, texts, 1)
    keys = trained_keys.keys_of(model, tokenizer)
    assert (keys["feed-forward"], keys["mixer"], keys["head"]) == (*WANTED[name], "lm_head:input")
