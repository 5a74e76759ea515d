"""A model that was found to be a memory's own once, and from then on reads a few rows after the other, soon."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from residua.core import Encoded, Source
from residua.core.encoded import understood
from residua.core.logits import DenseLogits
from residua.core.source import KEYS_ONLY
from residua.encoding.capture import Capture, device_of
from residua.encoding.dispatch import encode
from residua.encoding.item import FUNCTION, Choice
from residua.encoding.options import Estimator, Known
from residua.encoding.torch import forward, frozen, outputs_of


class CheckedModel:
    """``encode(model, rows, like=like)`` of rows that come a few at a time, without labels and ids.

    The first rows are encoded whole, which compares the model with the one that made the memory. From then on a torch
    model only runs, which for one row takes a fraction of the time; it must not be changed any more.

    Parameters
    ----------
    model : torch.nn.Module or fitted estimator
    like : Encoded, Memory, reader or Source

    Examples
    --------
    >>> import numpy as np, torch, residua as rs
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    >>> x = torch.randn(9, 2)
    >>> read = CheckedModel(model, rs.Memory(rs.encode(model, (x, torch.arange(9) % 3))))
    >>> first, again = (read(x[:2].numpy()) for _ in range(2))
    >>> bool(np.allclose(first.keys, again.keys)), again.source is first.source
    (True, True)
    """

    model: nn.Module | Estimator
    like: Known

    def __init__(self, model: nn.Module | Estimator, like: Known):
        self.model, self.like = model, like
        self._source: Source | None = None

    def __call__(self, rows: np.ndarray) -> Encoded:
        """Keys and logits of rows (n, ...). What ``encode`` raises; a torch model may raise anything of its own."""
        source = self._source
        if source is None or not isinstance(self.model, nn.Module):
            found = encode(self.model, rows, like=self.like, progress=False)
            found.ids = None
            repeats = found.source is not None and found.source.output != KEYS_ONLY and found.source.item != FUNCTION
            self._source = found.source if repeats else None
            return found
        model: Any = getattr(self.model, "_orig_mod", self.model)
        dtype = next((one.dtype for one in (*model.parameters(), *model.buffers()) if one.is_floating_point()), None)
        x = torch.from_numpy(np.ascontiguousarray(rows)).to(device_of(model))
        x = x.to(dtype) if dtype is not None and x.is_floating_point() else x
        kind = source.output or "logits"
        with frozen(model), Capture(model, source.key, position=source.position) as capture:
            said = outputs_of(forward(model, x), len(x), Choice(kind, source.item))
            keys = capture.take()
        table = said.cpu().double() if said.dtype == torch.float64 else said.cpu().float()
        task = getattr(self.like, "task", None) or getattr(getattr(self.like, "memory", None), "task", None)
        made = understood(table, None, task, kind)
        return Encoded(keys.cpu().numpy(), DenseLogits(made.logits), source=source, task=None)
