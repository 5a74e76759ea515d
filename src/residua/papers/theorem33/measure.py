"""The simulation over dimensions, sizes and draws, and what it comes to: means, slopes, ratios, the bound."""

import numpy as np

from residua.errors import ParameterError
from residua.papers.intervals import mean_interval, slope_interval
from residua.papers.theorem33.simulate import bound, risks
from residua.papers.work import Work


def run(work: Work, *, dims, radii, sizes, seeds: int, test_points: int) -> dict:
    """Simulate every (d, n, draw) and summarise.

    Parameters
    ----------
    work : Work
    dims, radii, sizes : sequences of int, float, int
        Dimensions, the classes' L in (0, 1), training points.
    seeds : int
        Draws per size, at least 2.
    test_points : int

    Returns
    -------
    dict
        ``dims``: one entry per d with the curves' means over draws (``knn``, and per L ``base``, ``resmem``, ``t1``,
        ``t2``, ``ratio``, ``bound``), slopes [value, low, high] over the larger half of the sizes, and the ratio
        ResMem/1-NN at the largest; ``constant``: the bound's, set at the smallest size alone; ``holds``, ``draws``: how
        often ResMem's risk was at most 3 (T1 + T2), and of how many.

    Raises
    ------
    ParameterError
        When a setting is out of its range.
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
