"""Gains with their intervals, one panel per base, both kinds of residuals side by side."""

from residua.papers.tabular.measure import KINDS
from residua.papers.tabular.tell import NAMES, sign

COLOURS = {"in_sample": "#C8501E", "out_of_fold": "#1F6FB4"}
TITLES = {"linear": "linear", "mlp": "small network", "boosting": "boosted trees"}


def draw(results: dict):
    """A matplotlib Figure from what ``measure.run`` returned."""
    from matplotlib.figure import Figure

    rows = results["rows"]
    bases, data = (list(dict.fromkeys(row[name] for row in rows)) for name in ("base", "data"))
    figure = Figure(figsize=(4.2 * len(bases) + 1.2, 0.5 * len(data) + 1.9), layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(bases), squeeze=False, sharey=True)[0]
    for panel, base in zip(panels, bases):
        panel.axvline(0, color="#222222", lw=0.8)
        for row in (row for row in rows if row["base"] == base):
            for kind, shift in zip(KINDS, (0.14, -0.14)):
                _gain(panel, row["gain"][kind], len(data) - 1 - data.index(row["data"]) + shift, COLOURS[kind])
        panel.set_title(TITLES[base], fontsize=11)
        panel.set_xscale("symlog", linthresh=2, linscale=1)
        panel.set_xticks(
            [-10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 40],
            labels=["-10", "-5", "-2", "", "0", "", "2", "5", "10", "20", "40"],
        )
        panel.set_xlim(-15, 50)
        panel.minorticks_off()
        panel.set_xlabel("points of error removed")
        panel.grid(axis="x", alpha=0.25, lw=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(data)), labels=data[::-1])
    for kind in KINDS:
        panels[-1].plot([], [], "o", color=COLOURS[kind], label=f"residuals {NAMES[kind]}")
    figure.legend(
        *panels[-1].get_legend_handles_labels(), fontsize=9, frameon=False, loc="outside lower center", ncols=2
    )
    figure.suptitle(
        f"ResMem on small tables: {results['splits']} splits, 95 % intervals; filled where 0 is excluded", fontsize=12
    )
    return figure


def _gain(panel, interval, y: float, colour: str) -> None:
    middle, low, high = interval
    if low is not None and high is not None:
        panel.plot([low, high], [y, y], color=colour, lw=1.6, alpha=0.7)
    panel.plot(middle, y, "o", ms=5.5, color=colour, markerfacecolor=colour if sign(interval) else "white")
