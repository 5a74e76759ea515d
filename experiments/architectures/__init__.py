"""Every causal language model of the installed transformers, small: the key that is found, and the base as it is."""

import torch
from matplotlib.figure import Figure
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from experiments.architectures.check import MODES, checked
from experiments.table import Table
from experiments.work import Work


def measure(work: Work, *, only: tuple[str, ...] = ()) -> dict:
    """Build, encode, evaluate and generate with each.

    Parameters
    ----------
    only : tuple[str, ...]
        Names of architectures, as in config.model_type; by default all.
    """
    torch.set_num_threads(1)
    names = sorted({kind.model_type for kind in MODEL_FOR_CAUSAL_LM_MAPPING})
    return {"found": work.map(checked, [(name,) for name in names if not only or name in only], "architectures")}


def tables(results: dict) -> dict[str, Table]:
    """Those that were built, and those that were not."""
    built = [one for one in results["found"] if "key" in one]
    rows = [
        [
            one["name"],
            f"`{one['key']}`",
            f"{one['perplexity']:.4g}",
            "yes" if one["same"] else "no",
            ", ".join(mode for mode in MODES if one["modes"].get(mode) is True) or "none",
        ]
        for one in built
    ]
    left = [[one["name"], one["step"], one["reason"]] for one in results["found"] if "key" not in one]
    return {
        "architectures": Table(("architecture", "key", "perplexity", "as a plain loop", "generates"), rows),
        "not tried": Table(("architecture", "at", "reason"), left),
    }


def draw(results: dict) -> Figure:
    """How many of the architectures passed each check."""
    figure = Figure(figsize=(6, 2.5), layout="constrained")
    axes = figure.subplots()
    built = [one for one in results["found"] if "key" in one]
    counts = {"built and read": len(built), "perplexity as a plain loop": sum(one["same"] for one in built)}
    counts |= {mode: sum(one["modes"].get(mode) is True for one in built) for mode in MODES}
    axes.barh(list(counts)[::-1], list(counts.values())[::-1])
    axes.set_xlabel(f"of {len(results['found'])} architectures")
    return figure
