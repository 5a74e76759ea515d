"""Table 2's row as bars."""

from residua.papers.published import IMAGENET_MOBILENET_V2

BASE, RESMEM, MIXED, PRINTED = "#C8501E", "#1F6FB4", "#7A4FA3", "#B8B8B8"


def draw(results: dict):
    """A matplotlib Figure from what ``measure.run`` returned."""
    from matplotlib.figure import Figure

    paper = IMAGENET_MOBILENET_V2[results["alpha"]]
    readers = results["readers"]
    bars = (
        ("base", paper["base"], results["base"], BASE),
        ("ResMem", paper["resmem"], readers["resmem_paper"]["accuracy"], RESMEM),
        ("ResMem\ntuned", None, readers["resmem_tuned"]["accuracy"], RESMEM),
        ("interpolation\ntuned", None, readers["interpolation_tuned"]["accuracy"], MIXED),
    )
    figure = Figure(figsize=(7, 4.2), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for i, (_, printed, measured, colour) in enumerate(bars):
        if printed is not None:
            axes.bar(i - 0.2, printed, 0.38, color=PRINTED)
            axes.text(i - 0.2, printed, f"{printed}", ha="center", va="bottom", fontsize=9)
        axes.bar(i + (0.2 if printed is not None else 0), measured, 0.38, color=colour)
        axes.text(
            i + (0.2 if printed is not None else 0), measured, f"{measured:.2f}", ha="center", va="bottom", fontsize=9
        )
    axes.bar(0, 0, color=PRINTED, label="paper (grey)")
    axes.set_xticks(range(len(bars)), labels=[bar[0] for bar in bars])
    axes.set_ylabel("top-1 accuracy, %")
    axes.legend(frameon=False, fontsize=9)
    axes.grid(axis="y", alpha=0.25, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    note = " (randomly initialised)" if results["weights"] == "random" else ""
    figure.suptitle(f"{results['model']}{note}: {results['n']:,} validation images", fontsize=11)
    return figure
