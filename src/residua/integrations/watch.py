"""What a memory would do for a model that is in training: built, evaluated and let go, and the training never knows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from residua.core import Encoded
from residua.encoding import TextStream, encode
from residua.encoding.torch import frozen
from residua.evaluation import Evaluation, evaluate
from residua.memory import Memory
from residua.readers import KNNLM, Reader, ResMem

Rows: TypeAlias = Encoded | Iterable[Encoded]
Encode: TypeAlias = Callable[[nn.Module, Any], Rows]
Build: TypeAlias = Callable[[Rows], Reader]


def usual_reader(rows: Rows) -> Reader:
    """ResMem of all rows; of texts kNN-LM, which keeps nothing of what the model said."""
    return KNNLM(Memory(rows, storage="none")) if isinstance(rows, TextStream) else ResMem(Memory(rows))


def usual_rows(model: nn.Module, data: Any) -> Rows:
    """``rs.encode``, without a bar; rows that are encoded already as they are."""
    return data if isinstance(data, Encoded) else encode(model, data, progress=False)


@dataclass
class Watch:
    """How a memory is built and asked again and again.

    Attributes
    ----------
    train, test : anything that `encode` takes
        What is remembered, and what is asked; labelled both, and none of `test` in `train`.
    build : callable
        From encoded rows to a reader: ``lambda rows: rs.ResMem(rs.Memory(rows), k=20)``.
    encode : callable
        From the model and one of the two to encoded rows.
    prefix : str
        What begins the names in the log.
    """

    train: Any
    test: Any
    build: Build
    encode: Encode
    prefix: str

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Of the model as it is now. Its mode, its gradients, and all random states are left as they are."""
        with undisturbed():
            with frozen(model):
                train, test = self.encode(model, self.train), self.encode(model, self.test)
            return evaluate(self.build(train), test, label_knn=False, progress=False)

    def logged(self, result: Evaluation) -> dict[str, float]:
        """The measures by their names in the log: ``base_accuracy``, ``memory_accuracy``, ``memory_gain``, …"""
        named = {name if name.startswith("base_") else f"memory_{name}": v for name, v in result.metrics().items()}
        return {f"{self.prefix}{name}": value for name, value in named.items()}


@contextmanager
def undisturbed() -> Iterator[None]:
    """A block after which Python, NumPy and torch, on every device, draw the random numbers they would have drawn."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if mps is not None:
            torch.mps.set_rng_state(mps)
