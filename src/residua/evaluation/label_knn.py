"""The plain alternative to a memory of residuals: let the neighbours' labels vote, with weights tuned or borrowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from residua.core import Change, Encoded, Prediction, as_tensor
from residua.core.encoded import labels_of
from residua.core.probabilities import totals
from residua.readers import KNNLM
from residua.readers.neighbour import KERNELS, NeighbourReader

KS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200)
MULTIPLES = 2.0 ** np.arange(-4, 5)  # of the typical nearest-neighbour distance, as key spaces differ by magnitudes


def truth_of(part: Encoded) -> Tensor:
    """The labels that answers are compared with; ``LabelError`` without."""
    return as_tensor(labels_of(part, "evaluation compares predictions with the truth"))


def label_reader(reader: NeighbourReader, k: int | None = None, sigma: float | None = None) -> KNNLM:
    """Label k-NN over `reader`'s memory with its kernel, and its own k and sigma unless others are given."""
    k = min(reader.k, len(reader.memory)) if k is None else k
    sigma = reader.sigma if sigma is None else sigma
    kernel, weights = KERNELS.get(reader.kernel), reader.class_weight
    return KNNLM(
        reader.memory, k, 1.0, sigma=sigma, temperature=reader.temperature, kernel=kernel, class_weight=weights
    )


def tune_label_knn(reader: NeighbourReader, validation: Encoded | Iterable[Encoded]) -> KNNLM:
    """The label k-NN with `reader`'s kernel that does best on validation data, over a grid of k and sigma.

    The neighbours are searched once, at the largest k; validation rows that came with ids do not see their own. The
    grid holds the reader's own k and sigma too; of equally good settings the smallest k, then sigma, is taken.
    """
    memory = reader.memory
    ks = sorted({k for k in (*KS, reader.k) if 0 < k <= len(memory)})
    scale = KERNELS.get(reader.kernel).typical_sigma(memory.median_nn_distance())
    sigmas = sorted({*(scale * MULTIPLES).tolist(), reader.sigma})
    voters = [label_reader(reader, ks[-1], sigma) for sigma in sigmas]
    quality, regression = np.zeros((len(ks), len(sigmas))), memory.task != "classification"
    for part, prediction in reader.predictions(validation, depth=ks[-1]):
        truth = truth_of(part).to(memory.device)
        base = (prediction.root.table() if regression else prediction.softmax.argmax()).to(memory.device)
        for j, voter in enumerate(voters):
            for i, votes in enumerate(votes_by_k(voter, part, prediction, base, ks)):
                if regression:
                    quality[i, j] -= float((votes.double() - truth.reshape(votes.shape)).square().sum())
                else:
                    quality[i, j] += int((votes == truth).sum())
    i, j = divmod(int(quality.argmax()), len(sigmas))
    return label_reader(reader, ks[i], sigmas[j])


def votes_by_k(
    voter: KNNLM, part: Encoded, prediction: Prediction, base: Tensor, ks: list[int] | None = None
) -> Iterator[Tensor]:
    """What label k-NN says with each of the ascending `ks`, the last of them (by default the only) the voter's own k.

    Weights normalised over the largest k are proportional to those over a smaller one, so that one weighing does for
    all. `prediction` is by a reader of the same memory that searched at least so many; where a query has no neighbours,
    or was not searched, `base` speaks: the model's classes (q,) or predictions (q, L), on the memory's device.
    """
    ks = [voter.k] if ks is None else ks
    own = voter.reread(prediction, as_tensor(part.keys), part.logits)
    if own.change is None:
        yield from [base] * len(ks)
        return
    asked = slice(None) if own.asked is None else own.asked
    said, weights = base[asked], own.change.terms[0].weights
    make = _classes if base.ndim == 1 else _targets
    for k, votes in zip(ks, make(own.change, said, voter.memory.n_outputs, ks)):
        heard = weights[:, :k].sum(dim=1) > 0
        votes = torch.where(heard if base.ndim == 1 else heard[:, None], votes, said)
        yield votes if own.asked is None else base.index_copy(0, own.asked, votes)


def _classes(change: Change, said: Tensor, width: int, ks: list[int]) -> Iterator[Tensor]:
    """The labels (q,) with the largest sums: only those that the neighbours have are looked at."""
    labels, weights = change.entries()
    for k in ks:
        best = totals(labels[:, :k], weights[:, :k], width).argmax(dim=1, keepdim=True)
        yield labels.gather(1, best)[:, 0]


def _targets(change: Change, said: Tensor, width: int, ks: list[int]) -> Iterator[Tensor]:
    """The weighted means (q, L) of targets, as running sums: each neighbour is read once."""
    term, sums = change.terms[0], torch.zeros_like(said)
    for start, k in pairwise([0, *ks]):
        term.values.add_to(sums, term.rows[:, start:k].clamp_min(0), term.weights[:, start:k])
        yield sums / term.weights[:, :k].sum(dim=1, keepdim=True)
