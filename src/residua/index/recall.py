"""What an index is like on its own keys: how many of the true neighbours it finds, and how far apart they are."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from residua.caution import warn
from residua.core import Rows
from residua.index.nearest import nearest_by_blocks, root, squared_distances
from residua.printable import shown_recall

if TYPE_CHECKING:  # an index measures itself when it is built
    from residua.index.index import Index

log: logging.Logger = logging.getLogger(__name__)

ENOUGH = 0.9
BRUTE = 2**24  # elements of keys that a check on loading may read
MOST = 2**26  # elements of keys that an edit may read to measure recall again: a fraction of a second
GROWN = 1.5  # rows, or one by so many, after which recall is measured again
FALLEN = 0.2  # less recall than when it was built: four times what 16 queries scatter


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


@dataclass(frozen=True)
class Recall:
    """Share of the true `k` nearest rows that were found, over `queries` queries.

    It was measured when `n` rows were remembered, of `rows` numbers, on `date` (an ISO day, UTC); 0 and "" where an
    earlier version measured it.
    """

    value: float
    k: int
    queries: int
    n: int = 0
    rows: int = 0
    date: str = field(default_factory=_today, compare=False)

    def __str__(self) -> str:
        return shown_recall(**self.to_json())

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of JSON types; ``Recall(**data)`` is the inverse."""
        return asdict(self)


def _recall(index: Index, asked: Tensor, k: int, limit: Tensor, keys: Rows) -> float:
    """Share of the `k` neighbours found that are within `limit` (q, 1), by the distances of the keys themselves."""
    rows = index.search(asked, k, keys).rows
    return float((root(squared_distances(asked, keys, rows)) <= limit).float().mean())


def queries_near(own: Tensor, keys: Rows, k: int, generator: torch.Generator) -> Tensor:
    """Queries, float32 (q, d): each of `own` (q, d), some of `keys`, moved by half the difference of two of its `k`
    nearest ones, because the keys themselves are too easy to find for a graph."""
    around = nearest_by_blocks(own, keys, k).rows
    other = torch.randint(max(k - 1, 1), (len(own), 1), generator=generator).to(around.device)  # another than the last
    return own + (keys[around.gather(1, other)[:, 0]].float() - keys[around[:, -1]].float()) / 2


def measure_recall(index: Index, keys: Rows, k: int = 50, queries: int = 256) -> Recall | None:
    """Recall of `index` over `keys` (n, d), none forgotten; None for fewer than two. A ``UserWarning`` below 0.9.

    The queries are those of ``queries_near`` some keys. Ties with the true k-th neighbour count as found.
    """
    rows = torch.arange(len(keys), device=keys.device)
    measured = _measured(index, keys, rows, rows, keys, min(k, len(keys)), queries)
    if measured is not None and measured.value < ENOUGH:
        said = (
            f"index {index.name!r} finds too few of the true neighbours: {measured}. Raise overfetch or the "
            'search parameters (nprobe, efSearch), store more bytes per key, or use index="exact"'
        )
        warn(said)
    return measured


def keep_recall_true(index: Index, keys: Rows, remembered: Tensor, k: int = 50, queries: int = 64) -> None:
    """Measure anew what `index` says of its recall, where half as many rows were added as there were, or a third was
    forgotten. A ``UserWarning`` where it is below 0.9, and was not, or has fallen by more than 0.2.

    `keys` (n, d) are all rows, of which those `remembered`, bool (n,), count. The queries lie near keys added since
    (near any, where rows were only forgotten). At most 2**26 elements of keys are read: where there are more, true
    neighbours are looked for among as many rows, drawn at random, and recall is the share of those nearer than the last
    row found that were found (about the same where it is high, and less where it is low).
    """
    if index.exact:
        return
    before = index.recall or Recall(1.0, k, 0)
    rows = remembered.nonzero()[:, 0]
    grown = len(keys) - before.rows > (GROWN - 1) * before.n
    if len(rows) < 2 or not (grown or GROWN * len(rows) < before.n):
        return
    since = rows[rows >= before.rows] if grown else rows
    among, generator = rows, torch.Generator().manual_seed(1)
    if len(rows) * keys.shape[1] > MOST:
        chosen = torch.randperm(len(rows), generator=generator)[: max(MOST // keys.shape[1], 2)]
        among = rows[chosen.sort().values.to(rows.device)]
    part = keys if len(among) == len(keys) else keys[among]
    measured = _measured(
        index, part, among, since if len(since) else rows, keys, min(k, len(among)), queries, len(rows)
    )
    if measured is None:
        return
    index.recall = measured
    if measured.value < ENOUGH and (before.value >= ENOUGH or measured.value < before.value - FALLEN):
        said = (
            f"index {index.name!r} finds too few of the true neighbours since rows were "
            f"{'added' if grown else 'forgotten'}: {measured}; it was {before.value:.3f}. Train it anew on what is "
            'remembered now by rebuild(), or take another one, such as index="exact"'
        )
        warn(said)


def _measured(
    index: Index, part: Rows, among: Tensor, near: Tensor, keys: Rows, k: int, queries: int, n: int | None = None
) -> Recall | None:
    """Recall of `index` over `keys` by the rows `among` them, ascending, whose keys are `part`, for queries `near` some
    rows; None where there is nothing to find. `n` rows are remembered.
    """
    if len(among) < 2:
        return None
    generator = torch.Generator().manual_seed(0)
    queries = min(queries, len(near))
    sample = near[torch.randperm(len(near), generator=generator)[:queries].sort().values.to(near.device)]
    asked = queries_near(keys[sample].float(), part, k, generator)
    true = nearest_by_blocks(asked, part, k)
    rows = index.search(asked, k, keys).rows
    distances = root(squared_distances(asked, keys, rows))
    inside = among[torch.searchsorted(among, rows).clamp_max(len(among) - 1)] == rows
    hits = (inside & (distances <= root(true.squared[:, -1:]))).sum(dim=1)
    nearer = (root(true.squared) < distances.amax(dim=1, keepdim=True)).sum(dim=1)  # than the last one found
    if not (wanted := int(torch.maximum(hits, nearer).sum())):
        return None
    measured = Recall(int(hits.sum()) / wanted, k, queries, len(among) if n is None else n, len(keys))
    log.info("index %s over %d keys: %s", index.name, len(keys), measured)
    return measured


def check_recall(index: Index, keys: Rows, forgotten: Tensor, k: int = 10, queries: int = 16) -> float | None:
    """Recall of a loaded `index` on a few of its remembered `keys` (n, d), and a ``UserWarning`` where it has fallen.

    Against brute force where the keys are few; of many, each asked key must only find itself. None for fewer than two.
    """
    remembered = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    remembered[forgotten.long()] = False
    rows = remembered.nonzero()[:, 0]
    if len(rows) < 2:
        return None
    chosen = np.random.default_rng(0).choice(len(rows), min(queries, len(rows)), replace=False)  # not all shuffled
    asked = keys[rows[torch.from_numpy(chosen).to(rows.device)]].float()
    k = min(k, len(rows))
    if keys.numel() <= BRUTE:
        limit = root(nearest_by_blocks(asked, keys, k, remembered=remembered).squared[:, -1:])
        measured = _recall(index, asked, k, limit, keys)
    else:
        itself = squared_distances(asked, keys, index.search(asked, k, keys).rows)[:, :1] == 0
        measured = float(itself.float().mean())
    before = index.recall.value if index.recall else 1.0
    if measured < before - FALLEN:
        said = (
            f"index {index.name!r} finds {measured:.2f} of the true neighbours of a few of its keys, and found "
            f"{before:.2f} when it was built: it does not fit its keys any more; rebuild() the memory"
        )
        warn(said)
    return measured


def median_nn_distance(
    index: Index, rows: Tensor, own: Rows, keys: Rows | None, sample: int = 1000, first: int = 0
) -> float:
    """Median distance from `sample` of `rows` to their nearest other one, as `index` answers with `keys`.

    Row r's own key is ``own[r - first]``. Copies do not count: where all of the first 64 neighbours are copies, it is
    the distance from one distinct key of the sample to the next. 1.0 of fewer than two rows; 0.0 where all keys are the
    same.
    """
    if len(rows) > sample:
        chosen = np.random.default_rng(0).choice(len(rows), sample, replace=False)
        rows = rows[torch.from_numpy(np.sort(chosen)).to(rows.device)]
    for k in (2, 64):  # further where every row has its twin
        found = index.search(own[rows - first].float(), k, keys)
        others = found.distances.masked_fill(found.rows == rows[:, None], torch.inf)
        nearest = (others if k == 2 else others.masked_fill(others == 0, torch.inf)).amin(dim=1)
        nearest = nearest[nearest.isfinite() & (nearest > 0)]
        if len(nearest):
            return float(nearest.median())
    if not len(rows):
        return 1.0
    places = own[rows - first].double().unique(dim=0)  # more copies than the index was asked for hide what lies beyond
    between = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    return float(between.amin(dim=1).median()) if len(places) > 1 else float(len(rows) < 2)
