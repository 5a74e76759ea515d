"""Whether a memory is better than the model alone beyond doubt, on the rows it was tuned on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from residua.caution import warn
from residua.core import Encoded, Prediction, as_tensor
from residua.core.encoded import labels_of
from residua.memory.exclusion import remembered
from residua.memory.schema import Scorer
from residua.readers import NeighbourReader
from residua.readers.evidence import Evidence
from residua.readers.judged import Judged, groups_of, paired_z
from residua.readers.reader import Exclude
from residua.tuning.likelihood import Interpolation, Targets
from residua.tuning.objective import WHY, Grid, best_of, plain, settled, squared_error
from residua.tuning.scorer import ScorerSweep, score_gain
from residua.tuning.sweep import QuickSweep

TIED = 16  # settings that score alike and are told apart

N = TypeVar("N", bound=NeighbourReader)


def proven(
    reader: N,
    results: dict[str, np.ndarray],
    grid: Grid,
    objective: str | Scorer,
    sweep: object,
    validation: Encoded | Iterable[Encoded],
    exclude: Exclude,
    needed: float | None,
    picked: int | None = None,
) -> N:
    """The best setting with neighbours where it is better than the model alone beyond doubt, else the model alone.

    `results` holds one row per setting of `grid`; `sweep` is what counted them. One with neighbours may be `picked`
    before, though another scores better.
    """
    score, alone = results["score"], results["k"] == 0
    by_accuracy, names = objective in ("accuracy", "conservative"), reader.parameter_names()
    ties = by_accuracy or isinstance(sweep, ScorerSweep)
    model: dict[str, Any] = {"k": 0} | ({"temperature": 1.0} if "temperature" in names else {})
    own = dict(model)
    if objective == "log_loss" and "temperature" in grid:
        own["temperature"] = float(results["temperature"][alone][np.argmax(score[alone])])
    best_score = score[~alone].max(initial=-np.inf)
    tied = np.flatnonzero(~alone & (score == best_score)) if np.isfinite(best_score) else np.empty(0, int)
    tied = tied[np.linspace(0, len(tied) - 1, TIED).round().astype(int)] if ties and len(tied) > TIED else tied
    tied = tied if ties else tied[:1]
    if picked is not None and len(tied):
        tied, best_score = np.array([picked]), score[picked]
    made = [reader.with_params(**{name: plain(results[name][at]) for name in grid}) for at in tied]
    bases = [reader.with_params(**model), reader.with_params(**own)]
    if isinstance(sweep, Interpolation) and made and from_counts(grid, exclude):
        seen = from_targets(Targets.join(sweep.kept), sweep, made[0], own["temperature"])
    else:
        kept = sweep.kept if isinstance(sweep, (QuickSweep, ScorerSweep)) else None
        seen = judged([*bases, *made], validation, exclude, kept)
    means = seen.losses.mean(axis=1)
    chosen = int(np.argmin(means[2:])) if made else -1
    _, z, _ = paired_z(seen.losses[0] - seen.losses[1], seen.groups)
    surer = z > needed and not seen.faultless if needed is not None else means[1] < means[0]
    scaled = objective == "log_loss" and surer
    if made:
        base = 1 if objective == "log_loss" else 0
        found = seen.beyond_matches(2 + chosen, base, needed, by_accuracy)
        if found.rests_on_matches and not isinstance(sweep, ScorerSweep):
            warn(
                f"the memory's gain rests on the {found.matches:,} of {found.rows:,} validation rows whose very key or "
                "id is remembered, and the model alone is kept; tune on rows that are not in the memory, or pass "
                "evidence=None"
            )
        if isinstance(sweep, ScorerSweep) and needed is not None:
            gain, sure = score_gain(sweep, bases[0], made[chosen], ~seen.matched, seen.groups)
            used = gain > 0 and sure > needed and found.z > -needed
            found = replace(found, used=used, rests_on_matches=False, score_gain=gain, score_z=sure)
        if needed is None:
            found = replace(found, used=bool(best_score > score[alone].max()))
    else:
        found = Evidence(seen.measure, len(seen.losses[0]), len(seen.losses[0]), 0, 0.0, 0.0, None, None, needed, False)
    if found.used:
        best = best_of(reader, results, grid, int(tied[chosen]))
    else:
        best = best_of(reader, results, grid, int(np.flatnonzero(alone)[0]))
        best = settled(best, **(own if scaled else model))
        temperature = (own if scaled else model).get("temperature")
        counted = alone & (results["temperature"] == temperature) if "temperature" in grid else alone
        if by_accuracy or not counted.any():  # which no temperature moves; T = 1 need not be in the grid
            best.best_score_ = float(score[alone].max()) if ties else -float(means[1 if scaled else 0])
        else:
            best.best_score_ = float(score[counted].max())
    best.evidence_ = found
    return best


def from_counts(grid: Grid, exclude: Exclude) -> bool:
    """Whether what an ``Interpolation`` has counted is enough to judge by: the model as it is competes, and no row has
    found its own id, of which there is no count."""
    return 1.0 in grid["temperature"] and isinstance(exclude, str)


def from_targets(targets: Targets, sweep: Interpolation, best: NeighbourReader, temperature: float) -> Judged:
    """What ``judged`` gives of the model as it is, of the model at `temperature`, and of `best`, without a search."""
    bases = [int(np.searchsorted(sweep.grid["temperature"], t)) for t in (1.0, temperature)]
    memory = targets.per_row(sweep.setting(best.params), best.params["lmbda"], best.skip)
    losses = -torch.stack([*(targets.log_p_base[t] for t in bases), memory]).numpy()
    # Beside the largest probability, in float32.
    faultless = bool((targets.log_p_base[bases[0]].exp() >= (1 - 1e-6) * targets.p_max[bases[0]]).all())
    matched = (targets.nearest == 0).numpy()
    return Judged("log_loss", losses, None, groups_of(targets.groups.numpy()), matched, faultless)


def judged(
    readers: Sequence[NeighbourReader],
    validation: Encoded | Iterable[Encoded],
    exclude: Exclude,
    kept: Iterable[tuple[Encoded, Prediction]] | None = None,
) -> Judged:
    """Every row under every reader of one memory, from one search; or from what was `kept` of one that found more."""
    memory, losses, right, ids, matched, weights = readers[0].memory, [], [], [], [], []
    searching = max(readers, key=lambda reader: reader.k).searching_all()
    for part, prediction in searching.predictions(validation, exclude=exclude) if kept is None else kept:
        keys, truth = as_tensor(part.keys), as_tensor(labels_of(part, WHY)).to(memory.device)
        truth = truth if memory.task == "classification" else truth.reshape(len(part), -1)
        found: list[Tensor] = []
        weight = readers[0].loss_weights(part, truth)
        weights.append(np.ones(len(part)) if weight is None else weight.double().cpu().numpy())
        for reader in readers:
            now = reader.reread(prediction, keys, part.logits)
            if memory.task == "regression":
                found.append(squared_error(now.scores.to(truth.device), truth))
                continue
            found.append(-now.log_prob(truth).to(truth.device))
            if memory.task == "classification":
                right.append((now.argmax().to(truth.device) == truth).cpu().numpy())
        losses.append(torch.stack(found).double().cpu().numpy())
        ids.append(part.ids)
        near = prediction.neighbours
        near = near.first(min(searching.k, near.k))
        matched.append(remembered(near, memory.bears, part.ids).cpu().numpy())
    table = None
    if right:
        n = len(readers)
        table = np.concatenate([np.stack(right[start : start + n]) for start in range(0, len(right), n)], axis=1)
    weight = np.concatenate(weights)
    whole = np.concatenate(losses, axis=1) * weight / (weight.mean() or 1)
    names = None if any(part is None for part in ids) else np.concatenate([part for part in ids if part is not None])
    measure = "squared_error" if memory.task == "regression" else "log_loss"
    faultless = table is not None and bool(table[0].all())
    return Judged(measure, whole, table, groups_of(names), np.concatenate(matched), faultless)
