"""ResMem (arXiv 2302.01576), Theorem 3.3: what a memory does to the risk of a base that cannot reach the target."""

import numpy as np

from experiments import figures
from experiments.intervals import mean_interval, slope_interval
from experiments.table import Table
from experiments.theorem33.simulate import bound, risks
from experiments.work import Work
from residua.errors import ParameterError

# The theorem's exponent of n in its first term, d² L² n^(-2/3). That of its second, d² (1-L)² [log(n^(1/d)) / n]^(1/d),
# is -1/d.
ESTIMATION = -2 / 3


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
    by_dim = {  # (d, L, draws, sizes)
        name: np.array([draw[name] for draw in drawn]).reshape(len(dims), len(sizes), seeds, -1).transpose(0, 3, 2, 1)
        for name in drawn[0]
    }
    entries = [
        _of_dimension(d, sizes, radii, {name: values[i] for name, values in by_dim.items()}) for i, d in enumerate(dims)
    ]
    first = [curve["resmem"][0] / curve["bound"][0] for entry in entries for curve in entry["curves"]]
    return {
        "sizes": sizes,
        "radii": list(radii),
        "seeds": seeds,
        "test_points": test_points,
        "fitted_from": sizes[len(sizes) // 2],
        "constant": max(first),
        "holds": int(by_dim["holds"].sum()),
        "draws": len(drawn) * len(radii),
        "dims": entries,
    }


def _of_dimension(d: int, sizes, radii, risk: dict[str, np.ndarray]) -> dict:
    """Means over draws of every risk (L, draws, sizes), slopes over the larger half of the sizes, ratios at the
    largest."""
    large = slice(len(sizes) // 2, None)

    def fitted(values: np.ndarray):
        return slope_interval(np.array(sizes[large]), values[:, large])

    knn = risk["knn"][0]
    entry = {"d": d, "knn": knn.mean(axis=0), "knn_slope": fitted(knn), "curves": []}
    for i, radius in enumerate(radii):
        of = {name: risk[name][i] for name in ("base", "resmem", "t1", "t2")}
        # With one dimension the constraint alone fixes the base at L θ*: only rounding is left, and no slope.
        if d == 1:
            of["t1"] = np.zeros_like(of["t1"])
        of["ratio"] = of["resmem"] / knn
        entry["curves"].append(
            {
                "L": radius,
                **{name: values.mean(axis=0) for name, values in of.items()},
                "bound": bound(d, sizes, radius),
                "resmem_slope": fitted(of["resmem"]),
                "t1_slope": None if d == 1 else fitted(of["t1"]),
                "ratio_at_largest": mean_interval(of["ratio"][:, -1]),
            }
        )
    return entry


def tables(results: dict) -> dict[str, Table]:
    """Slopes, levels at the largest n, what the theorem's steps come to, and Lemma A.1."""
    slopes, estimation, levels = [], [], []
    for entry in results["dims"]:
        d, curves = entry["d"], entry["curves"]
        found = (entry["knn_slope"], *(curve["resmem_slope"] for curve in curves))
        slopes.append([d, f"{-1 / d:.2f}", f"{-2 / d:.2f}", *map(_plain, found)])
        t1 = (_plain(curve["t1_slope"]) if curve["t1_slope"] else "T1 = 0" for curve in curves)
        estimation.append([d, f"{ESTIMATION:.2f}", "-1.00", *t1])
        for curve in curves:
            base, resmem, t1, t2, allowed = (curve[name][-1] for name in ("base", "resmem", "t1", "t2", "bound"))
            risks = f"{base:.4f}", f"{entry['knn'][-1]:.2e}", f"{resmem:.2e}"
            ratio = _plain(curve["ratio_at_largest"], 4), f"{(1 - curve['L']) ** 2:.4f}"
            shares = f"{t1 / t2:.1e}", f"{resmem / (results['constant'] * allowed):.1e}"
            levels.append([f"{d}, {curve['L']:g}", *risks, *ratio, *shares])
    by_radius = [f"L = {radius:g}" for radius in results["radii"]]
    columns = ["d, L", "base", "1-NN", "ResMem", "ResMem / 1-NN", "(1-L)²", "T1 / T2", "ResMem / (C · bound)"]
    return {
        "slopes": Table(["d", "theorem", "geometry", "1-NN", *(f"ResMem, {name}" for name in by_radius)], slopes),
        "estimation": Table(["d", "theorem", "geometry", *(f"T1, {name}" for name in by_radius)], estimation),
        "levels": Table(columns, levels),
        "steps": _steps(results),
        "lemma": _lemma(results),
    }


def _lemma(results: dict) -> Table:
    """Lemma A.1, E Z ≲ d² [log(n^(1/d)) / n]^(1/d), of the squared distance Z to the nearest of n points: by symmetry
    it is in the mean d times its part along one direction, which is the risk of 1-NN."""
    sizes, rows = results["sizes"], []
    for entry in results["dims"]:
        d = entry["d"]
        measured, allowed = d * np.array(entry["knn"]), bound(d, sizes, 0.0)  # L = 0: the second term alone
        shares = [f"{measured[at] / allowed[at]:.2g}" for at in (0, len(sizes) // 2, -1)]
        rows.append(
            [d, f"{measured[-1]:.3g}", f"{allowed[-1]:.3g}", *shares, f"{-1 / d:.2f}", _plain(entry["knn_slope"])]
        )
    at = [f"share at n = {sizes[place]:,}" for place in (0, len(sizes) // 2, -1)]
    return Table(("d", f"E Z at n = {sizes[-1]:,}", "bound / constant", *at, "slope, lemma", "slope, measured"), rows)


def _steps(results: dict) -> Table:
    dims, radii, sizes, constant = (results[name] for name in ("dims", "radii", "sizes", "constant"))
    off = max(dims, key=lambda entry: abs(entry["knn_slope"][0] + 2 / entry["d"]))
    below = sum(entry["knn_slope"][2] < -1 / entry["d"] for entry in dims)
    resmem, allowed, t1, t2, ratio = (
        np.array([[curve[name] for curve in entry["curves"]] for entry in dims])  # (d, L, n)
        for name in ("resmem", "bound", "t1", "t2", "ratio")
    )
    at_largest = np.array([[curve["ratio_at_largest"][0] for curve in entry["curves"]] for entry in dims])
    limit = (1 - np.array(radii)) ** 2
    later = (resmem / (constant * allowed))[..., 1:]

    def largest(values: np.ndarray, sizes: list[int]) -> str:
        """Where the largest value is."""
        d, radius, n = np.unravel_index(values.argmax(), values.shape)
        return f"d = {dims[d]['d']}, L = {radii[radius]:g}, n = {sizes[n]:,}"

    rows = [
        ("dimensions whose whole interval of 1-NN's slope is below the theorem's -1/d", f"{below} of {len(dims)}"),
        ("1-NN's slope, furthest from -2/d", f"{abs(off['knn_slope'][0] + 2 / off['d']):.2f} (d = {off['d']})"),
        (f"ResMem / 1-NN, furthest from (1-L)², at n = {sizes[-1]:,}", f"{abs(at_largest - limit).max():.1e}"),
        (f"the same at n = {sizes[0]:,}", f"{abs(ratio[..., 0] - limit).max():.1e}"),
        ("draws in which risk ≤ 3 (T1 + T2)", f"{results['holds']:,} of {results['draws']:,}"),
        (f"C, set at n = {sizes[0]:,} alone", f"{constant:.3f}"),
        ("ResMem / (C · bound) at larger n, at most", f"{100 * later.max():.0f} % ({largest(later, sizes[1:])})"),
        ("cases in which T1 > T2", f"{(t1 > t2).sum()} of {t1.size}"),
        ("T1 / T2, at most", f"{(t1 / t2).max():.2f} ({largest(t1 / t2, sizes)})"),
        ("ResMem's risk, furthest from T2", f"{100 * abs(resmem / t2 - 1).max():.1f} %"),
    ]
    return Table(("step", "measured"), rows)


def _plain(found, digits: int = 2) -> str:
    middle, low, high = found
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def draw(results: dict):
    """One column per dimension: risks and the proof's two terms for the middle L, and the ratio to 1-NN for all."""
    sizes, dims, constant = results["sizes"], results["dims"], results["constant"]
    middle = len(results["radii"]) // 2
    size = (2.9 * len(dims) + 2.6, 9.2)
    figure, axes = figures.panels(3, len(dims), size, sharex=True, height_ratios=[3, 3, 2])
    for (risk, terms, ratios), entry in zip(axes.T, dims):
        d, curve = entry["d"], entry["curves"][middle]
        risk.set_title(f"d = {d}\nResMem's slope {curve['resmem_slope'][0]:.2f}\n-2/d = {-2 / d:.2f}", fontsize=10.5)
        allowed = constant * np.array(curve["bound"])
        risk.loglog(sizes, allowed, "--", color=figures.PAPER, lw=1.6, label=f"paper: bound × {constant:.2f}")
        risk.loglog(sizes, curve["base"], "o-", ms=3.5, color=figures.BASE, label="base; dotted (1-L)²")
        risk.axhline((1 - curve["L"]) ** 2, color=figures.BASE, lw=0.9, ls=":")
        risk.loglog(sizes, entry["knn"], "s-", ms=3.5, color=figures.KNN, label="1-NN on the labels")
        risk.loglog(sizes, curve["resmem"], "D-", ms=3.5, color=figures.RESMEM, label="ResMem")

        terms.loglog(sizes, curve["t2"], "D-", ms=3.5, color=figures.RESMEM, label="T2, the neighbour's\ndistance")
        if slope := curve["t1_slope"]:
            terms.loglog(sizes, curve["t1"], "^-", ms=3.5, color=figures.MIXED, label="T1, estimation")
        terms.set_title(f"slope of T1 {slope[0]:.2f}" if slope else "T1 = 0", fontsize=9.5, color=figures.MIXED)

        colours = (figures.DARK, figures.RESMEM, figures.LIGHT, figures.MIXED, figures.BASE, figures.KNN)
        for curve, colour in zip(entry["curves"], colours):
            ratios.axhline((1 - curve["L"]) ** 2, color=colour, lw=0.9, ls=":")
            label = f"L = {curve['L']:g}; dotted (1-L)²"
            ratios.semilogx(sizes, curve["ratio"], "o-", ms=3.5, color=colour, label=label)
        ratios.set_ylim(0, 1)
        ratios.set_xlabel("training points n")
    radius = results["radii"][middle]
    for row, label in zip(axes, (f"risk, L = {radius:g}", f"proof's terms, L = {radius:g}", "ResMem / 1-NN")):
        row[0].set_ylabel(label)
        row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
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
