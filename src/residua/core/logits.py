"""What a base model said, and what it means at a temperature.

A classifier's logits, or a regressor's predictions, fit in memory (``DenseLogits``); a vocabulary's do not:
``HeadLogits`` recomputes rows, ``TopLogits`` keeps a few entries of each. A reader starts from a base: ``Softmax``,
``Sigmoid`` or ``Table``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy import typing as npt
from torch import Tensor

from residua.core.arrays import ArrayLike
from residua.core.chunked import ChunkedTensor, Readable, Rows
from residua.errors import ParameterError, ShapeError, StorageError


def as_tensor(array: ArrayLike, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor over `array`, sharing its memory when dtype and layout allow."""
    if isinstance(array, Tensor):
        tensor = array.detach()
    else:
        dense = np.ascontiguousarray(array)
        tensor = torch.from_numpy(dense if dense.flags.writeable else dense.copy())
    return tensor if dtype is None else tensor.to(dtype)


class Logits(ABC):
    """Base-model outputs of n rows over L classes. ``i`` is an int64 tensor of m rows, or None for all."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n rows, L classes)."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where its answers are."""

    @abstractmethod
    def rows(self, i: Tensor | slice) -> Logits:
        """The logits of rows `i`, of the same storage."""

    @abstractmethod
    def dense(self, i: Tensor | None = None) -> Tensor:
        """Float32 logits (m, L); entries that are not stored are -inf."""

    @abstractmethod
    def at(self, i: Tensor, classes: Tensor) -> Tensor:
        """Logits float32 of row i[j] at classes[j]; classes (m,) or (m, c)."""

    def logsumexp(self, i: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """logsumexp(logits / temperature), float32 (m,)."""
        return torch.logsumexp(self.dense(i) / temperature, dim=1)

    def argmax(self, i: Tensor | None = None) -> Tensor:
        """The class of the largest logit, int64 (m,)."""
        return self.dense(i).argmax(dim=1)

    def probabilities(self, i: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """softmax(logits / temperature), float32 (m, L); 0 for entries that are not stored."""
        return (self.dense(i) / temperature - self.logsumexp(i, temperature)[:, None]).exp_()

    def __len__(self) -> int:
        return self.shape[0]


@dataclass(frozen=True)
class DenseLogits(Logits):
    """A table of logits (n, L), any floating dtype; answers are float32."""

    table: Rows

    def __post_init__(self) -> None:
        if isinstance(self.table, ChunkedTensor):
            return
        table = as_tensor(self.table)
        table = table[:, None] if table.ndim == 1 else table
        if table.ndim != 2:
            raise ShapeError(f"logits have shape {tuple(table.shape)}; expected (n, L), or (n,) for one output")
        object.__setattr__(self, "table", table if table.is_floating_point() else table.float())

    @property
    def shape(self) -> tuple[int, int]:
        n, classes = self.table.shape
        return n, classes

    @property
    def device(self) -> torch.device:
        return self.table.device

    def rows(self, i: Tensor | slice) -> DenseLogits:
        return DenseLogits(self.table[i])

    def dense(self, i: Tensor | None = None) -> Tensor:
        return (self.table[:] if i is None else self.table.index_select(0, i)).float()

    def at(self, i: Tensor, classes: Tensor) -> Tensor:
        if isinstance(self.table, ChunkedTensor):
            return self.rows(i).at(torch.arange(len(i), device=i.device), classes)
        return self.table[i.reshape(-1, *[1] * (classes.ndim - 1)), classes].float()

    def probabilities(self, i: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        return torch.softmax(self.dense(i) / temperature, dim=1)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        table = self.table[:]
        array = (table if table.dtype == torch.float64 else table.float()).cpu().numpy()
        return array.astype(dtype or array.dtype, copy=bool(copy)) if copy or dtype else array


def grown(logits: Logits, n_outputs: int) -> DenseLogits:
    """Logits (n, L') with columns for classes that the model has never heard of, float32 (n, L), L = `n_outputs`.

    Of each new class the model says 1/L (at T = 1); its shares among its own classes stay what they were, and so does
    its answer: a new class gets the mean of exp(logits), never more than the largest. Growing twice is growing once.

    Examples
    --------
    >>> grown(DenseLogits(torch.tensor([[0.75, 0.25]]).log()), 4).table.softmax(dim=1)
    tensor([[0.3750, 0.1250, 0.2500, 0.2500]])
    """
    table, known = logits.dense(), logits.shape[1]
    never_heard = torch.logsumexp(table, dim=1, keepdim=True) - math.log(known)
    return DenseLogits(torch.cat([table, never_heard.expand(-1, n_outputs - known)], dim=1))


@dataclass(frozen=True)
class Head:
    """A model's last linear layer: logits = keys @ weight.T + bias. Weight (L, d), bias (L,) or None."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, keys: Tensor) -> Tensor:
        """Float32 logits (m, L) of float keys (m, d)."""
        bias = None if self.bias is None else self.bias.to(keys.device, torch.float32)
        with torch.autocast(keys.device.type, enabled=False):  # an ambient autocast would round what is recomputed
            return torch.nn.functional.linear(keys.float(), self.weight.to(keys.device, torch.float32), bias)


@dataclass(frozen=True)
class HeadLogits(Logits):
    """Logits recomputed from the keys (n, d) through the model's own last layer."""

    head: Head
    keys: Readable

    @property
    def shape(self) -> tuple[int, int]:
        return self.keys.shape[0], self.head.weight.shape[0]

    @property
    def device(self) -> torch.device:
        return self.keys.device

    def rows(self, i: Tensor | slice) -> HeadLogits:
        return HeadLogits(self.head, self.keys[i])

    def dense(self, i: Tensor | None = None) -> Tensor:
        return self.head(self.keys[:] if i is None else self.keys.index_select(0, i))

    def at(self, i: Tensor, classes: Tensor) -> Tensor:
        keys = self.keys[i].float()
        weight = self.head.weight.to(keys.device)[classes].float()
        found = torch.einsum("m...d,md->m...", weight, keys)
        return found if self.head.bias is None else found + self.head.bias.to(keys.device)[classes].float()


@dataclass(frozen=True)
class TopLogits(Logits):
    """The m kept logits of each row, for one temperature alone."""

    ids: Tensor  # int32 (n, m)
    values: Tensor  # (n, m)
    partition: Tensor  # float32 (n,): logsumexp at that temperature
    classes: int
    temperature: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.ids.shape[0], self.classes

    @property
    def device(self) -> torch.device:
        return self.ids.device

    def rows(self, i: Tensor | slice) -> TopLogits:
        return TopLogits(self.ids[i], self.values[i], self.partition[i], self.classes, self.temperature)

    def dense(self, i: Tensor | None = None) -> Tensor:
        kept = self if i is None else self.rows(i)
        out = torch.full((len(kept), self.classes), -torch.inf, device=self.ids.device)
        return out.scatter_(1, kept.ids.long(), kept.values.float())

    def at(self, i: Tensor, classes: Tensor) -> Tensor:
        kept = self.rows(i)
        wanted = classes if classes.ndim > 1 else classes[:, None]  # (m, c)
        same = kept.ids[:, None, :].long() == wanted[:, :, None]  # (m, c, kept)
        return torch.where(same, kept.values.float()[:, None, :], -torch.inf).amax(dim=2).reshape(classes.shape)

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
    """Rows encoded without logits: enough for a memory of labels alone; any question about the logits raises."""

    n: int
    classes: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.n, self.classes

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def rows(self, i: Tensor | slice) -> AbsentLogits:
        return AbsentLogits(len(range(self.n)[i]) if isinstance(i, slice) else len(i), self.classes)

    def dense(self, i: Tensor | None = None) -> Tensor:
        raise StorageError(
            "these rows were encoded without logits (logits=False), which only a memory of labels can use; "
            "encode them again with logits=True"
        )

    def at(self, i: Tensor, classes: Tensor) -> Tensor:
        return self.dense(i)


BLOCK = 2**20  # float32 entries of the one buffer that a reading of the logits uses: 4 MB
GPU_BLOCK = 2**26  # the least on other devices, where each step is a launch


def rows_at_once(columns: int, device: torch.device, entries: int) -> int:
    """How many rows of `columns` numbers to work on at a time, for temporaries of so many `entries`."""
    return max(1, (entries if device.type == "cpu" else max(entries, GPU_BLOCK)) // max(columns, 1))


@dataclass(frozen=True)
class Base:
    """What a model says of q rows."""

    logits: Logits  # q rows over L outputs
    temperature: float = 1.0  # divides the logits

    def __len__(self) -> int:
        return self.logits.shape[0]

    @property
    def n_outputs(self) -> int:
        """L."""
        return self.logits.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the logits are."""
        return self.logits.device

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return type(self)(self.logits.rows(rows), self.temperature)

    def table(self) -> Tensor:
        """The base's own scores, float32 (q, L)."""
        return self.logits.dense()


class Table(Base):
    """A regressor's predictions, as they are: in float64, for float32 has no digits left of a time stamp's seconds."""

    def table(self) -> Tensor:
        return (self.logits.table[:] if isinstance(self.logits, DenseLogits) else self.logits.dense()).double()


class Sigmoid(Base):
    """Probabilities of labels that do not exclude each other: sigmoid(logits / T)."""

    def table(self) -> Tensor:
        return torch.sigmoid(self.logits.dense() / self.temperature)


class Softmax(Base):
    """Probabilities of classes or tokens: softmax(logits / T). What costs a pass over a vocabulary is found once."""

    def __getitem__(self, rows: slice | Tensor) -> Self:
        part = super().__getitem__(rows)
        if "_known" in self.__dict__:  # what a pass over the vocabulary found is taken along
            part.__dict__["_known"] = tuple(found[rows] for found in self._known)
        return part

    def at(self, temperature: float) -> Softmax:
        """The same logits at another temperature."""
        return self if temperature == self.temperature else Softmax(self.logits, temperature)

    def table(self) -> Tensor:
        return self.logits.probabilities(None, self.temperature)

    def log_prob(self, tokens: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Log-probabilities float32 of `tokens` int64 (m,) or (m, c), of all rows or of `rows`."""
        if isinstance(rows, slice) and isinstance(self.logits, DenseLogits):  # several times faster than indexing
            columns = tokens if tokens.ndim > 1 else tokens[:, None]
            said = self.logits.table[rows].gather(1, columns).view(tokens.shape).float()
        else:
            said = self.logits.at(torch.arange(len(self), device=tokens.device)[rows], tokens)
        return self._scaled(said).sub_(self.partition[rows].view(-1, *[1] * (tokens.ndim - 1)))

    def log_probabilities(self, rows: Tensor | None = None) -> Tensor:
        """Log-probabilities float32 (m, V) of `rows` (m,), or of all; a new tensor."""
        partition = self.partition if rows is None else self.partition[rows]
        return self._scaled(self.logits.dense(rows)) - partition[:, None]

    def argmax(self) -> Tensor:
        """The likeliest class, int64 (q,)."""
        return self._known[0]

    def confidence(self) -> Tensor:
        """Its log-probability, float32 (q,)."""
        return self._scaled(self._known[1]) - self.partition

    @property
    def partition(self) -> Tensor:
        """logsumexp(logits / T), float32 (q,)."""
        return self._known[2]

    @cached_property
    def _known(self) -> tuple[Tensor, Tensor, Tensor]:
        """Likeliest token, its logit, and the partition, each (q,), from one reading."""
        logits, q = self.logits, len(self)
        if not isinstance(logits, (DenseLogits, HeadLogits)):
            token = logits.argmax()
            every = torch.arange(q, device=token.device)
            return token, logits.at(every, token), logits.logsumexp(None, self.temperature)
        blocks: list[tuple[Tensor, Tensor, Tensor]] = []
        step = rows_at_once(logits.shape[1], logits.device, BLOCK)
        below = torch.empty(min(step, q), logits.shape[1], device=logits.device)
        for start in range(0, max(q, 1), step):  # once where there are no rows
            said = logits.rows(slice(start, start + step)).dense()
            token, top = _argmax(said)
            spread = torch.sub(said, top[:, None], out=below[: len(said)])
            if self.temperature != 1:
                spread.div_(self.temperature)
            blocks.append((token, top, spread.exp_().sum(dim=1).log_() + top / self.temperature))
        token, top, partition = map(torch.cat, zip(*blocks))
        return token, top, partition

    def _scaled(self, logits: Tensor) -> Tensor:
        return logits if self.temperature == 1 else logits / self.temperature


def _argmax(said: Tensor) -> tuple[Tensor, Tensor]:
    """Where the largest of each row (b, V) is, and what it is.

    It is found several times faster than its place: so first the best piece of 256, then its place.
    """
    width, piece = said.shape[1], 256
    if width < 2 * piece:
        top, token = said.max(dim=1)
        return token, top
    whole = width // piece * piece
    peaks = said[:, :whole].unflatten(1, (-1, piece)).amax(dim=2)
    if whole < width:
        peaks = torch.cat([peaks, said[:, whole:].amax(dim=1, keepdim=True)], dim=1)
    top, which = peaks.max(dim=1)
    start = (which * piece).clamp_max_(width - piece)  # the last piece, when short, begins within the one before
    near = said.gather(1, start[:, None] + torch.arange(piece, device=said.device))
    return start + near.argmax(dim=1), top
