"""The plain alternative to a memory of residuals: let the neighbours' labels vote, with weights tuned or borrowed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded, Neighbours
from residua.evaluation.search import searched
from residua.readers import KNNLM, Reader

KS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200)
MULTIPLES = 2.0 ** np.arange(-4, 5)  # of the typical nearest-neighbour distance, as key spaces differ by magnitudes


def label_reader(reader: Reader, k: int | None = None, sigma: float | None = None) -> KNNLM:
    """Label k-NN over `reader`'s memory with its kernel, and its own k and sigma unless others are given."""
    k = min(reader.k, len(reader.memory)) if k is None else k
    sigma = reader.sigma if sigma is None else sigma
    return KNNLM(reader.memory, k, lmbda=1.0, sigma=sigma, temperature=reader.temperature, kernel=reader.kernel)


def tune_label_knn(reader: Reader, validation: Encoded | Iterable[Encoded]) -> KNNLM:
    """The label k-NN with `reader`'s kernel that does best on validation data, over a grid of k and sigma.

    The neighbours are searched once, at the largest k; validation rows that came with ids do not see their own. The
    grid holds the reader's own k and sigma too; of equally good settings the smallest k, then sigma, is taken.

    Parameters
    ----------
    reader : Reader
    validation : Encoded or iterable of Encoded
        With labels.

    Returns
    -------
    KNNLM
        With ``lmbda=1``.

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> keys = np.array([[0.0], [1.0], [1.1], [1.2]])
    >>> memory = rs.Memory(rs.Encoded(keys, np.zeros((4, 2)), [0, 1, 1, 1]))
    >>> validation = rs.Encoded([[0.4], [0.9]], np.zeros((2, 2)), [0, 1])
    >>> tune_label_knn(rs.ResMem(memory, k=4, sigma=10.0), validation).k
    1
    """
    memory = reader.memory
    ks = sorted({k for k in (*KS, reader.k) if 0 < k <= len(memory)})
    scale = memory.typical_distance()
    scale = scale**2 if reader.kernel == "gaussian" else scale
    sigmas = sorted({*(scale * MULTIPLES).tolist(), reader.sigma})
    voters = [label_reader(reader, ks[-1], sigma) for sigma in sigmas]
    quality = np.zeros((len(ks), len(sigmas)))
    for part, labels, neighbours in searched(reader, validation, ks[-1], exclude_own=True):
        base = reader.base(part.logits).to(memory.device)
        for j, voter in enumerate(voters):
            for i, votes in enumerate(votes_by_k(voter, neighbours, base, ks)):
                if memory.task == "regression":
                    quality[i, j] -= float((votes - labels).square().sum())
                else:
                    quality[i, j] += int((votes.argmax(dim=1) == labels).sum())
    i, j = np.unravel_index(quality.argmax(), quality.shape)
    return label_reader(reader, ks[i], sigmas[j])


def votes_by_k(voter: KNNLM, neighbours: Neighbours, base: Tensor, ks: list[int]) -> list[Tensor]:
    """What label k-NN says (q, L) with each of the ascending `ks`, each neighbour being read once.

    Weights normalised over the largest k are proportional to those over a smaller one, so running sums of them do for
    all. Where a query has no neighbours, the base speaks.
    """
    change = voter.change(neighbours.first(ks[-1]))
    sums, answers, start = torch.zeros_like(base), [], 0
    for k in ks:
        part = slice(start, k)
        change.values.add_to(sums, change.rows[:, part].clamp_min(0), change.weights[:, part])
        start = k
        total = change.weights[:, :k].sum(dim=1, keepdim=True)
        answers.append(torch.where(total > 0, sums / total, base))
    return answers
