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

COLUMNS = ("base", "ResMem", "ResMem over base, points", "ResMem, tuned", "tuned ResMem - tuned interpolation")
COLUMNS += ("training: base", "training: ResMem")
# Of each curve, its place in the paper and the words at its axis.
FIGURES = {"epoch": ("Table 1", "epochs"), "depth": ("Figure 2(a)", "layers")}
FIGURES["fraction"] = ("Figure 2(b)", "training data, %")


def grid_of(memory: rs.Memory) -> dict:
    """The values that compete for every reader, the paper's own sigma among them."""
    return {
        "k": [k for k in K if k <= len(memory)] or [len(memory)],
        "sigma": np.unique([*np.multiply(SIGMA, memory.median_nn_distance()), PAPER["sigma"]]),
        "temperature": TEMPERATURE,
    }


def point(weights: str, data: str, fraction: float, seed: int, device: str) -> dict:
    """The base, ResMem at the paper's settings, and ResMem and k-NN interpolation tuned, on one network.

    What ``headline.about`` gives, ``readers`` (name -> ``accuracy``, and ``gain`` [mean, low, high] over the base in
    points) and ``difference`` (of tuned ResMem over tuned interpolation, the same).
    """
    remembered, test = encoded(weights, data, fraction, seed, device)
    memory = rs.Memory(remembered, device=device_of(device))
    grid = grid_of(memory)
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
    most data, are common to all."""
    if not points:
        return {}
    depth, most = points[0]["depth"], max(point["fraction"] for point in points)
    alike = {
        "epoch": {"depth": depth, "fraction": most},
        "depth": {"last": True, "fraction": most},
        "fraction": {"last": True, "depth": depth},
    }
    found = {name: _by(name, [p for p in points if same.items() <= p.items()]) for name, same in alike.items()}
    return {name: curve for name, curve in found.items() if len(curve) > 1}


def _by(name: str, points: list[dict]) -> dict:
    values = sorted({point[name] for point in points})
    return {value: [point for point in points if point[name] == value] for value in values}


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
    published, tuned = ([p["readers"][name] for p in points] for name in ("resmem_paper", "resmem_tuned"))
    return [
        _mean(points, "base"),
        _mean(published, "accuracy"),
        interval(over_all([reader["gain"] for reader in published])),
        _mean(tuned, "accuracy"),
        interval(over_all([point["difference"] for point in points])),
        _mean(points, "train_base"),
        _mean(points, "train_resmem"),
    ]


def _mean(those: list[dict], name: str) -> str:
    return mean([one[name] for one in those])


def _epochs(by_epoch: dict, epochs: int) -> Table:
    printed = {max(1, round(p[0] * epochs / PAPER_EPOCHS)): p for p in zip(*CIFAR100_EPOCHS.values())}
    rows = []
    for epoch, own in by_epoch.items():
        mark, base, resmem = printed[epoch]
        rows.append([f"{epoch} ({mark})", f"{base:.1f}", f"{resmem:.1f}", *_cells(own)])
    return Table((f"epochs (of {PAPER_EPOCHS})", "paper: base", "paper: ResMem", *COLUMNS), rows)


def times(points: list[dict], trainings: list[dict], milliseconds: float) -> dict[str, Table]:
    """``training time``: minutes trained until each network was kept on all the data there are, and its accuracy
    without and with a memory; `milliseconds` an image are what remembering takes at most. Empty where none was trained.
    """
    seconds = {(one["depth"], one["fraction"], one["seed"]): one for one in trainings}
    whole = [point for point in points if point["fraction"] == max(point["fraction"] for point in points)]
    rows = []
    for depth, own in _by("depth", whole).items() if trainings else ():
        for epoch, same in _by("epoch", own).items():
            kept = [seconds[depth, point["fraction"], point["seed"]] for point in same]
            minutes = np.mean([sum(one["seconds"][:epoch]) for one in kept]) / 60
            more = f"{kept[0]['images'] * milliseconds / 60_000:.1f}" if depth == points[0]["depth"] else ""
            readers = [point["readers"]["resmem_paper"] for point in same]
            accuracies = _mean(same, "base"), _mean(readers, "accuracy")
            rows.append([f"ResNet-{depth}, {epoch} epochs", f"{minutes:.1f}", more, *accuracies])
    columns = ("", "minutes trained", "to remember, at most", "base, %", "ResMem, %")
    return {"training time": Table(columns, rows)} if rows else {}


def _crossed(points: list[dict]) -> Table:
    shares = sorted({point["fraction"] for point in points})
    rows = []
    for depth, own in _by("depth", points).items():
        by_share = _by("fraction", own)
        cells = [_gained(by_share[share]) if share in by_share else "not trained" for share in shares]
        rows.append([f"ResNet-{depth}", *cells])
    return Table(("", *(f"{100 * share:g} %" for share in shares)), rows)


def _gained(points: list[dict]) -> str:
    readers = [point["readers"]["resmem_paper"] for point in points]
    gain = np.mean([reader["gain"][0] for reader in readers])
    return f"{_mean(points, 'base')} → {_mean(readers, 'accuracy')} ({gain:+.2f})"


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
        for mark, base, resmem in zip(*CIFAR100_EPOCHS.values()):
            x, gain = mark * epochs / PAPER_EPOCHS, resmem - base
            paper_dot(axes, x, gain, f"{gain:+.1f}", label="paper: ResMem", at=(0, -8))
    title, words = FIGURES[name]
    axes.margins(x=0.12)
    axes.set_ylim(0, None)
    axes.set(xticks=at, xlabel=words, ylabel="over the base, points", title=title)
