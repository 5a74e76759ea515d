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
    assert ffn_key(model, lambda: model(**inputs), 3) == f"{KEYS[kind]}:input"
    assert model.get_submodule(head_key(model).removesuffix(":input")) is model.get_output_embeddings()
    assert not any(module._forward_pre_hooks for module in model.modules())


class Blocks(nn.Module):
    """Residual blocks of width 4 and a head, without a list or a name that would tell anything."""

    def __init__(self, *blocks):
        super().__init__()
        for number, block in enumerate(blocks):
            self.add_module(f"part{number}", block)
        self.blocks, self.head = blocks, nn.Linear(4, 50)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Mixer(nn.Module):
    """A module that mixes positions between a layer that widens and one that narrows, as Mamba's and attention do."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Linear(4, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.narrow(self.wide(x).cumsum(1))


class Mixture(nn.Module):
    """Two experts in matrices of their own; each position goes to one of them."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(4, 2), Experts()

    def forward(self, x):
        flat = x.reshape(-1, 4)
        return self.experts(flat, self.gate(flat).argmax(1)).view(x.shape)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(2, 4, 3)), nn.Parameter(torch.randn(2, 3, 4))

    def forward(self, x, chosen):
        return torch.einsum("ni,nij,njk->nk", x, self.up[chosen], self.down[chosen])


class Listed(nn.Module):
    """The same with a list of experts, which see the positions that were sent to them."""

    def __init__(self, shared=None):
        super().__init__()
        self.gate, self.experts, self.shared = nn.Linear(4, 2), nn.ModuleList([ffn(), ffn()]), shared

    def forward(self, x):
        chosen, out = torch.tensor([[0, 1, 0]]), torch.zeros_like(x)
        self.gate(x)
        for number, expert in enumerate(self.experts):
            out[chosen == number] = expert(x[chosen == number])
        return out if self.shared is None else out + self.shared(x)


class Parallel(nn.Module):
    """Attention and a feed-forward network side by side, on the same vectors."""

    def __init__(self):
        super().__init__()
        self.mixer, self.up, self.down = Mixer(), nn.Linear(4, 16), nn.Linear(16, 4)

    def forward(self, x):
        wide = self.up(x)
        return self.mixer(x) + self.down(wide.relu())


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(4, 9), nn.Linear(4, 9), nn.Linear(9, 4)

    def forward(self, x):
        return self.down(self.up(x) * self.gate(x).sigmoid())


def ffn():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))


def bottleneck():
    return nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 4))


def twice():
    network = ffn()
    return nn.Sequential(network, network)


def key_of(*blocks):
    torch.manual_seed(0)
    model, x = Blocks(*blocks), torch.randn(1, 3, 4)
    return ffn_key(model, lambda: model(x), 3)


@pytest.mark.parametrize(
    ("blocks", "key"),
    [
        ([ffn(), Mixer()], "part0.0:input"),
        ([Mixer(), ffn()], "part1.0:input"),
        ([ffn(), nn.Sequential(nn.LayerNorm(4), Mixer())], "part0.0:input"),
        ([Parallel(), Mixer()], "part0.up:input"),
        ([Gated()], "part0.up:input"),
        ([Mixture(), Mixer()], "part0:input"),
        ([Mixer(), nn.Sequential(nn.LayerNorm(4), Mixture())], "part1.1:input"),
        ([Listed()], "part0:input"),
        ([Listed(shared=ffn())], "part0.shared.0:input"),
        ([Listed(shared=bottleneck())], "part0:input"),
        ([ffn(), bottleneck()], "part0.0:input"),  # an adapter behind the network
        ([Mixer()], None),
        ([nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))], None),
        ([twice()], None),
        ([ffn(), twice()], None),  # not the one before the last
    ],
)
def test_what_it_does_decides(blocks, key):
    assert key_of(*blocks) == key


def test_a_linear_layer_alone():
    model = nn.Linear(4, 9)
    assert ffn_key(model, lambda: model(torch.zeros(1, 4)), 1) is None


def test_hooks_leave_when_the_pass_fails():
    model = Blocks(ffn())
    with pytest.raises(RuntimeError):
        ffn_key(model, lambda: model(torch.zeros(1, 5)), 1)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_no_head(tiny_model):
    with pytest.raises(KeyModuleError, match="has no output embeddings"):
        head_key(tiny_model("gpt2").transformer)
    with pytest.raises(KeyModuleError, match="Linear has no output embeddings"):
        head_key(nn.Linear(2, 2))
