"""What a base model said, in the one shape every room understands.

A classifier's logits fit in memory as a table; a vocabulary's do not. Three storages answer the same questions:
``DenseLogits`` holds the table, ``HeadLogits`` recomputes rows from keys through the last layer, ``TopLogits`` keeps a
few entries per row together with the log of the partition sum. A regressor's predictions travel as ``DenseLogits`` too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from residua.errors import ParameterError, ShapeError, StorageError


def as_tensor(array, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor over `array` (NumPy, torch, list), sharing its memory when dtype and layout allow."""
    if isinstance(array, Tensor):
        tensor = array.detach()
    else:
        array = np.ascontiguousarray(array)
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor if dtype is None else tensor.to(dtype)


class Logits(ABC):
    """Base-model outputs of n rows over L classes. ``i`` is always an int64 tensor of m rows, or None for all rows."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n rows, L classes)."""

    @abstractmethod
    def rows(self, i: Tensor) -> Logits:
        """The logits of rows `i`, of the same storage."""

    @abstractmethod
    def dense(self, i: Tensor | None = None) -> Tensor:
        """Float32 logits (m, L); entries that are not stored are -inf."""

    @abstractmethod
    def at(self, i: Tensor, classes: Tensor) -> Tensor:
        """Logits of row i[j] at classes[j]; classes (m,) or (m, c), result float32 of the same shape."""

    @abstractmethod
    def logsumexp(self, i: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """log sum_c exp(logit_c / temperature), float32 (m,)."""

    def argmax(self, i: Tensor | None = None) -> Tensor:
        """The class of the largest logit, int64 (m,)."""
        return self.dense(i).argmax(dim=1)

    def probabilities(self, i: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """softmax(logits / temperature), float32 (m, L); entries that are not stored are 0."""
        return (self.dense(i) / temperature - self.logsumexp(i, temperature)[:, None]).exp_()

    def __len__(self) -> int:
        return self.shape[0]


@dataclass(frozen=True)
class DenseLogits(Logits):
    """A table of logits (n, L), any floating dtype; answers are float32."""

    table: Tensor

    def __post_init__(self):
        table = as_tensor(self.table)
        if table.ndim == 1:
            table = table[:, None]
        if table.ndim != 2:
            raise ShapeError(f"logits have shape {tuple(table.shape)}; expected (n, L), or (n,) for one output")
        if not table.is_floating_point():
            table = table.float()
        object.__setattr__(self, "table", table if table.dtype != torch.float64 else table.float())

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.table.shape)

    def rows(self, i: Tensor) -> DenseLogits:
        return DenseLogits(self.table[i])

    def dense(self, i: Tensor | None = None) -> Tensor:
        return (self.table if i is None else self.table.index_select(0, i)).float()

    def at(self, i: Tensor, classes: Tensor) -> Tensor:
        return self.table[i.reshape(-1, *[1] * (classes.ndim - 1)), classes].float()

    def logsumexp(self, i: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        return torch.logsumexp(self.dense(i) / temperature, dim=1)

    def probabilities(self, i: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        return torch.softmax(self.dense(i) / temperature, dim=1)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        array = self.table.float().cpu().numpy()
        return array.astype(dtype or array.dtype, copy=bool(copy)) if copy or dtype else array


@dataclass(frozen=True)
class Head:
    """The last linear layer of a model: logits = keys @ weight.T + bias. Weight (L, d), bias (L,) or None."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, keys: Tensor) -> Tensor:
        """Float32 logits (m, L) of float keys (m, d)."""
        bias = None if self.bias is None else self.bias.to(keys.device, torch.float32)
        with torch.autocast(keys.device.type, enabled=False):  # an ambient autocast would round what is recomputed
            return torch.nn.functional.linear(keys.float(), self.weight.to(keys.device, torch.float32), bias)


@dataclass(frozen=True)
class HeadLogits(Logits):
    """Logits that are never stored: recomputed from the keys (n, d) through the model's own last layer."""

    head: Head
    keys: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.keys.shape[0], self.head.weight.shape[0]

    def rows(self, i: Tensor) -> HeadLogits:
        return HeadLogits(self.head, self.keys[i])

    def dense(self, i: Tensor | None = None) -> Tensor:
        return self.head(self.keys if i is None else self.keys.index_select(0, i))

    def at(self, i: Tensor, classes: Tensor) -> Tensor:
        keys = self.keys[i].float()
        weight = self.head.weight.to(keys.device)[classes].float()
        found = torch.einsum("m...d,md->m...", weight, keys)
        return found if self.head.bias is None else found + self.head.bias.to(keys.device)[classes].float()

    def logsumexp(self, i: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        return torch.logsumexp(self.dense(i) / temperature, dim=1)


@dataclass(frozen=True)
class TopLogits(Logits):
    """The m kept logits of each row: ids int32 (n, m), values (n, m), and the partition at the one temperature
    they were kept for, logsumexp float32 (n,). Another temperature cannot be answered from them."""

    ids: Tensor
    values: Tensor
    partition: Tensor
    classes: int
    temperature: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.ids.shape[0], self.classes

    def rows(self, i: Tensor) -> TopLogits:
        return TopLogits(self.ids[i], self.values[i], self.partition[i], self.classes, self.temperature)

    def dense(self, i: Tensor | None = None) -> Tensor:
        kept = self if i is None else self.rows(i)
        out = torch.full((len(kept), self.classes), -torch.inf, device=self.ids.device)
        return out.scatter_(1, kept.ids.long(), kept.values.float())

    def at(self, i: Tensor, classes: Tensor) -> Tensor:
        kept = self.rows(i)
        wanted = classes.reshape(len(i), -1)  # (m, c)
        same = kept.ids[:, None, :].long() == wanted[:, :, None]  # (m, c, kept)
        found = torch.where(same, kept.values.float()[:, None, :], -torch.inf).amax(dim=2)
        return found.reshape(classes.shape)

    def logsumexp(self, i: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        if temperature != self.temperature:
            raise ParameterError(
                f"temperature={temperature} was asked of logits kept for temperature={self.temperature} alone; "
                f"read them at {self.temperature}, or store 'full' logits"
            )
        return self.partition if i is None else self.partition[i]

    def argmax(self, i: Tensor | None = None) -> Tensor:
        kept = self if i is None else self.rows(i)
        return kept.ids.gather(1, kept.values.argmax(dim=1, keepdim=True))[:, 0].long()


@dataclass(frozen=True)
class AbsentLogits(Logits):
    """Rows encoded without logits: their number and the number of classes L are known, and nothing else is.

    Enough for a reader that asks for labels alone, such as kNN-LM's memory. Any question about the logits
    themselves raises ``StorageError``.
    """

    n: int
    classes: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.n, self.classes

    def rows(self, i: Tensor) -> AbsentLogits:
        return AbsentLogits(len(i), self.classes)

    def dense(self, i: Tensor | None = None) -> Tensor:
        raise self._unknown()

    def at(self, i: Tensor, classes: Tensor) -> Tensor:
        raise self._unknown()

    def logsumexp(self, i: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        raise self._unknown()

    def _unknown(self) -> StorageError:
        return StorageError(
            "these rows were encoded without logits (logits=False), which only a memory of labels can use; "
            "encode them again with logits=True"
        )
