"""What "better" means, accumulated over blocks of validation queries."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from residua.errors import ParameterError
from residua.readers import Reader
from residua.tuning.sweep import Scored

OBJECTIVES = {"classification": ("accuracy", "log_loss", "conservative"), "regression": ("squared_error",)}


def check_objective(objective: str | None, task: str, of_tokens: bool = False) -> str:
    """The objective's name; when None the task's first, and perplexity's for tokens."""
    allowed = OBJECTIVES[task]
    if objective is None:
        return "log_loss" if of_tokens else allowed[0]
    if objective not in allowed:
        raise ParameterError(f"objective={objective!r} for a {task} memory; expected one of {allowed}")
    return objective


class Tally:
    """Sums over validation rows for every setting (k, sigma, T, lmbda), shape ``shape``; k index 0 is the base."""

    def __init__(self, shape: tuple[int, ...], objective: str):
        self.objective, self.rows, self.base_right = objective, 0, 0
        names = {"log_loss": ("loss",), "squared_error": ("loss",)}.get(objective, ())
        names += () if objective == "squared_error" else ("gained", "lost")
        self.sums = {name: np.zeros(shape) for name in names}

    def base(self, readers: list[Reader], logits, truth: Tensor) -> Tensor | None:
        """Count a batch's rows and the base's own score at every temperature; returns where the base is right."""
        self.rows += len(truth)
        for t, reader in enumerate(readers):
            base = reader.base(logits).to(truth.device)
            if "loss" in self.sums:
                self.sums["loss"][0, :, t] += float(self._loss(base[:, None], base, truth, reader).sum())
        if self.objective == "squared_error":
            return None
        right = readers[0].base(logits).to(truth.device).argmax(dim=1) == truth
        self.base_right += int(right.sum())
        return right

    def add(self, scored: Scored, truth: Tensor, right: Tensor | None) -> None:
        """Count one block under one k, T and lmbda, for all widths."""
        here = (scored.k, slice(None), scored.temperature, scored.lmbda)
        truth = truth[scored.queries]
        if "loss" in self.sums:
            scores = scored.scores / scored.total
            self.sums["loss"][here] += self._loss(scores, scored.base, truth, scored.reader).sum(dim=0).cpu().numpy()
        if right is not None:
            right = right[scored.queries][:, None]
            now = _argmax(scored.scores) == truth[:, None]
            self.sums["gained"][here] += (now & ~right).sum(dim=0).cpu().numpy()
            self.sums["lost"][here] += (right & ~now).sum(dim=0).cpu().numpy()

    def merge(self, other: Tally) -> None:
        """Add what another tally counted."""
        for name, counted in other.sums.items():
            self.sums[name] += counted

    def _loss(self, scores: Tensor, base: Tensor, truth: Tensor, reader: Reader) -> Tensor:
        """Per-row losses (b, S) of scores (b, S, L)."""
        if self.objective == "squared_error":
            return (scores - truth[:, None]).square().mean(dim=2)
        flat = scores.reshape(-1, scores.shape[2])
        bases = base[:, None].expand(scores.shape).reshape(flat.shape)
        proper = reader.probabilities(flat, bases).view(scores.shape)
        picked = proper.gather(2, truth[:, None, None].expand(*scores.shape[:2], 1))[:, :, 0]
        return -picked.clamp_min(torch.finfo(torch.float32).tiny).log()

    def results(self, max_fpr: float) -> dict[str, np.ndarray]:
        """Mean measures per setting, and ``score``, where more is better."""
        n = max(self.rows, 1)
        out = {}
        if "gained" in self.sums:
            gained, lost = self.sums["gained"], self.sums["lost"]
            out = {"accuracy": (self.base_right + gained - lost) / n, "tpr": gained / n, "fpr": lost / n}
        if "loss" in self.sums:
            out[self.objective] = self.sums["loss"] / n
        if self.objective == "accuracy":
            out["score"] = out["accuracy"]
        elif self.objective == "conservative":
            out["score"] = np.where(out["fpr"] < max_fpr, out["tpr"], -np.inf)
        else:
            out["score"] = -out[self.objective]
        return out


def _argmax(scores: Tensor) -> Tensor:
    """argmax over the last axis; NumPy's is several times faster than torch's on a CPU."""
    if scores.device.type == "cpu":
        return torch.from_numpy(scores.numpy().argmax(axis=2))
    return scores.argmax(dim=2)
