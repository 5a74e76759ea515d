"""Theorem 3.3 drawn: one column per dimension; risks, the two terms, and the ratio to 1-NN."""

BASE, KNN, RESMEM, BOUND, T1 = "#C8501E", "#6B6B6B", "#1F6FB4", "#9A9A9A", "#7A4FA3"


def draw(results: dict):
    """A matplotlib Figure from what ``measure.run`` returned.

    The upper rows are for the middle L; the ratio is drawn for all.
    """
    from matplotlib.figure import Figure

    sizes, dims = results["sizes"], results["dims"]
    middle = len(results["radii"]) // 2
    figure = Figure(figsize=(3.3 * len(dims) + 0.6, 9.2), layout="constrained", facecolor="white")
    axes = figure.subplots(3, len(dims), squeeze=False, sharex=True, height_ratios=[3, 3, 2])
    for column, entry in enumerate(dims):
        curve = entry["curves"][middle]
        _risks(axes[0, column], sizes, entry, curve, results["constant"])
        _terms(axes[1, column], sizes, curve)
        _ratios(axes[2, column], sizes, entry)
        axes[2, column].set_xlabel("training points n")
    radius = results["radii"][middle]
    for row, label in enumerate(
        (f"risk, L = {radius:g}", f"terms of the proof, L = {radius:g}", "ResMem's risk / 1-NN's")
    ):
        axes[row, 0].set_ylabel(label)
        axes[row, -1].legend(fontsize=8.5, frameon=False, loc="lower left" if row < 2 else "upper right")
    for row in axes[:2]:
        _same_decades(row[1:])
    figure.suptitle(
        f"Theorem 3.3: means of {results['seeds']} draws; slopes fitted from n = {results['fitted_from']:,} on",
        fontsize=13,
    )
    return figure


def _same_decades(panels) -> None:
    """As many decades in each panel, so that slopes can be compared by eye; the steep first one would flatten them."""
    limits = [panel.get_ylim() for panel in panels]
    most = max((high / low for low, high in limits), default=1)
    for panel, (_, high) in zip(panels, limits):
        panel.set_ylim(high / most, high)


def _risks(axes, sizes, entry: dict, curve: dict, constant: float) -> None:
    d, fitted = entry["d"], curve["resmem_slope"][0]
    axes.set_title(f"d = {d}\nslope of ResMem {fitted:.2f}, -2/d = {-2 / d:.2f}", fontsize=11)
    bound = [constant * value for value in curve["bound"]]
    axes.loglog(sizes, bound, "--", color=BOUND, label=f"theorem's bound × {constant:.2f}")
    axes.loglog(sizes, curve["base"], "o-", ms=3.5, color=BASE, label="base")
    axes.axhline((1 - curve["L"]) ** 2, color=BASE, lw=0.8, ls=":", label="(1-L)²")
    axes.loglog(sizes, entry["knn"], "s-", ms=3.5, color=KNN, label="1-NN on the labels")
    axes.loglog(sizes, curve["resmem"], "D-", ms=3.5, color=RESMEM, label="ResMem")
    _quiet(axes)


def _terms(axes, sizes, curve: dict) -> None:
    axes.loglog(sizes, curve["t2"], "D-", ms=3.5, color=RESMEM, label="T2, the neighbour's distance")
    if curve["t1_slope"] is None:
        axes.text(0.97, 0.92, "T1 = 0", transform=axes.transAxes, ha="right", fontsize=9, color=T1)
    else:
        axes.loglog(sizes, curve["t1"], "^-", ms=3.5, color=T1, label="T1, estimation")
        slope = f"slope of T1 {curve['t1_slope'][0]:.2f}"
        axes.text(0.97, 0.92, slope, transform=axes.transAxes, ha="right", fontsize=9, color=T1)
    _quiet(axes)


def _ratios(axes, sizes, entry: dict) -> None:
    for curve, colour in zip(entry["curves"], ("#0B3C6F", "#1F6FB4", "#79B4E3", "#7A4FA3", "#C8501E", "#6B6B6B")):
        axes.axhline((1 - curve["L"]) ** 2, color=colour, lw=0.9, ls=":")
        axes.semilogx(sizes, curve["ratio"], "o-", ms=3.5, color=colour, label=f"L = {curve['L']:g}; dotted (1-L)²")
    axes.set_ylim(0, 1)
    _quiet(axes)


def _quiet(axes) -> None:
    axes.grid(alpha=0.25, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
