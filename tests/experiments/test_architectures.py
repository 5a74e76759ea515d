"""Causal architectures of transformers, built small: the keys of a dozen and more, and one that is read whole."""

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from experiments import architectures
from experiments.architectures.check import checked
from experiments.architectures.small import small_model
from experiments.work import Work
from residua.encoding.key_layer import ffn_key

KEYS = {
    "bamba": "model.layers.3.feed_forward.gate_proj",  # mixers of Mamba and attention by turns
    "bert": "bert.encoder.layer.3.intermediate.dense",
    "cohere": "model.layers.3.mlp.gate_proj",  # parallel blocks
    "falcon": "transformer.h.3.mlp.dense_h_to_4h",
    "falcon_h1": "model.layers.3.feed_forward.up_proj",
    "gemma3n_text": "model.layers.3.mlp.gate_proj",
    "gptj": "transformer.h.3.mlp.fc_in",
    "granitemoe": "model.layers.3.block_sparse_moe",
    "granitemoehybrid": "model.layers.3.shared_mlp.input_linear",
    "jamba": "model.layers.3.feed_forward",
    "lfm2": "model.layers.3.feed_forward.w1",
    "mamba": None,
    "mixtral": "model.layers.3.mlp",
    "nemotron_h": "model.layers.3.mixer.up_proj",
    "qwen2_moe": "model.layers.3.mlp",
    "rwkv": "rwkv.blocks.3.feed_forward.key",
    "xmod": "roberta.encoder.layer.3.intermediate.dense",  # adapters behind it
    "zamba": "model.layers.3.shared_transf.feed_forward.gate_proj",
    "zamba2": "model.layers.3.shared_transformer.feed_forward.gate_up_proj",
}


@pytest.mark.parametrize("name", KEYS)
def test_the_key(name):
    kinds = [kind for kind in MODEL_FOR_CAUSAL_LM_MAPPING if kind.model_type == name]
    if not kinds:
        pytest.skip(f"this transformers has no {name}")
    model, ids = small_model(kinds[0]), torch.arange(8)[None]
    with torch.inference_mode():
        found = ffn_key(model, lambda: model(ids), 8)
    assert found == (KEYS[name] and f"{KEYS[name]}:input")


@pytest.mark.slow
def test_one_is_read_and_one_is_not():
    found = [checked("gpt_neox"), checked("gemma4_unified_assistant")]
    assert found[0]["key"] == "gpt_neox.layers.3.mlp.dense_h_to_4h:input"
    assert found[0]["same"]
    assert found[0]["modes"] == dict.fromkeys(("greedy", "sampled", "beams", "batch"), True)
    assert found[1]["step"] == "running it on tokens alone"
    tables = architectures.tables({"found": found})
    assert "gpt_neox" in str(tables["architectures"])
    assert "shared_kv_states" in str(tables["not tried"])
    assert architectures.draw({"found": found}).axes
    assert architectures.measure(Work(None, {}, False), only=("none",)) == {"found": []}
