import pytest
import torch
from torch import nn

from residua.encoding.key_layer import ffn_key, head_key
from residua.errors import KeyModuleError

KEYS = {
    "gpt2": "transformer.h.1.mlp.c_fc",
    "llama": "model.layers.1.mlp.gate_proj",
    "qwen2": "model.layers.1.mlp.gate_proj",
    "qwen3": "model.layers.1.mlp.gate_proj",
    "opt": "model.decoder.layers.1.fc1",
    "gpt_neox": "gpt_neox.layers.1.mlp.dense_h_to_4h",
    "bloom": "transformer.h.1.mlp.dense_h_to_4h",
    "t5": "decoder.block.1.layer.2.DenseReluDense.wi",
    "bart": "model.decoder.layers.1.fc1",
}


@pytest.mark.parametrize("kind", KEYS)
def test_every_architecture_by_its_structure(kind, tiny_model):
    model = tiny_model(kind)
    inputs = {"input_ids": torch.tensor([[5, 6, 7]])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    assert ffn_key(model, lambda: model(**inputs)) == f"{KEYS[kind]}:input"
    assert model.get_submodule(head_key(model).removesuffix(":input")) is model.get_output_embeddings()
    assert not any(module._forward_pre_hooks for module in model.modules())


class Blocks(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(4, 50)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class SelfAttention(nn.Sequential):
    pass


def key_of(*blocks):
    model = Blocks(*blocks)
    return ffn_key(model, lambda: model(torch.zeros(2, 3, 4)))


def ffn():
    return nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 4))


def test_attention_is_passed_over_by_class_and_by_name():
    wide = nn.Sequential(nn.Linear(4, 12), nn.Linear(12, 4))
    assert key_of(nn.Sequential(SelfAttention(nn.Linear(4, 12), nn.Linear(12, 4)), ffn())) == "blocks.0.1.0:input"
    named = nn.Sequential()
    named.add_module("cross_attn", wide)
    named.add_module("mlp", ffn())
    assert key_of(named) == "blocks.0.mlp.0:input"


def test_none_where_nothing_widens():
    assert key_of(nn.Sequential(nn.Linear(4, 4))) is None
    model = nn.Linear(4, 9)
    assert ffn_key(model, lambda: model(torch.zeros(1, 4))) is None  # no list of blocks: the head is no block


def test_an_expert_that_sees_some_positions_is_passed_over():
    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.experts, self.shared = nn.Linear(4, 2), nn.ModuleList([ffn(), ffn()]), ffn()

        def forward(self, x):
            self.gate(x)
            self.experts[1](x[:, :1])
            return self.shared(x)

    assert key_of(Mixture()) == "blocks.0.shared.0:input"


def test_a_layer_that_runs_twice_is_no_key():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x):
            return self.down(self.up(x) + self.up(x))

    assert key_of(Twice()) is None


def test_hooks_leave_when_the_pass_fails():
    model = Blocks(ffn())
    with pytest.raises(RuntimeError):
        ffn_key(model, lambda: model(torch.zeros(1, 5)))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_no_head(tiny_model):
    with pytest.raises(KeyModuleError, match="has no output embeddings"):
        head_key(tiny_model("gpt2").transformer)
    with pytest.raises(KeyModuleError, match="Linear has no output embeddings"):
        head_key(nn.Linear(2, 2))
