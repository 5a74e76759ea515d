"""A pooled reader's coefficients from labelled rows, and how sure it is that they serve."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from residua.caution import warn
from residua.core import Encoded, Queries, Softmax, as_tensor
from residua.core.encoded import labels_of
from residua.errors import EmptyMemoryError, InputError, TaskError
from residua.memory.exclusion import remembered
from residua.progress import progress_bar
from residua.readers.evidence import Evidence
from residua.readers.judged import check_evidence, groups_of
from residua.readers.own_rows import own_rows
from residua.readers.reader import OWN, Exclude
from residua.readers.weights import Features, LogitFeatures, ResidualFeatures, cross_fitted

if TYPE_CHECKING:
    from residua.readers.pooled import Pooled

log: logging.Logger = logging.getLogger(__name__)

MOST_ROWS = 8000  # of a memory's own
NUMBERS = 2**27  # float32 of all columns: 512 MB
FOLDS = 5
LEAST = 1e-6  # by which coefficients are multiplied
WHY = "the coefficients are fitted by them"


def features(
    reader: Pooled, rows: Encoded | Iterable[Encoded], exclude: Exclude = OWN, progress: bool | None = False
) -> tuple[Features, np.ndarray, np.ndarray]:
    """What the coefficients are fitted to, of the labelled rows that have neighbours; which rows belong together, int
    (n,), and which are remembered themselves, bool (n,)."""
    memory, parts, groups, matched, seen = reader.memory, list[Features](), [], [], 0
    with progress_bar(progress, desc="fit", unit="row") as bar:
        for part, now in reader.with_params(skip=None).predictions(rows, exclude=exclude, depth=reader.k):
            truth, near = as_tensor(labels_of(part, WHY)).to(memory.device), now.near.first(reader.k)
            heard = near.found.any(dim=1)
            base, weight = reader.base(part.logits), reader.loss_weights(part, truth)
            if (skipped := reader.skip_mask(base)) is not None:
                heard &= ~skipped.to(heard.device)
            columns = reader.columns(near, Queries(as_tensor(part.keys), base))
            if isinstance(base, Softmax):
                made: Features = LogitFeatures(columns, truth, weight)
            else:
                lacks = truth.reshape(len(part), -1) - base.table().to(columns.device)
                made = ResidualFeatures(columns, lacks, weight)
            parts.append(made[heard])
            kept = heard.cpu().numpy()
            names = np.arange(seen, seen + len(part)) if part.ids is None else part.ids
            groups.append(names[kept])
            matched.append(remembered(near, memory.bears, part.ids).cpu().numpy()[kept])
            seen += len(part)
            bar.update(len(part))
    if not sum(map(len, parts)):
        raise InputError("the rows to fit on are none, or none of them has a neighbour")
    return type(parts[0]).join(parts), np.concatenate(groups), np.concatenate(matched)


def fitted(
    reader: Pooled,
    validation: Encoded | Iterable[Encoded] | None,
    calibration: Encoded | Iterable[Encoded] | None,
    exclude: Exclude,
    needed: float | None,
    progress: bool | None,
) -> tuple[list[float], Evidence]:
    """The coefficients, those of the model alone where others are not surely better; and how sure that is."""
    check_evidence(needed)
    memory = reader.memory
    if not len(memory) or not reader.k:
        raise EmptyMemoryError("there are no neighbours to hear: the memory is empty, or k is 0")
    own = validation is None
    if own:
        most = NUMBERS // ((1 + 4 * len(reader.widths)) * memory.n_outputs)
        validation, exclude = own_rows(memory, max(1, min(MOST_ROWS, most))), OWN
    rows, groups, matched = features(reader, validation, exclude, progress)
    _, of_fold = np.unique(groups, return_inverse=True)
    of_fold = np.random.default_rng(0).permutation(of_fold.max() + 1)[of_fold] % FOLDS
    folds = [np.flatnonzero(of_fold == fold) for fold in range(FOLDS) if (of_fold == fold).any()]
    if len(folds) < 2:
        raise InputError(
            f"{len(groups)} rows of one id; expected rows of two or more, to fit on some and judge by others"
        )
    best, order = rows.fitted(None), np.concatenate(folds)
    parts = [rows[torch.from_numpy(fold).to(memory.device)] for fold in folds]
    judged = cross_fitted(parts, start=best, matched=matched[order])
    found = replace(judged, groups=groups_of(groups[order])).of_fit(2, 1, needed)
    if found.rests_on_matches and not own:
        warn(
            f"the memory's gain rests on the {found.matches:,} of {found.rows:,} rows whose very key or id is "
            "remembered, and the model alone is kept; fit on rows that are not in the memory, or on its own: fit()"
        )
    log.info("%s", found)
    if not found.used:
        return rows.base.tolist(), found
    if calibration is not None:
        few, _, _ = features(reader, calibration)
        if not isinstance(few, LogitFeatures):
            raise TaskError("a regression has no temperature to calibrate; leave calibration out")
        scores = LogitFeatures(few.logits(best)[None], few.truth, few.importance)
        best = best * max(scores.fitted(0)[0], LEAST)
    return best.tolist(), found


def pooled_by_folds(
    reader: Pooled, folds: Sequence[tuple[Pooled, Encoded]], needed: float | None, penalty: float | None
) -> Pooled:
    """`reader` with coefficients fitted to rows that other memories were asked: a reader of each, alike, and its rows.
    The model alone where they are not surely better, fold by fold under coefficients of the others.
    """
    parts, groups, matched = zip(*(features(there, rows) for there, rows in folds))
    if isinstance(parts[0], ResidualFeatures):
        penalty = None
    judged = cross_fitted(parts, penalty, matched=np.concatenate(matched))
    named = np.concatenate(groups) if folds[0][1].ids is not None else None
    # Copies of rows make a leak, but many tables have them by nature: refused, and told in the evidence alone.
    found = replace(judged, groups=groups_of(named)).of_fit(2, 1, needed)
    log.info("%s", found)
    if not found.used:
        alone = reader.with_params(k=0)
        alone.evidence_ = found
        return alone
    best = type(parts[0]).join(parts).fitted(penalty)
    # Of as many neighbours and such widths as the memory has, now that it is read.
    used = reader.with_params(k=None, widths=None, coefficients=best.tolist(), fitted_rows=len(reader.memory))
    used.evidence_ = found
    return used
