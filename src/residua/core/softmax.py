"""softmax(logits / T), and what costs a pass over the vocabulary to know, found once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from residua.core.logits import DenseLogits, HeadLogits, Logits

BLOCK = 2**20  # float32 entries of the one buffer that a reading of the logits uses: 4 MB
GPU_BLOCK = 2**26  # the least on other devices, where each step is a launch


def rows_at_once(columns: int, device: torch.device, entries: int) -> int:
    """How many rows of `columns` numbers to work on at a time, for temporaries of so many entries."""
    return max(1, (entries if device.type == "cpu" else max(entries, GPU_BLOCK)) // max(columns, 1))


class Best(NamedTuple):
    """Each row's likeliest token: its number int64 (q,), and its log-probability float32 (q,)."""

    token: Tensor
    log_prob: Tensor


@dataclass(frozen=True)
class Softmax:
    """What a model says of the next token of q rows, at one temperature.

    Attributes
    ----------
    logits : Logits
        q rows over V tokens.
    temperature : float

    Examples
    --------
    >>> said = Softmax(DenseLogits(torch.tensor([[1.0, 3.0]]).log()))
    >>> said.log_prob(torch.tensor([0])).exp().tolist(), said.best.token.tolist()
    ([0.25], [1])
    """

    logits: Logits
    temperature: float = 1.0

    def __len__(self) -> int:
        return self.logits.shape[0]

    def log_prob(self, tokens: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Log-probabilities float32 of `tokens` int64 (m,) or (m, c), of all rows or of `rows`."""
        partition = self.partition[rows]
        if isinstance(rows, slice) and isinstance(self.logits, DenseLogits):  # several times faster than indexing
            said = self.logits.table[rows].gather(1, tokens.reshape(len(tokens), -1)).view(tokens.shape).float()
        else:
            every = torch.arange(len(self), device=tokens.device)
            said = self.logits.at(every[rows], tokens)
        return self._scaled(said).sub_(partition.view(-1, *[1] * (tokens.ndim - 1)))

    def log_probabilities(self, rows: Tensor | None = None) -> Tensor:
        """Log-probabilities float32 (m, V) of the rows `rows` (m,) or of all; a new tensor."""
        partition = self.partition if rows is None else self.partition[rows]
        return self._scaled(self.logits.dense(rows)) - partition[:, None]

    @property
    def best(self) -> Best:
        """The likeliest token of each row."""
        token, top, partition = self._known
        return Best(token, self._scaled(top) - partition)

    @property
    def partition(self) -> Tensor:
        """log of the sum of exp(logits / T), float32 (q,)."""
        return self._known[2]

    @cached_property
    def _known(self) -> tuple[Tensor, Tensor, Tensor]:
        """Likeliest token, its logit, and the partition, each (q,), from one reading of the logits."""
        logits, q = self.logits, len(self)
        if not isinstance(logits, (DenseLogits, HeadLogits)):
            token = logits.argmax()
            top = logits.at(torch.arange(q, device=token.device), token)
            return token, top, logits.logsumexp(None, self.temperature)
        blocks = []
        where = logits.table.device if isinstance(logits, DenseLogits) else logits.keys.device
        step = rows_at_once(logits.shape[1], where, BLOCK)
        below = torch.empty(min(step, q), logits.shape[1], device=where)
        for start in range(0, q, step):
            said = logits.rows(slice(start, start + step)).dense()
            token, top = _argmax(said)
            spread = torch.sub(said, top[:, None], out=below[: len(said)])
            if self.temperature != 1:
                spread.div_(self.temperature)
            blocks.append((token, top, spread.exp_().sum(dim=1).log_() + top / self.temperature))
        if not blocks:
            said = logits.dense()
            return said.new_zeros(0, dtype=torch.int64), said.new_zeros(0), said.new_zeros(0)
        return tuple(torch.cat(parts) for parts in zip(*blocks))

    def _scaled(self, logits: Tensor) -> Tensor:
        return logits if self.temperature == 1 else logits / self.temperature


def _argmax(said: Tensor) -> tuple[Tensor, Tensor]:
    """Where the largest of each row (b, V) is, and what it is.

    The largest alone is found several times faster than its place: so first the largest of each piece of the row, and
    then the place within the best piece.
    """
    width = said.shape[1]
    if width < 512:
        top, token = said.max(dim=1)
        return token, top
    piece = 256
    whole = width // piece * piece
    peaks = said[:, :whole].unflatten(1, (-1, piece)).amax(dim=2)
    if whole < width:
        peaks = torch.cat([peaks, said[:, whole:].amax(dim=1, keepdim=True)], dim=1)
    top, which = peaks.max(dim=1)
    start = (which * piece).clamp_max_(width - piece)  # the last piece, when short, begins within the one before
    near = said.gather(1, start[:, None] + torch.arange(piece, device=said.device))
    return start + near.argmax(dim=1), top
