"""How much remembered rows weigh by their class."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.core.source import ClassWeight
from residua.errors import ParameterError
from residua.memory import Memory


def checked_class_weight(given: Any, memory: Memory) -> ClassWeight | None:
    """`given` as readers keep it, or ``ParameterError``."""
    if given is None:
        return None
    if memory.task != "classification":
        what = f"class_weight={given!r}, and a row of a {memory.task} memory has not one class"
        raise ParameterError(f"{what}; give rows a 'weight'")
    if isinstance(given, str) and given == "balanced":
        return "balanced"
    if not isinstance(given, Mapping):
        raise ParameterError(f'class_weight={given!r}; expected None, "balanced", or a dict of weights by class index')
    weights: dict[int, float] = {}
    for name, weight in given.items():
        at = int(name) if isinstance(name, Integral) or (isinstance(name, str) and name.isdigit()) else -1  # JSON's
        if not 0 <= at < memory.n_outputs:
            raise ParameterError(f"class_weight names {name!r}; expected indices of {memory.n_outputs} classes")
        if isinstance(weight, (str, bool)) or not 0 <= float(weight) < float("inf"):
            raise ParameterError(f"class_weight[{name!r}]={weight!r}; expected a finite number >= 0")
        weights[at] = float(weight)
    return weights


def class_weights(given: ClassWeight | None, memory: Memory) -> Tensor | None:
    """The weight of each class, float32 (L,), 1 in the mean over the remembered rows; None: all weigh alike.

    `given` None: as the memory's model was fitted.
    """
    if given is None and memory.source is not None:
        given = memory.source.class_weight
    if not given or memory.task != "classification" or not len(memory):
        return None
    counts = np.bincount(memory.labels, minlength=memory.n_outputs)
    weights = np.ones(memory.n_outputs)
    if given == "balanced":
        weights = len(memory) / np.maximum(counts, 1)
    else:
        weights[list(given)] = list(given.values())
    total = float(weights @ counts)
    if total <= 0:
        raise ParameterError(f"class_weight={given} leaves no remembered row any weight")
    return torch.from_numpy((weights * len(memory) / total).astype(np.float32)).to(memory.device)
