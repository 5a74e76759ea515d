"""Large tables a part at a time, so that temporaries stay small."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def blocks(n: int, each: int, budget: int) -> Iterator[slice]:
    """Slices that cover `n` items of `each` elements, so that one slice stays within `budget` elements."""
    step = max(1, budget // max(1, each))
    return (slice(start, start + step) for start in range(0, n, step))


def mean(keys: Tensor) -> Tensor:
    """The mean row of `keys` (n, d), float32; zeros when there is none. Summed in float64, whatever the keys' dtype."""
    total = torch.zeros(keys.shape[1], dtype=torch.float64, device=keys.device)
    for part in blocks(len(keys), keys.shape[1], 2**22):
        total += keys[part].sum(dim=0, dtype=torch.float64)
    return (total / max(len(keys), 1)).float()
