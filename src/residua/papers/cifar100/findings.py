"""What the numbers say about the paper's claims: sentences that turn when the numbers do."""

import numpy as np

from residua.papers.cifar100.groups import ALIKE, VOTE
from residua.papers.cifar100.sweeps import dip, spread
from residua.papers.intervals import over_all
from residua.papers.published import CIFAR100_CONSERVATIVE, CIFAR100_RESNET8, CIFAR100_SWEEPS
from residua.papers.shown import interval

SYMBOLS = {"k": "k", "sigma": "σ", "temperature": "T"}
NOISE = 0.3  # points; the standard error of a paired difference on 10 000 images is near 0.2
KINDS = {
    "paper": "With the paper's k, σ and T (and λ tuned)",
    "tuned": "With everything tuned, and ResMem's kernel exp(-d/σ) for both,",
    "gaussian": "With everything tuned, and kNN-LM's kernel exp(-d²/σ) for both,",
}


def findings(results: dict, main: list[dict]) -> list[str]:
    """One sentence or two for each claim.

    Parameters
    ----------
    results : dict
        What ``plan.run`` returned.
    main : list of dict
        The headline's networks.
    """
    return [
        _claim(main),
        *(_against(main, kind) for kind in KINDS),
        _why(results["family"]),
        _where(main[0]),
        _alike(main[0]),
        _memorised(main),
        _figure5(results["sweeps"]),
        *(_robust(name, results["sweeps"][name]) for name in SYMBOLS),
        _conservative(main),
        _cost(main[0]["depth"], results["latency"]),
        *_edges(main),
    ]


def _claim(main: list[dict]) -> str:
    gain = np.mean([network["readers"]["resmem_paper"]["gain"][0] for network in main])
    return (
        f"The gain at the paper's settings is {gain:+.2f} points, the paper's {CIFAR100_RESNET8['gain']:+.2f}; this "
        f"base is at {np.mean([n['base'] for n in main]):.2f} %, the paper's at {CIFAR100_RESNET8['base']} %."
    )


def _against(main: list[dict], kind: str) -> str:
    wanted = [f"resmem_{kind}", f"interpolation_{kind}"]
    difference = over_all([pair[2:] for network in main for pair in network["pairs"] if pair[:2] == wanted])
    sure = "the interval excludes 0" if sign(difference) else "the interval includes 0"
    word = "ahead of" if difference[0] > 0 else "behind"
    return (
        f"{KINDS[kind]} ResMem is {abs(difference[0]):.2f} points {word} k-NN interpolation "
        f"({interval(difference)}; {sure})."
    )


def _why(found: list[dict]) -> str:
    parts, sure = [], any(sign(one["members"]["resmem"]["over_interpolation"]) for one in found)
    for one in found:
        member, by_b = one["members"]["resmem"], dict(one["by_b"])
        best = max(by_b, key=by_b.get)
        parts.append(
            f"with the {one['kernel']} kernel it is worth {interval(member['over_interpolation'][:3])} points at "
            f"ResMem's coefficients (the best b is {best:g}: {by_b[best]:.2f} %, against {by_b[1.0]:.2f} % at b = 1 "
            f"and {by_b[0.0]:.2f} % at b = 0, each with its own a, k, σ and T)"
        )
    return (
        "All that interpolation lacks is the term -q, which takes away what the base says at the neighbours too: "
        f"{'; '.join(parts)}."
        + (
            ""
            if sure
            else " No interval excludes 0: with a well chosen kernel width its worth is within the noise here."
        )
    )


def _where(network: dict) -> str:
    parts = [
        f"{'is' if group['group'] == 'agrees' else 'is not'} the base's answer ({group['share']:.1f} % of the images), "
        f"the base is right in {group['base']:.1f} %, ResMem in {group['resmem']:.1f} %, interpolation in "
        f"{group['interpolation']:.1f} %"
        for group in network["groups"]
        if group["by"] == VOTE
    ]
    sure = [group for group in network["groups"] if sign(group["difference"])]
    found = "; ".join(f"{group['by']} {group['group']} {interval(group['difference'][:3])}" for group in sure)
    return (
        f"Where the neighbours' vote {'; where it '.join(parts)}. Of {len(network['groups'])} groups, the "
        f"difference's interval excludes 0 in these (one in twenty does by chance): {found or 'none'}."
    )


def _alike(network: dict) -> str:
    found = [group for group in network["groups"] if group["by"] == ALIKE]
    *rest, most = found
    points = sum(group["share"] * group["gain"][0] for group in rest) / 100
    total = points + most["share"] * most["gain"][0] / 100
    text = (
        f"Near-duplicates: where the correlation of grey levels with a neighbour is in {most['group']} "
        f"({most['share']:.1f} % of the images) tuned ResMem gains {interval(most['gain'][:3])} points"
    )
    if total <= 0 or not rest:
        return f"{text}."
    return f"{text}; the other images bring {points:.2f} of the {total:.2f} points of the whole gain."


def _memorised(main: list[dict]) -> str:
    return (
        f"ResMem's training accuracy is {np.mean([n['train_resmem'] for n in main]):.2f} % (the paper: 100 %), from a "
        f"base with {np.mean([n['train_base'] for n in main]):.2f} %."
    )


def _figure5(swept: dict) -> str:
    parts = []
    for name, shown in (("sigma", "σ"), ("temperature", "T")):
        step = dip(swept[name]["resmem"])
        shape = "one peak" if step < NOISE else f"not one peak, with a step of {step:.2f} points against it"
        parts.append(f"in {shown} {shape}")
    return (
        f"Figure 5's shapes: over the paper's range of k the accuracy moves by {spread('k', swept['k']):.2f} points; "
        f"{', '.join(parts)} (steps below {NOISE} points count as noise)."
    )


def _robust(name: str, curve: dict) -> str:
    low, high = CIFAR100_SWEEPS[name][:2]
    ahead = [
        (resmem - mixed, value)
        for value, resmem, mixed in zip(curve["values"], curve["resmem"], curve["interpolation"])
        if low <= value <= high
    ]
    (worst, at_worst), (best, at_best) = min(ahead), max(ahead)
    return (
        f"As {SYMBOLS[name]} moves over the paper's range, ResMem minus interpolation with the λ best there goes from "
        f"{worst:+.2f} points (at {at_worst:g}) to {best:+.2f} (at {at_best:g}); it is positive at "
        f"{sum(difference > 0 for difference, _ in ahead)} of {len(ahead)} values."
    )


def _conservative(main: list[dict]) -> str:
    of = [network["readers"]["resmem_conservative"] for network in main]
    tpr, fpr = (float(np.mean([reader[name] for reader in of])) for name in ("tpr", "fpr"))
    kept = "keeps" if fpr < CIFAR100_CONSERVATIVE["max_fpr"] else "does not keep"
    return (
        f"The conservative rule {kept} its bound on images it was not tuned on: TPR {tpr:.2f} %, FPR {fpr:.2f} %, gain "
        f"{tpr - fpr:+.2f} points."
    )


def _cost(depth: int, found: dict) -> str:
    times, paper = found["milliseconds"], CIFAR100_RESNET8["milliseconds"]
    added, deeper = (100 * (times[name] / times["base"] - 1) for name in ("resmem", "next"))
    printed = [100 * paper["search"] / paper["resnet8"], 100 * (paper["resnet14"] / paper["resnet8"] - 1)]
    less = "less" if times["resmem"] < times["next"] else "more"
    return (
        f"For one image, searched exactly, the memory adds {added:.0f} % to ResNet-{depth}'s time, and "
        f"ResNet-{depth + 6} takes {deeper:.0f} % more than ResNet-{depth} (the paper, from ResNet-8: {printed[0]:.0f} "
        f"% and {printed[1]:.0f} %): ResNet-{depth} with its memory takes {less} than ResNet-{depth + 6} (the paper: "
        f"less). The keys take {found['megabytes']['keys']:.1f} MB (the paper: {CIFAR100_RESNET8['megabytes']} MB)."
    )


def _edges(main: list[dict]) -> list[str]:
    found = sorted({edge for network in main for edge in network["edges"]})
    return [f"Chosen at the edge of what competed, so that a wider grid may find better: {', '.join(found)}."] * bool(
        found
    )


def sign(difference) -> int:
    """1 or -1 where an interval [middle, low, high, ...] excludes 0, else 0; a missing end is unbounded.

    Examples
    --------
    >>> sign([0.5, 0.04, 0.95]), sign([0.1, -0.3, 0.5]), sign([0.2, None, None])
    (1, 0, 0)
    """
    low, high = difference[1:3]
    if low is None or high is None:
        return 0
    return int(low > 0) - int(high < 0)
