"""A model with PEFT's adapters is what its active adapter makes of it, however that is kept."""

import copy

import pytest
import torch

import residua as rs
from residua.errors import SourceMismatchError

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

TEXTS = ["def add(first, second):\n    return first + second\n", "class Counter:\n    def count(self):\n        pass\n"]


@pytest.fixture(scope="module")
def adapted(tiny_model):
    """A language model with two adapters, the first of them active."""
    torch.manual_seed(0)
    options = {"r": 2, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False}
    model = peft.get_peft_model(copy.deepcopy(tiny_model("llama")), peft.LoraConfig(**options), "first")
    model.add_adapter("second", peft.LoraConfig(**options))
    model.set_adapter("first")
    return model.eval()


@pytest.fixture(scope="module")
def reader(adapted, tiny_tokenizer):
    memory = rs.lm.remember(adapted, tiny_tokenizer, TEXTS, window=32, key_dtype="float32", progress=False)
    return rs.KNNLM(memory, k=4)


def accepted(model, reader):
    with rs.attach(model, reader):
        pass


def refused(model, reader):
    with pytest.raises(SourceMismatchError):
        rs.attach(model, reader)


def test_the_same_adapter(adapted, reader, tiny_tokenizer):
    accepted(adapted, reader)
    list(rs.encode((adapted, tiny_tokenizer), TEXTS, like=reader, progress=False))


def test_another_adapter_or_none(adapted, reader, tiny_model):
    adapted.set_adapter("second")
    refused(adapted, reader)
    adapted.set_adapter("first")
    accepted(adapted, reader)
    with adapted.disable_adapter():
        refused(adapted, reader)
    refused(tiny_model("llama"), reader)


def test_merged_in_place_and_taken_out_again(adapted, reader):
    adapted.merge_adapter(["first"])
    accepted(adapted, reader)
    adapted.unmerge_adapter()
    accepted(adapted, reader)
    adapted.merge_adapter(["second"])
    refused(adapted, reader)
    adapted.unmerge_adapter()


def test_merged_for_good(adapted, reader):
    accepted(copy.deepcopy(adapted).merge_and_unload(), reader)
    refused(copy.deepcopy(adapted).unload(), reader)
    accepted(adapted.get_base_model(), reader)  # which still holds its adapters


def test_a_memory_of_the_merged_model(adapted, tiny_tokenizer):
    merged = copy.deepcopy(adapted).merge_and_unload()
    memory = rs.lm.remember(merged, tiny_tokenizer, TEXTS, window=32, key_dtype="float32", progress=False)
    accepted(adapted, rs.KNNLM(memory, k=4))
    with adapted.disable_adapter():
        refused(adapted, rs.KNNLM(memory, k=4))
