"""What neighbours say: labels, residuals, or any table of vectors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, one_hot

from residua.core import Logits, TopLogits, Values
from residua.readers.kernel import NOTICE

BLOCK = 16_000_000  # float32 entries of one temporary: 64 MB


class TableValues(Values):
    """Row i says ``table[i]``, a dense vector (n, L)."""

    def __init__(self, table: Tensor):
        self.table = table

    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        values = self.table.index_select(0, rows)  # several times faster than indexing, on a CPU
        return torch.arange(self.table.shape[1], device=rows.device).expand(values.shape), values

    def add_to(self, scores: Tensor, rows: Tensor, weights: Tensor) -> None:
        # One fused pass over the neighbours' rows: no (q, k, L) temporary.
        scores += embedding_bag(rows, self.table, mode="sum", per_sample_weights=weights)


class LabelValues(Values):
    """Row i says onehot(labels[i]) (kNN-LM's values; label k-NN)."""

    def __init__(self, labels: Tensor):
        self.labels = labels

    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        classes = self.labels[rows].long()[:, None]
        return classes, torch.ones(classes.shape, device=rows.device)

    def weighted(self, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        # A gather reads in parallel, and twice as fast as take or indexing.
        return self.labels.expand(len(rows), -1).gather(1, rows).long(), weights

    def add_to(self, scores: Tensor, rows: Tensor, weights: Tensor) -> None:
        scores.scatter_add_(1, self.labels.take(rows).long(), weights)


class ResidualValues(Values):
    """Row i says ``onehot(labels[i]) - softmax(logits[i] / T)`` (ResMem, eq. 7), made when it is read.

    Only the rows that are neighbours are made, each once; with top-m logits, entries that were not kept read as 0.
    """

    def __init__(self, labels: Tensor, logits: Logits, temperature: float):
        self.labels, self.logits, self.temperature = LabelValues(labels), logits, temperature

    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.logits, TopLogits):
            classes, said = self._kept(rows)
            own, one = self.labels.entries(rows)
            return torch.cat([own, classes], dim=1), torch.cat([one, -said], dim=1)
        said = self.logits.probabilities(rows, self.temperature)
        values = one_hot(self.labels.labels[rows].long(), said.shape[1]) - said
        return torch.arange(said.shape[1], device=rows.device).expand(said.shape), values

    def add_to(self, scores: Tensor, rows: Tensor, weights: Tensor) -> None:
        top = isinstance(self.logits, TopLogits)
        entries = self.logits.ids.shape[1] if top else scores.shape[1]
        step = max(1, BLOCK // (rows.shape[1] * entries))
        for start in range(0, len(rows), step):
            near, given = rows[start : start + step], weights[start : start + step]
            change = torch.zeros_like(scores[start : start + step])
            self.labels.add_to(change, near, given)
            if top:
                classes, said = self._kept(near.reshape(-1))
                said = (said * given.reshape(-1, 1)).reshape(len(near), -1)
                change -= torch.zeros_like(change).scatter_add_(1, classes.reshape(len(near), -1), said)
            else:
                once, where = near.unique(return_inverse=True)
                said = self.logits.probabilities(once, self.temperature)
                change -= embedding_bag(where, said, mode="sum", per_sample_weights=given)
            scores[start : start + step] += change  # two sums that cancel first: no residual is no change, exactly

    def _kept(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Classes and probabilities of the kept entries of rows (m,)."""
        kept = self.logits.rows(rows)
        said = (kept.values.float() / self.temperature - kept.logsumexp(None, self.temperature)[:, None]).exp()
        return kept.ids.long(), said


def residual_table(labels: Tensor, logits: Logits, temperature: float) -> Tensor:
    """Every row's residual at once (n, L): worth its memory when most rows are somebody's neighbour."""
    table = logits.probabilities(None, temperature)
    table = table.masked_fill_(table < NOTICE, 0).neg_()
    rows = torch.arange(len(table), device=table.device)
    table[rows, labels] += 1
    return table
