"""What "better" means, accumulated over blocks of validation rows, and the reader that scored best."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from residua.core import Task
from residua.memory.schema import Objective
from residua.readers import Reader

Grid: TypeAlias = dict[str, np.ndarray]  # of each tuned parameter the values that compete

R = TypeVar("R", bound=Reader)

WHY = "tuning needs them"  # labels, of the validation rows
OBJECTIVES: dict[Task, tuple[Objective, ...]] = {
    "classification": ("accuracy", "log_loss", "conservative"),
    "regression": ("squared_error",),
    "multi-label": ("log_loss",),
}


Index: TypeAlias = tuple[int | slice, ...]  # of some settings, in arrays with an axis for each parameter


class Tally:
    """Sums over validation rows for every setting: arrays with an axis for each parameter of the grid.

    The first axis is k, and its index 0 the base; an index is a tuple of numbers and slices.
    """

    shape: tuple[int, ...]
    objective: Objective
    rows: int
    weight: float  # of all rows, beside which losses are means
    base_right: int
    sums: dict[str, np.ndarray]

    def __init__(self, shape: tuple[int, ...], objective: Objective):
        self.shape, self.objective, self.rows, self.weight, self.base_right = shape, objective, 0, 0.0, 0
        names = {"log_loss": ("loss", "gained", "lost"), "squared_error": ("loss",)}.get(objective, ("gained", "lost"))
        self.sums = {name: np.zeros(shape) for name in names}

    def count_base(
        self, truth: Tensor, right: Tensor | None, losses: list[tuple[Index, float]], weight: Tensor | None
    ) -> None:
        """Count a block's rows, where the base is right, and the base's own summed loss at each index."""
        self.rows += len(truth)
        self.weight += len(truth) if weight is None else float(weight.sum())
        if right is not None:
            self.base_right += int(right.sum())
        for index, loss in losses if "loss" in self.sums else ():
            self.sums["loss"][index] += loss

    def count(self, index: Index, now: Tensor | None, loss: Tensor | None, right: Tensor | None) -> None:
        """Count b rows under some settings: where these are right `now`, bool (b, ...), or the loss of each, as needed;
        where the base is `right`, bool (b,)."""
        if loss is not None:
            self.sums["loss"][index] += loss.sum(dim=0).cpu().numpy()
        if right is not None and now is not None:
            right = right.view(-1, *[1] * (now.ndim - 1))
            self.sums["gained"][index] += (now & ~right).sum(dim=0).cpu().numpy()
            self.sums["lost"][index] += (right & ~now).sum(dim=0).cpu().numpy()

    def merge(self, other: Tally) -> None:
        """Add what another tally counted."""
        for name, counted in other.sums.items():
            self.sums[name] += counted

    def results(self, max_fpr: float) -> dict[str, np.ndarray]:
        """Mean measures per setting, and ``score``, where more is better."""
        n, out = max(self.rows, 1), {}
        if "gained" in self.sums:
            gained, lost = self.sums["gained"], self.sums["lost"]
            out = {"accuracy": (self.base_right + gained - lost) / n, "tpr": gained / n, "fpr": lost / n}
        if self.objective == "log_loss":
            out |= losses(-self.sums["loss"], self.weight or 1)
        elif self.objective == "accuracy":
            out["score"] = out["accuracy"]
        elif self.objective == "conservative":
            out["score"] = np.where(out["fpr"] < max_fpr, out["tpr"], -np.inf)
        else:
            out["squared_error"] = self.sums["loss"] / (self.weight or 1)
            out["score"] = -out["squared_error"]
        return out


def squared_error(predictions: Tensor, truth: Tensor) -> Tensor:
    """The mean over outputs (the last axis)."""
    return (predictions - truth).square().mean(dim=-1)


def argmax(scores: Tensor) -> Tensor:
    """argmax over the last axis; NumPy's is several times faster than torch's on a CPU."""
    on_cpu = scores.device.type == "cpu"
    return torch.from_numpy(scores.numpy().argmax(axis=-1)) if on_cpu else scores.argmax(dim=-1)


def losses(summed: np.ndarray, n: float) -> dict[str, np.ndarray]:
    """The measures of settings with these `summed` log-likelihoods of rows that weigh `n`."""
    loss = -summed / n
    return {"log_loss": loss, "perplexity": np.exp(np.minimum(loss, 700)), "score": -loss}


def best_of(reader: R, results: dict[str, np.ndarray], grid: Grid, chosen: int | None = None) -> R:
    """The reader with the best of these settings (the first of equals), or the `chosen` one, carrying them all."""
    chosen = int(np.argmax(results["score"])) if chosen is None else chosen
    params = {name: plain(results[name][chosen]) for name in grid}
    best = reader.with_params(**params)
    best.best_params_, best.best_score_, best.results_ = params, float(results["score"][chosen]), results
    return best


def settled(best: R, **changed: Any) -> R:
    """`best` with parameters changed, in ``best_params_`` too; names that end in _ are what was measured."""
    measured = {name: value for name, value in changed.items() if name.endswith("_")}
    params = {name: value for name, value in changed.items() if name not in measured}
    other = best.with_params(**params)
    carried = {name: value for name, value in vars(best).items() if name.endswith("_")}
    vars(other).update(carried | measured | {"best_params_": best.best_params_ | params})
    return other


def flat(measures: dict[str, np.ndarray], grid: Grid, reader: Reader) -> dict[str, np.ndarray]:
    """One row per setting, smallest k first; k = 0 has one row per temperature and keeps the reader's other values.

    The axes of `measures` are the grid's, in its order.
    """
    places = dict(zip(grid, np.meshgrid(*(np.arange(len(values)) for values in grid.values()), indexing="ij")))
    out = {name: values[places[name].reshape(-1)] for name, values in grid.items()}
    out |= {name: measured.reshape(-1) for name, measured in measures.items()}
    base = out["k"] == 0
    first = np.ones(base.shape, bool)
    for name in grid:
        if name not in ("k", "temperature"):
            first &= places[name].reshape(-1) == 0
            own = getattr(reader, name)
            out[name][base] = own if not isinstance(out[name][0], float) or isinstance(own, float) else grid[name][0]
    keep = ~base | first
    return {name: column[keep] for name, column in out.items()}


def plain(value: Any) -> Any:
    """A NumPy number as Python's."""
    return value.item() if isinstance(value, np.generic) else value
