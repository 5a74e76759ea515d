"""Every form of output comes back in its own form, with other logits and nothing else changed."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from residua.errors import EncodeError
from residua.hooks.forward import find_logits, with_logits

OLD, NEW = torch.zeros(3, 2), torch.arange(6.0).reshape(3, 2)
LOSS, NEW_LOSS = torch.tensor(1.5), torch.tensor(2.5)
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
    "tuple after a loss": ((LOSS, OLD, 1.5), lambda out: out[1], lambda out: out[2]),
    "named tuple with logits": (Named(OLD, 1.5), lambda out: out.logits, lambda out: out.state),
    "named tuple without": (Scores(OLD, 1.5), lambda out: out.scores, lambda out: out.state),
}


@pytest.mark.parametrize("form", FORMS)
def test_form_is_kept_and_the_old_output_untouched(form):
    output, logits, other = FORMS[form]
    assert find_logits(output) is OLD
    changed = with_logits(output, NEW)
    assert type(changed) is type(output)
    assert changed is not output
    assert logits(changed) is find_logits(changed) is NEW
    assert other(changed) == 1.5
    assert logits(output) is OLD


def test_a_tensor_is_its_own_logits():
    assert find_logits(OLD) is OLD and with_logits(OLD, NEW) is NEW


def test_model_output_changes_item_and_attribute():
    changed = with_logits(ModelOutput(logits=OLD, loss=1.5), NEW)
    assert changed["logits"] is changed.logits
    assert list(changed) == ["logits", "loss"]


@pytest.mark.parametrize("form", ["object", "dataclass", "frozen dataclass", "dict", "model output"])
def test_a_new_loss_takes_the_place_of_the_old(form):
    output, logits, loss = FORMS[form]
    changed = with_logits(output, NEW, NEW_LOSS)
    assert (logits(changed), loss(changed)) == (NEW, NEW_LOSS)


def test_a_new_loss_goes_only_where_there_was_one():
    assert with_logits((LOSS, OLD, "state"), NEW, NEW_LOSS) == (NEW_LOSS, NEW, "state")
    assert with_logits((OLD, "state"), NEW, NEW_LOSS) == (NEW, "state")
    assert with_logits({"logits": OLD}, NEW, NEW_LOSS) == {"logits": NEW}
    assert not hasattr(with_logits(SimpleNamespace(logits=OLD), NEW, NEW_LOSS), "loss")


@pytest.mark.parametrize(
    "output", ["text", None, {"scores": OLD}, (1.5, LOSS), LOSS, SimpleNamespace(logits=torch.zeros(2, 2, 2, 2))]
)
def test_no_logits(output):
    with pytest.raises(EncodeError, match=rf"returned {type(output).__name__}.*expected logits of shape"):
        find_logits(output)
