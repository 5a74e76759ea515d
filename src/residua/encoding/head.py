"""A model's last linear layer, kept only where it reproduces what the model says."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from residua.core import Head


def verified_head(module: nn.Module, key: str, keys: Tensor, logits: Tensor) -> Head | None:
    """The key's linear layer, if it reproduces the logits of a batch to their dtype's precision."""
    if not (isinstance(module, nn.Linear) and key.endswith(":input")):
        return None
    if module.out_features != logits.shape[1] or module.in_features != keys.shape[1]:
        return None
    head = Head(module.weight.detach(), None if module.bias is None else module.bias.detach())
    with torch.autocast(keys.device.type, enabled=False):  # a memory recomputes logits in float32
        again = head(keys)
    size = float(logits.abs().max()) + 1e-6
    # Keys came through the same matrix product, at the precision the logits are rounded to.
    relative = max(4 * torch.finfo(logits.dtype).eps, 1e-4) if logits.is_floating_point() else 0.0
    if not torch.allclose(again, logits.float(), rtol=0.0, atol=relative * size):
        return None
    # Copies: the model may be trained on, and what was said must not change with it.
    weight, bias = (None if part is None else part.cpu().float().clone() for part in (head.weight, head.bias))
    return Head(weight, bias)
