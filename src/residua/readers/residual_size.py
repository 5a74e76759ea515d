"""How wrong a regressor was near a query: the size of its neighbours' residuals."""

from __future__ import annotations

import torch
from torch import Tensor

from residua.core import Prediction
from residua.errors import StorageError
from residua.memory import Memory
from residua.memory.storage import NO_LOGITS


def residual_sizes(memory: Memory) -> Tensor:
    """``|y - f(x)|`` by row number, float64 (n, L); ``StorageError`` where the memory did not keep what the model
    said."""
    if memory.stored_logits is None:
        raise StorageError(NO_LOGITS)
    return (memory.column("label")[:] - memory.stored_logits.dense()).double().abs()


def typical_size(sizes: Tensor, memory: Memory) -> Tensor:
    """Their mean over the remembered rows, (L,): 1 where all are 0, or none is remembered."""
    mean = sizes[memory.active_rows].mean(dim=0)
    return torch.where(mean > 0, mean, torch.ones_like(mean))  # NaN, the mean of none, is not above 0


def near_sizes(sizes: Tensor, prediction: Prediction) -> Tensor:
    """``sum_i w_i |y_i - f(x_i)|`` of each query, float64 (q, L), by the weights of its prediction: 0 where it has no
    neighbours."""
    found = sizes.new_zeros(len(prediction), sizes.shape[1])
    if prediction.change is None:
        return found
    asked, total = slice(None) if prediction.asked is None else prediction.asked, sizes.new_zeros(())
    for term in prediction.change.terms:
        weights = term.weights.double().abs()  # a fitted reader's may be negative
        found[asked] += torch.einsum("qk,qkl->ql", weights, sizes[term.rows.clamp_min(0)])
        total = total + weights.sum(dim=1, keepdim=True)
    found[asked] /= total.clamp_min(1e-30)
    return found
