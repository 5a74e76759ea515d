"""Tuning a student's share: every share from one pass over the validation rows; and whether the best is better than the
model alone beyond doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.caution import warn
from residua.core import DenseLogits, Encoded, HeadLogits, Prediction, Softmax, as_tensor
from residua.errors import ParameterError
from residua.memory.exclusion import remembered
from residua.memory.schema import Scorer
from residua.readers import Distilled
from residua.readers.judged import Judged, groups_of, paired_z
from residua.tuning.grid import TEMPERATURE, values_of
from residua.tuning.objective import best_of

LMBDA = np.linspace(0, 1, 21)
GAMMA = np.concatenate([[0.0], 2.0 ** np.arange(-3, 2.5, 0.5)])


class StudentSweep:
    """The grid of a ``Distilled``; a share of 0, the model alone, always competes, at every usual temperature."""

    grid: dict[str, np.ndarray]

    def __init__(self, reader: Distilled, grid: Mapping[str, Any] | None, objective: str | Scorer):
        if objective not in ("accuracy", "log_loss"):
            raise ParameterError(f"objective={objective!r}; a student's share is tuned by 'log_loss' or by 'accuracy'")
        self.reader, self.objective, share = reader, objective, reader.share
        full = {share: LMBDA if share == "lmbda" else GAMMA, "temperature": np.array([reader.temperature])}
        if unknown := sorted(set(grid or {}) - set(full)):
            raise ParameterError(f"the grid names {unknown}; this student is tuned over {list(full)}")
        self.grid = {name: values_of(name, values) for name, values in (full | dict(grid or {})).items()}
        self.grid[share] = np.unique(np.concatenate([[0.0], self.grid[share]]))
        temperatures = np.unique(np.concatenate([[1.0], TEMPERATURE[reader.memory.schema.is_text]]))
        settings = [{share: s, "temperature": t} for s in self.grid[share][1:] for t in self.grid["temperature"]]
        settings = [{share: 0.0, "temperature": float(t)} for t in temperatures] + settings
        self.readers = [reader.with_params(**{n: float(v) for n, v in one.items()}) for one in settings]
        self.results = {name: np.array([one[name] for one in settings]) for name in self.grid}
        self._losses, self._right = list[Tensor](), list[Tensor]()
        self._matched, self._ids = list[Tensor](), list[np.ndarray | None]()

    def add(self, part: Encoded, prediction: Prediction, truth: Tensor) -> None:
        """Count some rows, whose prediction holds the nearest neighbour of each."""
        said, near, logits = self.reader.says(as_tensor(part.keys)), prediction.near, part.logits
        logits = DenseLogits(logits.dense()) if isinstance(logits, HeadLogits) else logits
        losses, right = [], []
        for reader in self.readers:
            now = reader.answered(Softmax(logits, reader.temperature), near, None if reader.is_noop else said)
            losses.append(-now.log_prob(truth).to(truth.device).double())
            right.append(now.argmax().to(truth.device) == truth)
        self._losses.append(torch.stack(losses).cpu())
        self._right.append(torch.stack(right).cpu())
        self._matched.append(remembered(near, self.reader.memory.bears, part.ids).cpu())
        self._ids.append(part.ids)

    def proven(self, needed: float | None) -> Distilled:
        """The best setting where it is better than the model alone beyond doubt, else the model alone."""
        losses, right = (torch.cat(parts, dim=1).numpy() for parts in (self._losses, self._right))
        ids = None if any(one is None for one in self._ids) else np.concatenate([i for i in self._ids if i is not None])
        by_accuracy, results = self.objective == "accuracy", self.results
        results |= {"accuracy": right.mean(axis=1), "log_loss": losses.mean(axis=1)}
        results["score"] = results["accuracy"] if by_accuracy else -results["log_loss"]
        alone, unscaled = results[self.reader.share] == 0, results["temperature"] == 1
        plain = int(np.flatnonzero(alone & unscaled)[0])
        scaled = int(np.argmin(np.where(alone, results["log_loss"], np.inf)))
        # Of settings that score alike, the one of the least log-loss.
        best = int(np.lexsort((results["log_loss"], -np.where(alone, -np.inf, results["score"])))[0])
        these = [plain, scaled, best]
        matched = torch.cat(self._matched).numpy()
        seen = Judged("log_loss", losses[these], right[these], groups_of(ids), matched, bool(right[plain].all()))
        found = seen.beyond_matches(2, 0 if by_accuracy else 1, needed, by_accuracy)
        if found.rests_on_matches:
            warn(
                f"the student's gain rests on the {found.matches:,} of {found.rows:,} validation rows whose very key "
                "or id is remembered, and the model alone is kept; tune on rows that it did not learn"
            )
        if needed is None:
            found = replace(found, used=bool(results["score"][best] > results["score"][alone].max()))
        _, z, _ = paired_z(seen.losses[0] - seen.losses[1], seen.groups)
        surer = z > needed and not seen.faultless if needed is not None else scaled != plain
        base = scaled if not by_accuracy and surer else plain
        made = best_of(self.reader, results, self.grid, best if found.used else base)
        made.evidence_ = found
        return made
