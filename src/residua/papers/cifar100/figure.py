"""CIFAR-100 drawn: the headline, Figure 5's sweeps, what b is worth, and, where trained, epochs, depths and shares."""

import numpy as np

from residua.papers.cifar100.compare import PAPER
from residua.papers.cifar100.recipe import PAPER_EPOCHS
from residua.papers.cifar100.tell_curves import curves
from residua.papers.published import CIFAR100_EPOCHS, CIFAR100_RESNET8

BASE, RESMEM, LABELS, MIXED, PRINTED = "#C8501E", "#1F6FB4", "#6B6B6B", "#7A4FA3", "#B8B8B8"
BARS = (
    ("base", "base", BASE),
    ("label_knn_paper", "label k-NN", LABELS),
    ("interpolation_paper", "interpolation\ntuned λ", MIXED),
    ("resmem_paper", "ResMem", RESMEM),
    ("label_knn_tuned", "label k-NN\ntuned", LABELS),
    ("interpolation_tuned", "interpolation\ntuned", MIXED),
    ("resmem_tuned", "ResMem\ntuned", RESMEM),
)
PUBLISHED = {"base": "base", "label_knn_paper": "label_knn", "resmem_paper": "resmem"}


def draw(results: dict):
    """A matplotlib Figure from what ``plan.run`` returned; panels of trainings only where there are some."""
    from matplotlib.figure import Figure

    main = results["networks"]
    found = curves(results["points"])
    rows = 2 + bool(found)
    figure = Figure(figsize=(13, 4.1 * rows), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(rows, 6)
    _bars(figure.add_subplot(grid[0, :4]), main)
    _family(figure.add_subplot(grid[0, 4:]), results["family"])
    for i, name in enumerate(("k", "sigma", "temperature")):
        _sweep(figure.add_subplot(grid[1, 2 * i : 2 * i + 2]), name, results["sweeps"][name], main[0]["base"])
    for i, (name, curve) in enumerate(found.items()):
        _curve(figure.add_subplot(grid[2, 2 * i : 2 * i + 2]), name, curve, results["epochs"])
    figure.suptitle(
        f"CIFAR-100, ResNet-{main[0]['depth']}: a memory of {main[0]['memory']:,} training images", fontsize=13
    )
    return figure


def _bars(axes, main: list[dict]) -> None:
    for i, (name, _, colour) in enumerate(BARS):
        values = [n["base"] if name == "base" else n["readers"][name]["accuracy"] for n in main]
        printed = PUBLISHED.get(name)
        shift = 0.2 if printed else 0.0
        axes.bar(i + shift, np.mean(values), 0.38, color=colour)
        spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
        axes.text(i + shift, np.mean(values) + spread + 0.12, f"{np.mean(values):.2f}", ha="center", fontsize=9.5)
        if spread:
            axes.errorbar(i + shift, np.mean(values), spread, color="#222222", lw=1)
        if printed:
            axes.bar(i - shift, CIFAR100_RESNET8[printed], 0.38, color=PRINTED)
            axes.text(
                i - shift, CIFAR100_RESNET8[printed] + 0.12, f"{CIFAR100_RESNET8[printed]}", ha="center", fontsize=9.5
            )
    axes.bar(0, 0, color=PRINTED, label="paper (grey)")
    axes.set_xticks(range(len(BARS)), labels=[label for _, label, _ in BARS], fontsize=9.5)
    axes.set_ylim(min(bar.get_height() for bar in axes.patches if bar.get_height()) - 3, None)
    axes.set_ylabel("test accuracy, %")
    axes.legend(frameon=False, fontsize=9.5, loc="upper left")
    axes.axvline(3.5, color="#CCCCCC", lw=0.8)
    axes.set_title("the paper's settings | tuned on the other half of the test set", fontsize=11)
    _quiet(axes)


def _family(axes, found: list[dict]) -> None:
    for one, style in zip(found, ("o-", "o--")):
        b, accuracy = zip(*one["by_b"])
        axes.plot(b, accuracy, style, ms=4, color="#222222", label=f"a free, {one['kernel']} kernel")
        for name, at, colour in (("interpolation", 0, MIXED), ("resmem", 1, RESMEM)):
            shown = {"resmem": "ResMem: a = b = 1", "interpolation": "interpolation: b = 0"}[name]
            shown = shown if one is found[0] else None
            filled = colour if one is found[0] else "white"
            accuracy = one["members"][name]["accuracy"]
            axes.plot(at, accuracy, "D", ms=8, color=colour, markerfacecolor=filled, label=shown)
    axes.set_xlabel("b, how much of q is taken away")
    axes.set_title("p + a v - b q: the term that residuals add", fontsize=11)
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    # Differences of half a point are within the noise: two points in all keep them small.
    middle = np.mean(axes.get_ylim())
    axes.set_ylim(middle - 1, middle + 1)
    _quiet(axes)


def _sweep(axes, name: str, curve: dict, base: float) -> None:
    axes.axhline(base, color=BASE, lw=1.2, label="base")
    axes.plot(curve["values"], curve["resmem"], "D-", ms=4, color=RESMEM, label="ResMem")
    axes.plot(curve["values"], curve["interpolation"], "o-", ms=3.5, color=MIXED, label="interpolation, best λ")
    if "label_knn" in curve:
        axes.plot(curve["values"], curve["label_knn"], "s-", ms=3.5, color=LABELS, label="label k-NN")
    axes.axvline(PAPER[name], color="#999999", lw=0.9, ls=":", label=f"paper: {PAPER[name]:g}")
    if name != "sigma":
        axes.set_xscale("log")
        ticks = {"k": (1, 3, 10, 27, 100, 500), "temperature": (0.1, 0.3, 1, 2, 5)}[name]
        axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.set_xlabel({"k": "k, neighbours", "sigma": "σ, kernel width", "temperature": "T, temperature"}[name])
    axes.set_ylabel("test accuracy, %")
    axes.legend(facecolor="white", edgecolor="none", framealpha=0.9, fontsize=9)
    axes.set_title(f"Figure 5: {'σ' if name == 'sigma' else 'T' if name == 'temperature' else 'k'}", fontsize=11)
    _quiet(axes)


def _curve(axes, name: str, curve: dict, epochs: int) -> None:
    """Gains over the base, the mean of several networks."""
    if name == "epoch":
        scaled = [mark * epochs / PAPER_EPOCHS for mark in CIFAR100_EPOCHS["epochs"]]
        printed = np.subtract(CIFAR100_EPOCHS["resmem"], CIFAR100_EPOCHS["base"])
        axes.plot(scaled, printed, "D--", ms=4, color=PRINTED, label="paper: ResMem")
    at = [100 * x for x in curve] if name == "fraction" else list(curve)
    for key, label, style, colour in (
        ("resmem_paper", "ResMem, paper's settings", "D-", RESMEM),
        ("resmem_tuned", "ResMem, tuned", "D--", RESMEM),
        ("interpolation_tuned", "interpolation, tuned", "o--", MIXED),
    ):
        gains = [np.mean([point["readers"][key]["gain"][0] for point in points]) for points in curve.values()]
        axes.plot(at, gains, style, ms=4, color=colour, label=label)
    title = {
        "epoch": "Table 1: epochs trained",
        "depth": "Figure 2(a): depth",
        "fraction": "Figure 2(b): training data, %",
    }
    axes.set_title(title[name], fontsize=11)
    axes.set_xticks(at)
    axes.set_ylim(0, None)
    axes.set_ylabel("over the base, points")
    axes.legend(frameon=False, fontsize=9)
    _quiet(axes)


def _quiet(axes) -> None:
    axes.grid(alpha=0.25, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
