"""What a model returns, with its logits replaced and all else kept."""

from __future__ import annotations

import copy
import dataclasses

from torch import Tensor


def with_logits(output, table: Tensor):
    """A shallow copy of `output` whose logits are `table` (n, L), in the shape, dtype and place of the old ones.

    The forms are those that ``encode`` reads: a tensor, a mapping or object with ``logits``, a tuple or list whose
    first item is the tensor. Other fields, such as a loss computed from the old logits, stay.

    Examples
    --------
    >>> import torch
    >>> with_logits((torch.zeros(2, 1), "state"), torch.ones(2, 1))
    (tensor([[1.],
            [1.]]), 'state')
    """
    if isinstance(output, Tensor):
        return table.reshape(output.shape).to(output)
    if isinstance(output, dict) and "logits" in output:
        changed = copy.copy(output)
        changed["logits"] = with_logits(output["logits"], table)
        return changed
    if hasattr(output, "logits"):
        return with_attribute(output, "logits", with_logits(output.logits, table))
    first = with_logits(output[0], table)
    if hasattr(output, "_make"):  # a named tuple
        return output._make((first, *output[1:]))
    return type(output)((first, *output[1:]))


def with_attribute(output, name: str, value):
    """A shallow copy of `output` (an object or mapping with attribute `name`) with this `value` of it."""
    if hasattr(output, "_replace"):
        return output._replace(**{name: value})
    if dataclasses.is_dataclass(output) and output.__dataclass_params__.frozen:
        return dataclasses.replace(output, **{name: value})
    changed = copy.copy(output)
    setattr(changed, name, value)
    return changed
