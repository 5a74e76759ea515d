"""Every form of output comes back in its own form, with other logits and nothing else changed."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from residua.hooks.output import with_logits

OLD, NEW = torch.zeros(3, 2, dtype=torch.float16), torch.arange(6.0).reshape(3, 2)
Named = namedtuple("Named", "logits state")
Scores = namedtuple("Scores", "scores state")


@dataclass
class Plain:
    logits: torch.Tensor
    loss: float


@dataclass(frozen=True)
class Frozen:
    logits: torch.Tensor
    loss: float


class ModelOutput(OrderedDict):
    """Items that are attributes too, as in Hugging Face's."""

    def __setitem__(self, name, value):
        super().__setitem__(name, value)
        super().__setattr__(name, value)


FORMS = {
    "object": (SimpleNamespace(logits=OLD, loss=1.5), lambda out: out.logits, lambda out: out.loss),
    "dataclass": (Plain(OLD, 1.5), lambda out: out.logits, lambda out: out.loss),
    "frozen dataclass": (Frozen(OLD, 1.5), lambda out: out.logits, lambda out: out.loss),
    "dict": ({"logits": OLD, "loss": 1.5}, lambda out: out["logits"], lambda out: out["loss"]),
    "model output": (ModelOutput(logits=OLD, loss=1.5), lambda out: out.logits, lambda out: out.loss),
    "tuple": ((OLD, 1.5), lambda out: out[0], lambda out: out[1]),
    "list": ([OLD, 1.5], lambda out: out[0], lambda out: out[1]),
    "named tuple with logits": (Named(OLD, 1.5), lambda out: out.logits, lambda out: out.state),
    "named tuple without": (Scores(OLD, 1.5), lambda out: out.scores, lambda out: out.state),
}


@pytest.mark.parametrize("form", FORMS)
def test_form_is_kept_and_the_old_output_untouched(form):
    output, logits, other = FORMS[form]
    changed = with_logits(output, NEW)
    assert type(changed) is type(output)
    assert changed is not output
    assert logits(changed).tolist() == NEW.tolist()
    assert logits(changed).dtype == torch.float16
    assert other(changed) == 1.5
    assert logits(output) is OLD


def test_model_output_changes_item_and_attribute():
    changed = with_logits(ModelOutput(logits=OLD, loss=1.5), NEW)
    assert changed["logits"] is changed.logits
    assert list(changed) == ["logits", "loss"]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_shape_and_dtype_are_the_old_ones(shape):
    old = torch.zeros(shape, dtype=torch.float64)
    changed = with_logits(old, NEW[:, 1:])
    assert (changed.shape, changed.dtype) == (old.shape, torch.float64)
    assert changed.flatten().tolist() == [1, 3, 5]
