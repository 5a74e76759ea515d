"""Table 1 and Figures 2 and 4: what the memory adds as epochs, depth and data grow, one network a point.

A curve has many networks, so that fewer settings compete here than in the headline's comparison.
"""

import numpy as np
from matplotlib.axes import Axes

import residua as rs
from experiments.cifar100.headline import PAPER, about, fitting, right_of_base
from experiments.cifar100.networks import encoded
from experiments.cifar100.recipe import PAPER_EPOCHS
from experiments.figures import MIXED, RESMEM, paper_dot
from experiments.halves import crossed, paired, percent
from experiments.intervals import over_all
from experiments.machine import device_of
from experiments.published import CIFAR100_EPOCHS
from experiments.shown import interval, mean
from experiments.table import Table

# As wide as the headline's where readers choose, so that none is held back: interpolation likes a sharper base.
K = (20, 35, 53, 85, 200)
SIGMA = (0.125, 0.18, 0.25, 0.35, 0.5, 1.0)  # multiples of the typical distance between neighbours
TEMPERATURE = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
LMBDA = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)

COLUMNS = (
    "base",
    "ResMem",
    "ResMem over base, points",
    "ResMem, tuned",
    "tuned ResMem - tuned interpolation",
    "training: base",
    "training: ResMem",
)


def point(weights: str, data: str, fraction: float, seed: int, device: str) -> dict:
    """The base, ResMem at the paper's settings, and ResMem and k-NN interpolation tuned, on one network.

    Returns
    -------
    dict
        ``n``, ``memory`` (rows), ``base``, ``train_base``, ``train_resmem`` (at the paper's settings, %), ``readers``
        (name -> ``accuracy``, and ``gain`` [mean, low, high] over the base in points) and ``difference`` (of tuned
        ResMem over tuned interpolation, the same).
    """
    remembered, test = encoded(weights, data, fraction, seed, device)
    memory = rs.Memory(remembered, device=device_of(device))
    grid = {
        "k": [k for k in K if k <= len(memory)] or [len(memory)],
        "sigma": np.unique([*np.multiply(SIGMA, memory.median_nn_distance()), PAPER["sigma"]]),
        "temperature": TEMPERATURE,
    }
    published = rs.ResMem(memory, **fitting(memory))
    mixed = rs.KNNLM(memory, k=1, kernel="exponential")
    answers = {
        "resmem_paper": published.predict(test),
        "resmem_tuned": crossed(rs.ResMem(memory, k=1), test, grid)[0],
        "interpolation_tuned": crossed(mixed, test, {**grid, "lmbda": LMBDA})[0],
    }
    right = {name: predicted == test.labels for name, predicted in answers.items()}
    base, rng = right_of_base(test), np.random.default_rng(0)
    return {
        **about(published, remembered, test),
        "readers": {
            name: {"accuracy": percent(answer), "gain": list(paired(answer, base, rng)[:3])}
            for name, answer in right.items()
        },
        "difference": list(paired(right["resmem_tuned"], right["interpolation_tuned"], rng)[:3]),
    }


def curves(points: list[dict]) -> dict[str, dict]:
    """Points of each curve there is, by name ("epoch", "depth", "fraction") and value; the first point's depth, and the
    most data, are common to all.

    Examples
    --------
    >>> about = {"fraction": 1.0, "seed": 0}
    >>> points = [{"depth": d, "epoch": e, "last": e == 2, **about} for d, e in ((8, 1), (8, 2), (14, 2))]
    >>> {name: list(found) for name, found in curves(points).items()}
    {'epoch': [1, 2], 'depth': [8, 14]}
    """
    if not points:
        return {}
    depth, most = points[0]["depth"], max(point["fraction"] for point in points)
    alike = {
        "epoch": {"depth": depth, "fraction": most},
        "depth": {"last": True, "fraction": most},
        "fraction": {"last": True, "depth": depth},
    }
    out = {}
    for name, same in alike.items():
        own = [point for point in points if all(point[key] == value for key, value in same.items())]
        values = sorted({point[name] for point in own})
        if len(values) > 1:
            out[name] = {value: [point for point in own if point[name] == value] for value in values}
    return out


def tables(points: list[dict], epochs: int) -> dict[str, Table]:
    """``epochs`` (Table 1), ``depths`` and ``fractions`` (Figure 2), ``crossed`` (Figure 4), of those there are."""
    found, out = curves(points), {}
    if "epoch" in found:
        out["epochs"] = _epochs(found["epoch"], epochs)
    if "depth" in found:
        out["depths"] = Table(("%", *COLUMNS), [[f"ResNet-{d}", *_cells(own)] for d, own in found["depth"].items()])
    if "fraction" in found:
        rows = [[f"{100 * share:g} %", *_cells(own)] for share, own in found["fraction"].items()]
        out["fractions"] = Table(("%", *COLUMNS), rows)
    if "depth" in found and "fraction" in found:
        out["crossed"] = _crossed([point for point in points if point["last"]])
    return out


def _cells(points: list[dict]) -> list[str]:
    readers = {name: [point["readers"][name] for point in points] for name in ("resmem_paper", "resmem_tuned")}
    return [
        mean([point["base"] for point in points]),
        mean([reader["accuracy"] for reader in readers["resmem_paper"]]),
        interval(over_all([reader["gain"] for reader in readers["resmem_paper"]])),
        mean([reader["accuracy"] for reader in readers["resmem_tuned"]]),
        interval(over_all([point["difference"] for point in points])),
        mean([point["train_base"] for point in points]),
        mean([point["train_resmem"] for point in points]),
    ]


def _epochs(by_epoch: dict, epochs: int) -> Table:
    printed = {max(1, round(mark * epochs / PAPER_EPOCHS)): i for i, mark in enumerate(CIFAR100_EPOCHS["epochs"])}
    rows = []
    for epoch, own in by_epoch.items():
        i = printed[epoch]
        paper = [f"{CIFAR100_EPOCHS[name][i]:.1f}" for name in ("base", "resmem")]
        rows.append([f"{epoch} ({CIFAR100_EPOCHS['epochs'][i]})", *paper, *_cells(own)])
    return Table((f"epochs (of {PAPER_EPOCHS})", "paper: base", "paper: ResMem", *COLUMNS), rows)


def _crossed(points: list[dict]) -> Table:
    depths, shares = (sorted({point[name] for point in points}) for name in ("depth", "fraction"))
    rows = []
    for depth in depths:
        row = []
        for share in shares:
            own = [point for point in points if (point["depth"], point["fraction"]) == (depth, share)]
            row.append(_gained(own) if own else "not trained")
        rows.append([f"ResNet-{depth}", *row])
    return Table(("", *(f"{100 * share:g} %" for share in shares)), rows)


def _gained(points: list[dict]) -> str:
    readers = [point["readers"]["resmem_paper"] for point in points]
    base, resmem = mean([point["base"] for point in points]), mean([reader["accuracy"] for reader in readers])
    return f"{base} → {resmem} ({np.mean([reader['gain'][0] for reader in readers]):+.2f})"


def panel(axes: Axes, name: str, curve: dict, epochs: int) -> None:
    """Gains over the base along one curve, the mean of several networks."""
    at = [100 * x for x in curve] if name == "fraction" else list(curve)
    for reader, label, style, colour in (
        ("resmem_paper", "ResMem, paper's settings", "D-", RESMEM),
        ("resmem_tuned", "ResMem, tuned", "D--", RESMEM),
        ("interpolation_tuned", "interpolation, tuned", "o--", MIXED),
    ):
        gains = [np.mean([point["readers"][reader]["gain"][0] for point in points]) for points in curve.values()]
        axes.plot(at, gains, style, ms=4, color=colour, label=label)
    if name == "epoch":
        for mark, base, resmem in zip(*(CIFAR100_EPOCHS[key] for key in ("epochs", "base", "resmem"))):
            x, gain = mark * epochs / PAPER_EPOCHS, resmem - base
            paper_dot(axes, x, gain, f"{gain:+.1f}", label="paper: ResMem", at=(0, -8))
    axes.margins(x=0.12)
    axes.set_xticks(at)
    axes.set_ylim(0, None)
    axes.set_xlabel({"epoch": "epochs", "depth": "layers", "fraction": "training data, %"}[name])
    axes.set_ylabel("over the base, points")
    axes.set_title({"epoch": "Table 1", "depth": "Figure 2(a)", "fraction": "Figure 2(b)"}[name], fontsize=11)
