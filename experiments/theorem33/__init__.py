"""ResMem (arXiv 2302.01576), Theorem 3.3: what a memory does to the risk of a base that cannot reach the target."""

import numpy as np

from experiments import figures
from experiments.intervals import mean_interval, slope_interval
from experiments.table import Table
from experiments.theorem33.simulate import bound, risks
from experiments.work import Work
from residua.errors import ParameterError

ESTIMATION = -2 / 3  # the theorem's exponent of n in its first term, d² L² n^(-2/3)


def neighbour_exponent(d: int) -> float:
    """The theorem's exponent of n in its second term, d² (1-L)² [log(n^(1/d)) / n]^(1/d)."""
    return -1 / d


def measure(
    work: Work,
    *,
    dims: tuple[int, ...] = (1, 2, 3, 4, 5),
    radii: tuple[float, ...] = (0.2, 0.5, 0.8),
    sizes: tuple[int, ...] = tuple(2**i for i in range(5, 15)),
    seeds: int = 40,
    test_points: int = 2000,
) -> dict:
    """Simulate every (d, n, draw) and summarise.

    Parameters
    ----------
    work : Work
    dims : tuple of int
        Dimensions d.
    radii : tuple of float
        The classes' L, each between 0 and 1.
    sizes : tuple of int
        Training points n.
    seeds : int
        Draws of each size, at least 2.
    test_points : int
        Test points of each draw.

    Returns
    -------
    dict
        ``dims``: one entry per d with the curves' means over draws (``knn``, and per L ``base``, ``resmem``, ``t1``,
        ``t2``, ``ratio``, ``bound``), slopes [value, low, high] over the larger half of the sizes, and the ratio
        ResMem/1-NN at the largest; ``constant``: the bound's, set at the smallest size alone; ``holds``, ``draws``: how
        often ResMem's risk was at most 3 (T1 + T2), and of how many.
    """
    sizes = sorted(set(sizes))
    if min(dims) < 1 or not all(0 < radius < 1 for radius in radii) or test_points < 1:
        raise ParameterError(f"dims={dims}, radii={radii}, test_points={test_points}; expected d >= 1 and 0 < L < 1")
    if seeds < 2 or len(sizes) < 4 or sizes[0] < 2:
        raise ParameterError(f"seeds={seeds} and sizes={sizes}; expected at least 2 draws, and 4 sizes of at least 2")
    cells = [(d, n, tuple(radii), seed, test_points) for d in dims for n in sizes for seed in range(seeds)]
    drawn = work.map(risks, cells, desc="theorem33")
    by_dim = np.array(drawn, dtype=object).reshape(len(dims), len(sizes), seeds)
    entries = [_of_dimension(d, sizes, radii, draws) for d, draws in zip(dims, by_dim)]
    first = [curve["resmem"][0] / curve["bound"][0] for entry in entries for curve in entry["curves"]]
    return {
        "sizes": sizes,
        "radii": list(radii),
        "seeds": seeds,
        "test_points": test_points,
        "fitted_from": sizes[len(sizes) // 2],
        "constant": max(first),
        "holds": sum(sum(draw["holds"]) for draw in drawn),
        "draws": len(drawn) * len(radii),
        "dims": entries,
    }


def _of_dimension(d: int, sizes, radii, draws: np.ndarray) -> dict:
    """Means over draws (sizes, seeds), slopes over the larger half, ratios at the largest size."""
    large = slice(len(sizes) // 2, None)
    fitted = np.array(sizes[large])

    def curves(name: str, *which) -> np.ndarray:
        values = [[draw[name][which[0]] if which else draw[name] for draw in row] for row in draws]
        return np.array(values, dtype=float).T  # (seeds, sizes)

    knn = curves("knn")
    entry = {"d": d, "knn": knn.mean(axis=0), "knn_slope": slope_interval(fitted, knn[:, large]), "curves": []}
    for i, radius in enumerate(radii):
        base, resmem, t1, t2 = (curves(name, i) for name in ("base", "resmem", "t1", "t2"))
        ratio = resmem / knn
        # With one dimension the constraint alone fixes the base at L θ*: only rounding is left, and no slope.
        if d == 1:
            t1 = np.zeros_like(t1)
        entry["curves"].append(
            {
                "L": radius,
                "base": base.mean(axis=0),
                "resmem": resmem.mean(axis=0),
                "t1": t1.mean(axis=0),
                "t2": t2.mean(axis=0),
                "ratio": ratio.mean(axis=0),
                "bound": bound(d, sizes, radius),
                "resmem_slope": slope_interval(fitted, resmem[:, large]),
                "t1_slope": None if d == 1 else slope_interval(fitted, t1[:, large]),
                "ratio_at_largest": mean_interval(ratio[:, -1]),
            }
        )
    return entry


def tables(results: dict) -> dict[str, Table]:
    """Slopes, levels at the largest n, and what the theorem's steps come to."""
    dims, radii = results["dims"], results["radii"]
    slopes, estimation, levels = [], [], []
    for entry in dims:
        d, curves = entry["d"], entry["curves"]
        allowed = f"{neighbour_exponent(d):.2f}"
        found = (entry["knn_slope"], *(curve["resmem_slope"] for curve in curves))
        slopes.append([d, allowed, f"{-2 / d:.2f}", *(_plain(slope) for slope in found)])
        t1 = (_plain(curve["t1_slope"]) if curve["t1_slope"] else "T1 = 0" for curve in curves)
        estimation.append([d, f"{ESTIMATION:.2f}", "-1.00", *t1])
        for curve in curves:
            levels.append(
                [
                    f"{d}, {curve['L']:g}",
                    f"{curve['base'][-1]:.4f}",
                    f"{entry['knn'][-1]:.2e}",
                    f"{curve['resmem'][-1]:.2e}",
                    _plain(curve["ratio_at_largest"], 4),
                    f"{(1 - curve['L']) ** 2:.4f}",
                    f"{curve['t1'][-1] / curve['t2'][-1]:.1e}",
                    f"{curve['resmem'][-1] / (results['constant'] * curve['bound'][-1]):.1e}",
                ]
            )
    by_radius = [f"L = {radius:g}" for radius in radii]
    columns = ["d, L", "base", "1-NN", "ResMem", "ResMem / 1-NN", "(1-L)²", "T1 / T2", "ResMem / (C · bound)"]
    return {
        "slopes": Table(["d", "theorem", "geometry", "1-NN", *(f"ResMem, {name}" for name in by_radius)], slopes),
        "estimation": Table(["d", "theorem", "geometry", *(f"T1, {name}" for name in by_radius)], estimation),
        "levels": Table(columns, levels),
        "steps": _steps(results),
    }


def _steps(results: dict) -> Table:
    dims, sizes = results["dims"], results["sizes"]
    off = max(dims, key=lambda entry: abs(entry["knn_slope"][0] + 2 / entry["d"]))
    below = sum(entry["knn_slope"][2] < neighbour_exponent(entry["d"]) for entry in dims)
    curves = [(entry["d"], curve) for entry in dims for curve in entry["curves"]]
    ratios = [(curve["ratio_at_largest"][0], curve["ratio"][0], (1 - curve["L"]) ** 2) for _, curve in curves]
    last, first = (max(abs(ratio[i] - ratio[2]) for ratio in ratios) for i in (0, 1))
    cells = [
        (f"d = {d}, L = {curve['L']:g}, n = {n:,}", *(curve[name][i] for name in ("resmem", "bound", "t1", "t2")))
        for d, curve in curves
        for i, n in enumerate(sizes)
    ]
    later = [(risk / (results["constant"] * allowed), where) for where, risk, allowed, _, _ in cells]
    share, tightest = max(one for one in later if not one[1].endswith(f"n = {sizes[0]:,}"))
    largest, early = max((t1 / t2, where) for where, _, _, t1, t2 in cells)
    above = sum(t1 > t2 for *_, t1, t2 in cells)
    apart = max(abs(risk / t2 - 1) for _, risk, _, _, t2 in cells)
    rows = [
        ("dimensions whose whole interval of 1-NN's slope is below the theorem's -1/d", f"{below} of {len(dims)}"),
        ("1-NN's slope, furthest from -2/d", f"{abs(off['knn_slope'][0] + 2 / off['d']):.2f} (d = {off['d']})"),
        (f"ResMem / 1-NN, furthest from (1-L)², at n = {sizes[-1]:,}", f"{last:.1e}"),
        (f"the same at n = {sizes[0]:,}", f"{first:.1e}"),
        ("draws in which risk ≤ 3 (T1 + T2)", f"{results['holds']:,} of {results['draws']:,}"),
        (f"C, set at n = {sizes[0]:,} alone", f"{results['constant']:.3f}"),
        ("ResMem / (C · bound) at larger n, at most", f"{100 * share:.0f} % ({tightest})"),
        ("cases in which T1 > T2", f"{above} of {len(cells)}"),
        ("T1 / T2, at most", f"{largest:.2f} ({early})"),
        ("ResMem's risk, furthest from T2", f"{100 * apart:.1f} %"),
    ]
    return Table(("step", "measured"), rows)


def _plain(found, digits: int = 2) -> str:
    middle, low, high = found
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def draw(results: dict):
    """One column per dimension: risks and the proof's two terms for the middle L, and the ratio to 1-NN for all."""
    sizes, dims = results["sizes"], results["dims"]
    middle = len(results["radii"]) // 2
    size = (2.9 * len(dims) + 2.6, 9.2)
    figure, axes = figures.panels(3, len(dims), size, sharex=True, height_ratios=[3, 3, 2])
    for column, entry in zip(axes.T, dims):
        curve = entry["curves"][middle]
        _risks(column[0], sizes, entry, curve, results["constant"])
        _terms(column[1], sizes, curve)
        _ratios(column[2], sizes, entry)
        column[2].set_xlabel("training points n")
    radius = results["radii"][middle]
    for row, label in zip(axes, (f"risk, L = {radius:g}", f"proof's terms, L = {radius:g}", "ResMem / 1-NN")):
        row[0].set_ylabel(label)
        figures.legend_beside(row[-1])
    for row in axes[:2]:
        _same_decades(row[1:])
    figure.suptitle(f"Theorem 3.3: means of {results['seeds']} draws", fontsize=13)
    return figure


def _same_decades(panels) -> None:
    """As many decades in each panel, so that slopes can be compared by eye; the steep first one would flatten them."""
    limits = [panel.get_ylim() for panel in panels]
    most = max((high / low for low, high in limits), default=1)
    for panel, (_, high) in zip(panels, limits):
        panel.set_ylim(high / most, high)


def _risks(axes, sizes, entry: dict, curve: dict, constant: float) -> None:
    d = entry["d"]
    axes.set_title(f"d = {d}\nResMem's slope {curve['resmem_slope'][0]:.2f}\n-2/d = {-2 / d:.2f}", fontsize=10.5)
    bound = [constant * value for value in curve["bound"]]
    axes.loglog(sizes, bound, "--", color=figures.PAPER, lw=1.6, label=f"paper: bound × {constant:.2f}")
    axes.loglog(sizes, curve["base"], "o-", ms=3.5, color=figures.BASE, label="base; dotted (1-L)²")
    axes.axhline((1 - curve["L"]) ** 2, color=figures.BASE, lw=0.9, ls=":")
    axes.loglog(sizes, entry["knn"], "s-", ms=3.5, color=figures.KNN, label="1-NN on the labels")
    axes.loglog(sizes, curve["resmem"], "D-", ms=3.5, color=figures.RESMEM, label="ResMem")


def _terms(axes, sizes, curve: dict) -> None:
    axes.loglog(sizes, curve["t2"], "D-", ms=3.5, color=figures.RESMEM, label="T2, the neighbour's\ndistance")
    slope = curve["t1_slope"]
    if slope is not None:
        axes.loglog(sizes, curve["t1"], "^-", ms=3.5, color=figures.MIXED, label="T1, estimation")
    axes.set_title("T1 = 0" if slope is None else f"slope of T1 {slope[0]:.2f}", fontsize=9.5, color=figures.MIXED)


def _ratios(axes, sizes, entry: dict) -> None:
    colours = (figures.DARK, figures.RESMEM, figures.LIGHT, figures.MIXED, figures.BASE, figures.KNN)
    for curve, colour in zip(entry["curves"], colours):
        axes.axhline((1 - curve["L"]) ** 2, color=colour, lw=0.9, ls=":")
        axes.semilogx(sizes, curve["ratio"], "o-", ms=3.5, color=colour, label=f"L = {curve['L']:g}; dotted (1-L)²")
    axes.set_ylim(0, 1)
