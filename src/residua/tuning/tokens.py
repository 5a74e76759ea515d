"""A token memory's neighbours, seen from the token that came: one search, every (k, sigma, T)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from residua.core import Encoded, Logits, Neighbours, TopLogits, batches
from residua.core.logits import as_tensor
from residua.errors import InputError, LabelError
from residua.readers import Reader
from residua.tuning.likelihood import Targets
from residua.tuning.parallel import side_by_side
from residua.tuning.sweep import kernel_weights

QUERIES = 2048  # tokens searched at a time: at k = 1024, 25 MB of neighbours
BLOCK = 1_500_000  # float32 entries of one block's weights, or of its logits


def targets(reader: Reader, val: Encoded | Iterable[Encoded], grid: dict, progress: bool | None) -> Targets:
    """Search every validation token's neighbours once, without those of its own document, and keep what `grid` needs.

    Raises
    ------
    InputError, LabelError
        Without rows, or without labels.
    """
    ks, most = torch.as_tensor(grid["k"][grid["k"] > 0]), int(grid["k"][-1])
    parts = []
    with bar(progress) as done:
        for batch in labelled(reader, val):
            for start in range(0, len(batch), QUERIES):
                part = batch[start : start + QUERIES] if len(batch) > QUERIES else batch
                truth = as_tensor(part.labels)
                base, sure = base_says(part.logits, truth, grid["temperature"])
                if most:
                    neighbours = reader.memory.search(part.keys, most, exclude_ids=part.ids)
                    given = retrieved(reader, neighbours, truth, ks, grid["sigma"])
                    nearest = neighbours.distances[:, 0].cpu()
                else:
                    given = torch.empty(0, len(grid["sigma"]), len(part))
                    nearest = torch.full((len(part),), torch.inf)
                parts.append(Targets(given, base, sure, nearest, documents_of(part)))
                done.update(len(part))
    if not parts:
        raise InputError("the validation data hold no rows")
    return Targets.join(parts)


def labelled(reader: Reader, val: Encoded | Iterable[Encoded]) -> Iterator[Encoded]:
    """The batches with rows, each checked to fit the reader's memory and to have labels."""
    for batch in batches(val):
        reader.check(batch)
        if batch.labels is None:
            raise LabelError("the validation rows have no labels; tuning needs them")
        if len(batch):
            yield batch


def documents_of(batch: Encoded) -> Tensor:
    """The document of each row, int64; rows without ids are of one unnamed document, -1."""
    return torch.full((len(batch),), -1) if batch.ids is None else torch.from_numpy(batch.ids)


def bar(progress: bool | None) -> tqdm:
    """A progress bar in tokens: as asked, or by itself after two seconds on a terminal."""
    hidden = None if progress is None else not progress
    return tqdm(desc="tune", unit="token", disable=hidden, delay=0 if progress else 2)


def retrieved(reader: Reader, neighbours: Neighbours, truth: Tensor, ks: Tensor, sigma: np.ndarray) -> Tensor:
    """The probability float32 (K, S, q) that the first k neighbours give each query's target under each width; -1
    where they have no weight at all. `ks` (K,) ascending; `neighbours` are at least the largest of it."""
    labels, device = reader.memory.table["label"], neighbours.rows.device
    truth = truth.to(device)
    # Sums over the first k for all k at once: one matrix product with a staircase of ones.
    upto = (torch.arange(neighbours.k, device=device)[:, None] < ks.to(device)).float()  # (k, K)

    def block(part: slice) -> Tensor:
        near = neighbours[part]
        weights = kernel_weights(reader, near, sigma)  # (b, S, k)
        total = weights @ upto  # (b, S, K)
        same = labels[near.rows.clamp_min(0)] == truth[part][:, None]
        right = weights.mul_(same[:, None]) @ upto
        return torch.where(total > 0, right / total.clamp_min(1e-30), -1.0).permute(2, 1, 0).cpu()

    step = max(1, BLOCK // (neighbours.k * len(sigma)))
    blocks = [slice(start, start + step) for start in range(0, len(neighbours), step)]
    return torch.cat([found for _, found in side_by_side(block, blocks)], dim=2)


def base_says(logits: Logits, truth: Tensor, temperatures: np.ndarray) -> tuple[Tensor, Tensor]:
    """At each of T temperatures: log-probability float64 (T, q) of the target, largest probability float32 (T, q)."""

    def block(rows: Tensor) -> tuple[Tensor, Tensor]:
        said = logits.rows(rows)
        table = said.dense()
        top = table.amax(dim=1)
        own = table.gather(1, truth[rows].to(table.device)[:, None])[:, 0]
        if isinstance(said, TopLogits):  # knows its partition, at one temperature
            partitions = torch.stack([said.logsumexp(None, float(t)) for t in temperatures])
        else:  # one pass over the vocabulary for each T, in one buffer
            below, buffer = table.sub_(top[:, None]), torch.empty_like(table)
            partitions = [torch.mul(below, 1 / t, out=buffer).exp_().sum(dim=1).log_() + top / t for t in ts]
            partitions = torch.stack(partitions)
        divisors = torch.tensor(ts, device=table.device)[:, None]
        return (own / divisors - partitions).double().cpu(), (top / divisors - partitions).exp_().cpu()

    ts = [float(t) for t in temperatures]
    step = max(1, BLOCK // logits.shape[1])
    own, sure = zip(*(found for _, found in side_by_side(block, torch.arange(len(logits)).split(step))))
    return torch.cat(own, dim=1), torch.cat(sure, dim=1)
