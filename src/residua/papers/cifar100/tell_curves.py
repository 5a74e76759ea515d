"""The curves in tables and sentences: Table 1 and Figures 2 and 4, the paper beside ours."""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from residua.papers.cifar100.findings import sign
from residua.papers.cifar100.recipe import PAPER_EPOCHS
from residua.papers.intervals import over_all
from residua.papers.published import CIFAR100_EPOCHS
from residua.papers.shown import interval, mean
from residua.papers.table import Table

COLUMNS = (
    "base",
    "ResMem",
    "ResMem over base, points",
    "ResMem, tuned",
    "tuned ResMem - tuned interpolation",
    "training: base",
    "training: ResMem",
)


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


def tables(points: list[dict], epochs: int) -> list[str | Table]:
    """What the curves are, then a heading and a table for each, and for depths and shares crossed."""
    found = curves(points)
    if not found:
        return []
    blocks: list[str | Table] = [
        "**Epochs, depths, shares.** ResMem at the paper's settings; *tuned* as above, but over fewer settings. "
        "Intervals are over test images where a row is one network, over networks where it is several."
    ]
    if "epoch" in found:
        blocks += ["**Table 1: epochs trained**", _epochs(found["epoch"], epochs)]
    if "depth" in found:
        rows = [[f"ResNet-{depth}", *_cells(own)] for depth, own in found["depth"].items()]
        blocks += ["**Figure 2(a): depths**", Table(("%", *COLUMNS), rows)]
    if "fraction" in found:
        rows = [[f"{100 * share:g} %", *_cells(own)] for share, own in found["fraction"].items()]
        words = (
            "**Figure 2(b): shares of the training data**, all for the same epochs, so smaller shares in fewer steps"
        )
        blocks += [words, Table(("%", *COLUMNS), rows)]
    if "depth" in found and "fraction" in found:
        words = "**Figure 4: depths and shares crossed**, test accuracy of base → ResMem at the paper's settings"
        blocks += [words, _crossed(points)]
    return blocks


def curve_findings(points: list[dict]) -> list[str]:
    """One sentence or two for each claim about a curve."""
    found = curves(points)
    told = {"epoch": _told_epochs, "depth": _told_depths, "fraction": _told_fractions}
    out = [told[name](curve) for name, curve in found.items()]
    if "depth" in found and "fraction" in found:
        out.append(_told_crossed(points))
    if found:
        out.append(_told_difference(points))
    return out


def gain(points: Sequence[dict]) -> float:
    """ResMem's over the base at the paper's settings, in points, the mean of several networks."""
    return float(np.mean([point["readers"]["resmem_paper"]["gain"][0] for point in points]))


def trend(values: Sequence[float]) -> str:
    """In words, how numbers go one after the other.

    Examples
    --------
    >>> trend([1.0, 2.0, 3.0]), trend([3.0, 2.0]), trend([1.0, 3.0, 2.0])
    ('grows at every step', 'falls at every step', 'neither grows nor falls at every step')
    """
    steps = [later - earlier for earlier, later in itertools.pairwise(values)]
    if all(step > 0 for step in steps):
        return "grows at every step"
    return "falls at every step" if all(step < 0 for step in steps) else "neither grows nor falls at every step"


def _cells(points: list[dict]) -> list[str]:
    def accuracy(reader: str) -> str:
        return mean([point["readers"][reader]["accuracy"] for point in points])

    return [
        mean([point["base"] for point in points]),
        accuracy("resmem_paper"),
        interval(over_all([point["readers"]["resmem_paper"]["gain"] for point in points])),
        accuracy("resmem_tuned"),
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
        cells = []
        for share in shares:
            own = [p for p in points if p["last"] and (p["depth"], p["fraction"]) == (depth, share)]
            resmem = [point["readers"]["resmem_paper"]["accuracy"] for point in own]
            cells.append(
                f"{mean([p['base'] for p in own])} → {mean(resmem)} ({gain(own):+.2f})" if own else "not trained"
            )
        rows.append([f"ResNet-{depth}", *cells])
    return Table(("", *(f"{100 * share:g} %" for share in shares)), rows)


def _told_epochs(by_epoch: dict) -> str:
    gains = [gain(own) for own in by_epoch.values()]
    paper = [resmem - base for base, resmem in zip(CIFAR100_EPOCHS["base"], CIFAR100_EPOCHS["resmem"])]
    first = "is" if gains[0] == max(gains) else "is not"
    return (
        f"Table 1: ResMem gains {gains[0]:+.2f} points at the first mark and {gains[-1]:+.2f} at the last (the paper: "
        f"{paper[0]:+.1f} and {paper[-1]:+.1f}); the first mark's {first} the largest gain. Over the marks the gain "
        f"{trend(gains)}."
    )


def _told_depths(by_depth: dict) -> str:
    (small, own), (large, next_) = list(by_depth.items())[:2]
    resmem = float(np.mean([point["readers"]["resmem_paper"]["accuracy"] for point in own]))
    alone, larger = (float(np.mean([point["base"] for point in points])) for points in (own, next_))
    place = "between" if alone < resmem < larger else "not between"
    gains = [gain(points) for points in by_depth.values()]
    listed = ", ".join(f"ResNet-{depth} {value:+.2f}" for depth, value in zip(by_depth, gains))
    return (
        f"Figure 2(a): ResNet-{small} with ResMem ({resmem:.2f} %) is {place} ResNet-{small} alone ({alone:.2f} %) and "
        f"ResNet-{large} alone ({larger:.2f} %); the paper: between. The gain by depth: {listed}; it {trend(gains)}."
    )


def _told_fractions(by_share: dict) -> str:
    gains = [gain(own) for own in by_share.values()]
    fitted = [float(np.mean([point["train_base"] for point in own])) for own in by_share.values()]
    (first, *_, last) = by_share
    lowest = min(point["train_resmem"] for own in by_share.values() for point in own)
    return (
        f"Figure 2(b): from {100 * first:g} % to {100 * last:g} % of the data the gain goes from {gains[0]:+.2f} to "
        f"{gains[-1]:+.2f} points; it {trend(gains)} (the paper: it grows). The base's training accuracy goes from "
        f"{fitted[0]:.1f} % to {fitted[-1]:.1f} %; it {trend(fitted)} (the paper: it falls). ResMem's is at least "
        f"{lowest:.2f} % (the paper: 100 %)."
    )


def _told_crossed(points: list[dict]) -> str:
    cells: dict[tuple, list[dict]] = {}
    for point in points:
        if point["last"]:
            cells.setdefault((point["depth"], point["fraction"]), []).append(point)
    gains = {f"ResNet-{depth} on {100 * share:g} %": gain(own) for (depth, share), own in cells.items()}
    most, least = max(gains, key=gains.get), min(gains, key=gains.get)
    return (
        f"Figure 4: of {len(gains)} cells the gain is largest with {most} of the data ({gains[most]:+.2f} points) and "
        f"smallest with {least} ({gains[least]:+.2f}); the paper: larger for small networks and much data."
    )


def _told_difference(points: list[dict]) -> str:
    found = [point["difference"] for point in points]
    signs = [sign(difference) for difference in found]
    text = (
        f"On these {len(points)} networks tuned ResMem minus tuned interpolation goes from "
        f"{min(found)[0]:+.2f} to {max(found)[0]:+.2f} points; it is positive on {sum(one[0] > 0 for one in found)}, "
        f"with an interval above 0 on {signs.count(1)} and below 0 on {signs.count(-1)}."
    )
    most = max(point["fraction"] for point in points)
    fitted, ahead = np.transpose([(p["train_base"], p["difference"][0]) for p in points if p["fraction"] == most])
    if len(fitted) < 3 or np.ptp(fitted) == 0 or np.ptp(ahead) == 0:
        return text
    rank = spearmanr(fitted, ahead).statistic
    return (
        f"{text} With the most data ({len(fitted)} networks, some of them one training at several epochs) its rank "
        f"correlation with the base's training accuracy is {rank:+.2f}."
    )
