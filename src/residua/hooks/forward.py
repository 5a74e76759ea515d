"""One forward pass: where its logits and their positions are, and how others are put in their place."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from residua.encoding.decoder import IGNORED, decoder_inputs, has_decoder
from residua.encoding.item import item_of
from residua.errors import EncodeError, ShapeError


def find_logits(output: Any, item: int | str | None = None) -> Tensor:
    """The logits (n,), (n, L) or (b, t, L) in what a model returned: its `item`, else the tensor itself,
    ``["logits"]``, ``.logits``, or the first tensor of a tuple that is no lone number (a loss is)."""
    if item is not None:
        found = item_of(output, item)
    elif isinstance(output, Tensor):
        found = output
    elif isinstance(output, dict):
        found = output.get("logits")
    elif isinstance(output, (tuple, list)) and not hasattr(output, "logits"):
        found = next((output[place] for place in _places(output)), None)
    else:
        found = getattr(output, "logits", None)
    if not (isinstance(found, Tensor) and 1 <= found.ndim <= 3):
        said = f" whose logits have shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise EncodeError(
            f"the model returned {type(output).__name__}{said}; expected logits of shape (n, L), or (batch, positions, "
            "L), as a tensor, as .logits, or first in a tuple: wrap the model in a module that returns them, or attach "
            "to the one that has the head, such as AutoModelForCausalLM gives"
        )
    return found


def with_logits(output: Any, logits: Tensor, loss: Tensor | None = None, item: int | str | None = None) -> Any:
    """A shallow copy of `output` with other logits (as its `item`), and another loss where it has one and `loss` is
    given."""
    if isinstance(output, Tensor):
        return logits
    is_dict = isinstance(output, dict)
    if isinstance(item, int) or (item is None and not is_dict and not hasattr(output, "logits")):
        items, place = list(output), next(_places(output)) if item is None else item
        items[place] = logits
        if loss is not None and item is None and place:
            items[0] = loss
        return output._make(items) if hasattr(output, "_make") else type(output)(items)
    new = {item or "logits": logits}
    if loss is not None and ("loss" in output if is_dict else hasattr(output, "loss")):
        new["loss"] = loss
    if is_dict and dataclasses.is_dataclass(output):  # as transformers' outputs are, whose copy takes longer
        return dataclasses.replace(output, **new)
    if is_dict:
        changed = copy.copy(output)
        for name, value in new.items():
            changed[name] = value
        return changed
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(**new)
    settings = getattr(output, "__dataclass_params__", None)
    if settings is not None and settings.frozen:
        return dataclasses.replace(output, **new)
    changed = copy.copy(output)
    for name, value in new.items():
        setattr(changed, name, value)
    return changed


def _places(items: Iterable[Any]) -> Iterator[int]:
    """Where a tuple has tensors that are no lone numbers."""
    return (place for place, item in enumerate(items) if isinstance(item, Tensor) and item.ndim)


def padding_name(model: object) -> str:
    """By what name the mask of the positions is given."""
    return "decoder_attention_mask" if has_decoder(model) else "attention_mask"


def at_positions(mask_name: str, keys: Tensor, logits: Tensor, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Keys (b, t, d) of the positions that the model read, and a bool mask (b, t) of those that are no padding.

    The logits (b, s, L) are of the last s. `given`: what the model was called with, by name.
    """
    batch, answers = logits.shape[:2]
    flat = keys.reshape(-1, keys.shape[-1])  # some models (OPT) run their feed-forward network on flat positions
    if len(flat) % batch or len(flat) < batch * answers:
        raise ShapeError(
            f"the key module gave {len(flat)} vectors for logits of {batch} sequences at {answers} positions; "
            "expected one at each position: name another module"
        )
    keys = flat.view(batch, -1, flat.shape[1])
    mask = padding_in(mask_name, given)
    if mask is not None and mask.shape[1] >= keys.shape[1]:
        mask = mask[:, mask.shape[1] - keys.shape[1] :].to(keys.device).bool()
    else:
        mask = keys.new_ones(keys.shape[:2]).bool()
    kept = given.get("logits_to_keep")
    return (keys[:, kept], mask[:, kept]) if isinstance(kept, Tensor) else (keys, mask)  # positions by number


def padding_in(mask_name: str, given: Mapping[str, Any]) -> Tensor | None:
    """The mask (b, n), 0 or False for padding, of the positions read and perhaps of those before; None without one."""
    mask = given.get(mask_name)
    if isinstance(mask, Mapping):  # one for each kind of layer
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if not isinstance(mask, Tensor):
        return None
    return mask if mask.ndim == 2 else _attending_themselves(mask) if mask.ndim == 4 else None


def _attending_themselves(mask: Tensor) -> Tensor | None:
    """Of a mask (b, 1, t, n), which of t positions read attend to themselves (b, t): padding does not."""
    allowed = mask[:, 0] > torch.finfo(mask.dtype).min / 2 if mask.is_floating_point() else mask[:, 0].bool()
    read, width = allowed.shape[1:]
    if read != width:  # a static cache has room for what will come
        seen = allowed[:, -1].any(dim=0).nonzero()
        if not len(seen):
            return None
        width = int(seen[-1]) + 1
    positions = torch.arange(read, device=mask.device)
    return allowed[:, positions, (positions + width - read).clamp_min(0)]


def tokens_read(model: Any, given: dict[str, Any]) -> Tensor | None:
    """The tokens (b, t) at the positions that have keys; None where the model got embeddings."""
    if not has_decoder(model):
        return given.get("input_ids")
    if given.get("decoder_input_ids") is not None or given.get("decoder_inputs_embeds") is not None:
        return given.get("decoder_input_ids")
    # The model makes them by itself then: from the labels or, as BART does, from the source.
    made_of = given["labels"] if given.get("labels") is not None else given["input_ids"]
    return decoder_inputs(model, made_of)


def loss_of(model: Any, logits: Tensor, given: dict[str, Any]) -> Tensor | None:
    """The loss of logits (b, s, L), as the model computes it; None without labels, or where it has none."""
    labels = given.get("labels")
    if labels is None:
        return None
    if has_decoder(model):
        return cross_entropy(logits.flatten(0, 1), labels.reshape(-1), ignore_index=IGNORED)
    if not hasattr(model, "loss_function"):
        return None
    return model.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1], config=model.config)
