"""Models as people load them: compiled, quantised, offloaded, without weights."""

import copy

import pytest
import torch
from torch import nn

import residua as rs
from residua.errors import EncodeError, KeyModuleError, SourceMismatchError

TEXTS = ["def add(first, second):\n    return first + second\n", "class Counter:\n    def count(self):\n        pass\n"]


@pytest.fixture
def model(tiny_model):
    return tiny_model("llama", num_hidden_layers=1)


@pytest.fixture(scope="module")
def remembered(tiny_model, tiny_tokenizer):
    """A reader, and what the attached model says with it of a few tokens."""
    model = tiny_model("llama", num_hidden_layers=1)
    reader = rs.KNNLM(memory_of(model, tiny_tokenizer), k=4, lmbda=0.5)
    return reader, said(model, reader)


def memory_of(model, tokenizer, **options):
    return rs.lm.remember(model, tokenizer, TEXTS, window=32, key_dtype="float32", progress=False, **options)


def said(model, reader):
    with rs.attach(model, reader), torch.no_grad():
        return model(torch.tensor([[5, 6, 7]])).logits


@pytest.mark.slow
@pytest.mark.parametrize("how", ["in place", "a layer in place", "a layer", "its forward"])
def test_compiled(how, model, remembered, tiny_tokenizer):
    reader, wanted = remembered
    if how == "in place":
        model.compile(backend="eager")
    elif how == "a layer in place":
        model.model.layers[0].compile(backend="eager")
    elif how == "a layer":
        model.model.layers[0] = torch.compile(model.model.layers[0], backend="eager")
    else:
        model.forward = torch.compile(model.forward, backend="eager")
    with torch.no_grad():
        plain = model(torch.tensor([[5, 6, 7]])).logits  # before any hook is there
    torch.testing.assert_close(said(model, reader), wanted)
    memory = memory_of(model, tiny_tokenizer)
    assert memory.source.difference(reader.memory.source) is None
    with torch.no_grad():
        torch.testing.assert_close(model(torch.tensor([[5, 6, 7]])).logits, plain)
    compiled = [getattr(m, "_compiled_call_impl", None) or hasattr(m, "_orig_mod") for m in model.modules()]
    assert any(compiled) or hasattr(model.forward, "_torchdynamo_orig_callable")  # as it was


@pytest.mark.slow
def test_compiled_after_it_was_attached(model, remembered):
    ids = torch.tensor([[5, 6, 7]])
    model.compile(backend="eager")
    with torch.no_grad():
        model(ids)
    written, model._compiled_call_impl = model._compiled_call_impl, None
    with rs.attach(model, remembered[0]), torch.no_grad():
        model._compiled_call_impl = written
        with pytest.raises(KeyModuleError, match="compile first, then attach"):
            model(ids)


@pytest.mark.parametrize("how", ["disk_offload", "cpu_offload"])
def test_offloaded(how, model, remembered, tiny_tokenizer, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    reader, wanted = remembered
    whole, other = copy.deepcopy(model), copy.deepcopy(model)
    folder = {"offload_dir": tmp_path} if how == "disk_offload" else {}
    getattr(accelerate, how)(model, execution_device="cpu", **folder)
    torch.testing.assert_close(said(model, reader), wanted)
    memory = memory_of(model, tiny_tokenizer)
    torch.testing.assert_close(said(whole, rs.KNNLM(memory, k=4, lmbda=0.5)), wanted)
    nn.init.normal_(other.model.layers[0].mlp.up_proj.weight)
    with pytest.raises(SourceMismatchError):
        said(other, rs.KNNLM(memory, k=4))


def test_without_weights(tiny_model, tiny_tokenizer):
    with torch.device("meta"):
        model = tiny_model("llama")
    with pytest.raises(EncodeError, match=r"no weights.*load them"):
        memory_of(model, tiny_tokenizer)


@pytest.mark.parametrize("scheme", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_quantised(scheme, model, remembered, tiny_tokenizer):
    quantization = pytest.importorskip("torchao.quantization")
    again, other = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight.neg_()  # as large in every row: the same scales
    for some in (model, again, other):
        quantization.quantize_(some, getattr(quantization, scheme)())
    reader = rs.KNNLM(memory_of(model, tiny_tokenizer), k=4)
    assert reader.memory.source.key == "model.layers.0.mlp.gate_proj:input"
    torch.testing.assert_close(said(model, reader), said(again, reader))
    for quantised, whose in ((other, reader), (model, remembered[0])):
        with pytest.raises(SourceMismatchError):
            said(quantised, whose)


def test_quantised_layers_that_show_no_weights(model, tiny_tokenizer):
    """Of bitsandbytes' and GPTQ's layers there are whole numbers, which are no parameters: the probe tells."""

    class Packed(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.register_buffer("qweight", (layer.weight * 50).round().to(torch.int8))

        def forward(self, x):
            return x @ (self.qweight.float() / 50).T

    other = copy.deepcopy(model)
    nn.init.normal_(other.model.layers[0].mlp.up_proj.weight)
    for some in (model, other):
        for name in ("gate_proj", "up_proj", "down_proj"):
            setattr(some.model.layers[0].mlp, name, Packed(getattr(some.model.layers[0].mlp, name)))
    reader = rs.KNNLM(memory_of(model, tiny_tokenizer), k=4)
    assert reader.memory.source.key == "model.layers.0.mlp.gate_proj:input"
    said(copy.deepcopy(model), reader)
    with pytest.raises(SourceMismatchError, match="made-up inputs"):
        said(other, reader)
