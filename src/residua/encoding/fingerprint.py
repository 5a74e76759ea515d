"""Whose keys these are: a model boiled down to names, shapes and norms."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import nn

from residua.core import Source

# What a fitted estimator may hold beside what it learned.
_INCIDENTAL = ("time", "cv_results_", "loss_curve_", "random_state", "random_generator")


def source_of_module(model: nn.Module, key: str, extra: dict[str, str] | None = None) -> Source:
    """The fingerprint of a torch model: shape and Euclidean norm of every parameter and floating buffer.

    `extra` is what else must be equal where two sources meet, such as a tokenizer's hash. Norms are accumulated in
    float64, so that device and thread count change them by less than ``Source``'s tolerance.
    """
    named = (*model.named_parameters(), *model.named_buffers())
    tensors = {name: tensor.detach() for name, tensor in named if tensor.is_floating_point()}
    # Norms stay where their tensors are until the end: one transfer per device instead of one per tensor.
    wide = {
        name: tensor.cpu() if tensor.device.type == "mps" else tensor for name, tensor in tensors.items()
    }  # no float64
    norms = {name: torch.linalg.vector_norm(tensor, dtype=torch.float64) for name, tensor in wide.items()}
    found: dict[str, float] = {}
    for device in {norm.device for norm in norms.values()}:
        there = [name for name, norm in norms.items() if norm.device == device]
        found.update(zip(there, torch.stack([norms[name] for name in there]).tolist()))
    dtypes: Counter[str] = Counter()
    for tensor in tensors.values():
        dtypes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    dtype = dtypes.most_common(1)[0][0] if dtypes else "float32"
    parameters = {name: (list(tensor.shape), found[name]) for name, tensor in tensors.items()}
    return Source(type(model).__name__, key, dtype, parameters, dict(extra or {}))


def source_of_estimator(estimator: Any, key: str, statistics: dict[str, list[float]]) -> Source:
    """The fingerprint of a fitted scikit-learn estimator: the numbers in its learned attributes. What one attribute
    holds in all steps, members of ensembles and trees is one norm, so a forest's is as short as a tree's."""
    sums: dict[str, list[float]] = {}
    _walk(estimator, "", sums, {})
    extra = {"estimator": type(estimator).__name__}
    if hasattr(estimator, "n_features_in_"):
        extra["features"] = str(estimator.n_features_in_)
    if hasattr(estimator, "classes_"):
        extra["classes"] = hashlib.sha256(repr(np.asarray(estimator.classes_).tolist()).encode()).hexdigest()[:16]
    parameters = {name: ([int(count)], math.sqrt(total)) for name, (count, total) in sums.items()}
    return Source(type(estimator).__name__, key, "float64", parameters, extra, statistics)


def _walk(value: Any, path: str, sums: dict[str, list[float]], seen: dict[int, object]) -> None:
    if isinstance(value, (int, float)):
        value = np.asarray([value], dtype=np.float64)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        count, total = sums.get(path, (0, 0.0))
        flat = value.astype(np.float64, copy=False).ravel()
        flat = flat[np.isfinite(flat)]  # a tree's bins end in infinity
        sums[path] = [count + value.size, total + float(flat @ flat)]
        return
    if isinstance(value, np.ndarray) and value.dtype.names:
        for name in value.dtype.names:
            _walk(value[name], f"{path}.{name}", sums, seen)
        return
    if value is None or isinstance(value, (str, bytes, complex, type)) or id(value) in seen:
        return
    seen[id(value)] = value  # kept alive, or another object could come to have its id
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if isinstance(value, (list, tuple)):
        for item in value:
            _walk(item, path, sums, seen)
    elif isinstance(value, dict):
        for name, item in value.items():
            _walk(item, f"{path}.{name}", sums, seen)
    elif hasattr(value, "tocsr"):
        _walk(value.tocsr().data, path, sums, seen)
    else:
        _walk_object(value, path, sums, seen)


def _walk_object(value: Any, path: str, sums: dict[str, list[float]], seen: dict[int, object]) -> None:
    if hasattr(value, "get_params"):
        # Learned attributes only; of the constructor's arguments, those that hold estimators.
        given = set(value.get_params(deep=False))
        state = {
            name: item
            for name, item in vars(value).items()
            if (name not in given and (name.endswith("_") or name.startswith("_")))
            or hasattr(item, "get_params")
            or name in ("steps", "transformers")
        }
    else:
        state = getattr(value, "__dict__", None)
        if not state:  # trees and other compiled objects show their arrays only through the copy protocol
            try:
                state = value.__getstate__()
            except TypeError:  # one that cannot be copied has nothing to show
                return
            state = state if isinstance(state, dict) else {"state": state}
    for name, item in state.items():
        if not name.startswith("__") and not any(word in name for word in _INCIDENTAL):
            _walk(item, f"{path}.{name}" if path else name, sums, seen)
