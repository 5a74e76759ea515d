"""Tuning the continuous cache: every window, theta and share from one pass over the validation text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded
from residua.core.logits import as_tensor
from residua.errors import InputError, ParameterError
from residua.readers import ContinuousCache
from residua.tuning.grid import values_of
from residua.tuning.likelihood import Targets
from residua.tuning.parallel import side_by_side
from residua.tuning.results import best_of, losses
from residua.tuning.token_grid import LMBDA
from residua.tuning.tokens import bar, documents_of, labelled

WINDOW = np.array([32, 128, 512, 2048])
THETA = 2.0 ** np.arange(-4, 5)  # multiples of what the reader has
FEW = np.array([0.01, 0.02, 0.03])  # beside LMBDA: under a good reader the best cache's share is small
ROWS = 256  # tokens compared with their history at a time


def tune_cache(
    reader: ContinuousCache, val: Encoded | Iterable[Encoded], grid: dict | None, progress: bool | None
) -> ContinuousCache:
    """See ``tune``. ``lmbda = 0``, the reader under the cache alone, always competes."""
    grid = cache_grid(reader, grid)
    parts, history, over = [], History(int(grid["window"][-1])), reader.over.stream()
    with bar(progress) as done:
        for batch in labelled(reader, val):
            if batch.ids is None:
                raise ParameterError("the cache reads a document's earlier tokens; expected rows with document ids")
            keys, truth = as_tensor(batch.keys).to(reader.memory.device), as_tensor(batch.labels)
            said = over.score(keys, batch.logits, documents=batch.ids, tokens=batch.labels, exclude_ids=batch.ids)
            base = said.log_prob(truth.to(reader.memory.device)).double().cpu()[None]
            given = [torch.empty(len(grid["window"]), len(grid["theta"]), 0)]
            given += [cached(*piece, grid) for piece in history.pieces(keys, truth.to(keys.device), batch.ids)]
            nothing = torch.zeros(1, len(batch))
            parts.append(Targets(torch.cat(given, dim=2), base, nothing, nothing[0], documents_of(batch)))
            done.update(len(batch))
    if not parts:
        raise InputError("the validation data hold no rows")
    seen = Targets.join(parts)
    summed = seen.log_likelihood(grid["lmbda"])[:, :, 0]  # (windows, thetas, shares)
    axes = np.meshgrid(*grid.values(), indexing="ij")
    results = {name: axis.reshape(-1) for name, axis in zip(grid, axes)}
    results |= {name: values.reshape(-1) for name, values in losses(summed, len(seen)).items()}
    keep = results["lmbda"] > 0
    keep[0] = True  # without a share every window and theta is the same
    results = {name: values[keep] for name, values in results.items()}
    return best_of(reader, results, grid)


def cache_grid(reader: ContinuousCache, grid: dict | None) -> dict[str, np.ndarray]:
    """The values of window, theta and lmbda, ascending; lmbda starts with 0."""
    given = dict(grid or {})
    unknown = set(given) - {"window", "theta", "lmbda"}
    if unknown:
        raise ParameterError(
            f"the grid names {sorted(unknown)}; ContinuousCache tunes ['window', 'theta', 'lmbda']. Tune the reader "
            "under it first"
        )
    full = {"window": WINDOW, "theta": THETA * reader.theta, "lmbda": np.concatenate([FEW, LMBDA]), **given}
    full = {name: values_of(name, full[name]) for name in ("window", "theta", "lmbda")}
    full["lmbda"] = np.unique(np.concatenate([[0.0], full["lmbda"]]))
    if full["window"][0] < 1 or full["theta"][0] <= 0 or full["lmbda"][0] < 0 or full["lmbda"][-1] >= 1:
        raise ParameterError("the grid holds a window < 1, a theta <= 0, or an lmbda outside 0 <= lmbda < 1")
    return full


@dataclass
class History:
    """The last `window` rows of the document that is being read."""

    window: int
    document: int | None = None
    keys: Tensor | None = None
    tokens: Tensor | None = None

    def pieces(self, keys: Tensor, tokens: Tensor, documents: np.ndarray) -> Iterator[tuple[Tensor, Tensor, int]]:
        """(keys, tokens, start) per stretch of one document: rows from `start` on are new, those before are history."""
        ends = np.flatnonzero(np.diff(documents)) + 1
        for first, last in zip([0, *ends], [*ends, len(documents)]):
            new_keys, new_tokens, start = keys[first:last], tokens[first:last], 0
            if self.document == documents[first]:
                start = len(self.keys)
                new_keys, new_tokens = torch.cat([self.keys, new_keys]), torch.cat([self.tokens, new_tokens])
            yield new_keys, new_tokens, start
            self.document = documents[first]
            self.keys, self.tokens = new_keys[-self.window :], new_tokens[-self.window :]


def cached(keys: Tensor, tokens: Tensor, start: int, grid: dict) -> Tensor:
    """The cache's probability float32 (W, Theta, n - start) of each row's own token; -1 where nothing is before it.

    ``sum 1[token_i = token_t] exp(theta h_t·h_i) / sum exp(theta h_t·h_i)`` over the `window` rows i before t
    (Grave et al. 2017).
    """

    def block(rows: tuple[int, int]) -> Tensor:
        first, last = rows
        out = torch.empty(len(grid["window"]), len(grid["theta"]), last - first)
        for w, window in enumerate(grid["window"].tolist()):
            begin = max(0, first - window)
            at = torch.arange(first, last, device=keys.device)[:, None]
            before = torch.arange(begin, last, device=keys.device)
            inside = (before < at) & (before >= at - window)
            alike = (keys[first:last] @ keys[begin:last].T).masked_fill_(~inside, -torch.inf)
            same = (tokens[begin:last] == tokens[first:last, None]).float()
            for t, theta in enumerate(grid["theta"].tolist()):
                weights = torch.softmax(alike * theta, dim=1)
                out[w, t] = torch.where(inside.any(dim=1), (weights * same).sum(dim=1), -1.0).cpu()
        return out

    blocks = [(first, min(first + ROWS, len(keys))) for first in range(start, len(keys), ROWS)]
    return torch.cat([found for _, found in side_by_side(block, blocks)], dim=2)
