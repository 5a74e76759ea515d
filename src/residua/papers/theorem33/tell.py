"""Theorem 3.3 in words and tables: what it allows, what geometry expects, what was measured."""

from residua.papers.published import THEOREM_33
from residua.papers.table import Table


def tell(results: dict) -> list[str | Table]:
    """Paragraphs and tables from what ``measure.run`` returned."""
    sizes, dims = results["sizes"], results["dims"]
    return [
        "Covariates uniform on the ball of radius √(d+2), target ⟨θ*, x⟩ with ‖θ*‖ = 1, class ‖θ‖ ≤ L, base by "
        f"constrained least squares, memory by 1-NN on its residual. {results['seeds']} draws of each of {len(sizes)} "
        f"sizes, n = {sizes[0]:,} to {sizes[-1]:,}, {results['test_points']:,} test points each. Slopes of log risk "
        f"against log n are fitted from n = {results['fitted_from']:,} on; intervals are 95 %, over draws.",
        "**Rates.** The theorem is an upper bound: it allows n^(-1/d) (but for a logarithm) for 1-NN and T2, n^(-2/3) "
        "for T1. The squared distance to the nearest of n points falls as n^(-2/d), a least-squares error as n^(-1).",
        _slopes(results),
        f"**Levels at n = {sizes[-1]:,}.** The base's risk tends to (1-L)²; so does the ratio of ResMem's to 1-NN's.",
        _levels(results),
        "**What this says.**",
        "\n".join(
            f"- {line}"
            for line in (_rates(dims), _ratio(dims), _decomposition(results), _bound(results), _stages(results))
        ),
    ]


def _slopes(results: dict) -> Table:
    columns = ["d", "1-NN and T2: theorem", "geometry", "ours"]
    columns += [f"ResMem, L = {radius:g}" for radius in results["radii"]]
    columns += ["T1: theorem", *(f"T1, L = {radius:g}" for radius in results["radii"])]
    rows = []
    for entry in results["dims"]:
        d = entry["d"]
        theorem = THEOREM_33["neighbour_exponent"](d)
        rows.append(
            [
                str(d),
                f"{theorem:.2f}",
                f"{-2 / d:.2f}",
                _with_interval(entry["knn_slope"]),
                *(_with_interval(curve["resmem_slope"]) for curve in entry["curves"]),
                f"{THEOREM_33['estimation_exponent']:.2f}",
                *(_with_interval(curve["t1_slope"]) if curve["t1_slope"] else "T1 = 0" for curve in entry["curves"]),
            ]
        )
    return Table(columns, rows)


def _levels(results: dict) -> Table:
    columns = ["d, L", "base", "(1-L)²", "1-NN", "ResMem", "ResMem / 1-NN", "(1-L)²", "T1 / T2", "ResMem / (C · bound)"]
    rows = []
    for entry in results["dims"]:
        for curve in entry["curves"]:
            limit = (1 - curve["L"]) ** 2
            rows.append(
                [
                    f"{entry['d']}, {curve['L']:g}",
                    f"{curve['base'][-1]:.4f}",
                    f"{limit:.4f}",
                    f"{entry['knn'][-1]:.2e}",
                    f"{curve['resmem'][-1]:.2e}",
                    _with_interval(curve["ratio_at_largest"], 4),
                    f"{limit:.4f}",
                    f"{curve['t1'][-1] / curve['t2'][-1]:.1e}",
                    f"{curve['resmem'][-1] / (results['constant'] * curve['bound'][-1]):.1e}",
                ]
            )
    return Table(columns, rows)


def _rates(dims: list[dict]) -> str:
    off = {entry["d"]: entry["knn_slope"][0] + 2 / entry["d"] for entry in dims}
    worst = max(off, key=lambda d: abs(off[d]))
    slower = [d for entry in dims if entry["knn_slope"][2] > THEOREM_33["neighbour_exponent"](d := entry["d"])]
    compared = (
        f"In d = {', '.join(map(str, slower))} the interval does not exclude the theorem's exponent"
        if slower
        else "In every dimension the whole interval is below the theorem's exponent: the true rate is faster"
    )
    return f"{compared}. Measured slopes of 1-NN are within {abs(off[worst]):.2f} of -2/d (furthest in d = {worst})."


def _ratio(dims: list[dict]) -> str:
    curves = [(entry["d"], curve) for entry in dims for curve in entry["curves"]]
    limits = [abs(curve["ratio_at_largest"][0] - (1 - curve["L"]) ** 2) for _, curve in curves]
    smallest = [abs(curve["ratio"][0] - (1 - curve["L"]) ** 2) for _, curve in curves]
    return (
        f"The memory does better on the residual than on the labels by the factor (1-L)²: the ratio is within "
        f"{max(limits):.1e} of it at the largest n, and within {max(smallest):.1e} already at the smallest."
    )


def _decomposition(results: dict) -> str:
    return (
        f"The proof's step, risk ≤ 3 (T1 + T2), held in {results['holds']:,} of {results['draws']:,} draws, "
        "with expectations taken over the same test points."
    )


def _bound(results: dict) -> str:
    share = [
        (value / (results["constant"] * allowed), entry["d"], curve["L"], n)
        for entry in results["dims"]
        for curve in entry["curves"]
        for n, value, allowed in list(zip(results["sizes"], curve["resmem"], curve["bound"]))[1:]
    ]
    worst, d, radius, n = max(share)
    verdict = "stays below" if worst <= 1 else "exceeds"
    return (
        f"One constant for all d, n and L: C = {results['constant']:.3f}, set at n = {results['sizes'][0]} alone. At "
        f"larger n ResMem's risk {verdict} C · bound: it is at most {100 * worst:.0f} % of it (d = {d}, "
        f"L = {radius:g}, n = {n:,})."
    )


def _stages(results: dict) -> str:
    cells = [
        (t1 / t2, resmem / t2 - 1, entry["d"], curve["L"], n)
        for entry in results["dims"]
        for curve in entry["curves"]
        for n, t1, t2, resmem in zip(results["sizes"], curve["t1"], curve["t2"], curve["resmem"])
    ]
    worst, _, d, radius, n = max(cells)
    above = sum(cell[0] > 1 for cell in cells)
    off = max(abs(cell[1]) for cell in cells)
    return (
        f"The early stage in which T1 would dominate: T1 exceeds T2 in {above} of {len(cells)} cases (largest T1/T2: "
        f"{worst:.2g} at d = {d}, L = {radius:g}, n = {n:,}), and ResMem's risk is T2 to within {100 * off:.1f} % "
        "everywhere, since the base's estimation errors at a point and at its neighbour cancel."
    )


def _with_interval(value, digits: int = 2) -> str:
    middle, low, high = value
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
