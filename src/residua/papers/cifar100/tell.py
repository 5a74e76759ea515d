"""CIFAR-100 in tables: the paper beside ours."""

import numpy as np

from residua.papers.cifar100.findings import findings
from residua.papers.cifar100.sweeps import dip, spread
from residua.papers.cifar100.tell_curves import curve_findings, tables
from residua.papers.intervals import over_all
from residua.papers.published import CIFAR100_CONSERVATIVE, CIFAR100_RESNET8, CIFAR100_SWEEPS
from residua.papers.shown import interval, mean, p_value, settings
from residua.papers.table import Table

NAMES = {
    "resmem_paper": "ResMem, paper's settings",
    "label_knn_paper": "label k-NN, same k, σ",
    "interpolation_paper": "interpolation, same k, σ, T, tuned λ",
    "resmem_tuned": "ResMem, tuned",
    "label_knn_tuned": "label k-NN, tuned",
    "interpolation_tuned": "interpolation, tuned",
    "resmem_gaussian": "ResMem, gaussian kernel, tuned",
    "interpolation_gaussian": "interpolation, gaussian kernel, tuned",
    "resmem_conservative": f"ResMem, conservative (FPR < {CIFAR100_CONSERVATIVE['max_fpr']:g} %)",
}
MEMBERS = {
    "interpolation": "interpolation: b = 0",
    "resmem": "ResMem: a = b = 1",
    "scaled_resmem": "scaled residuals: a = b",
    "full_cancelling": "b = 1, a free",
    "free": "a and b free",
}


def tell(results: dict) -> list[str | Table]:
    """Paragraphs and tables from what ``plan.run`` returned."""
    main = results["networks"]
    first = main[0]
    return [
        _setting(results, main),
        _headline(main),
        _rates(main),
        "**Against the alternatives**",
        _pairs(main),
        *tables(results["points"], results["epochs"]),
        "**Figure 5: one setting moved at a time around the paper's**",
        _sweeps(results["sweeps"]),
        "**Where tuned ResMem gains, and where it and tuned interpolation differ**",
        _groups(first["groups"]),
        "**What separates them.** With v the neighbours' label vote and q the weighted mean of what the base says at "
        "the neighbours, scores = p + a v - b q; ResMem is a = b = 1, interpolation b = 0. Each is tuned like the "
        "others.",
        _family(results["family"]),
        "**What one image costs**",
        _latency(first["depth"], results["latency"]),
        "**What this says.**",
        "\n".join(f"- {line}" for line in [*findings(results, main), *curve_findings(results["points"])]),
    ]


def _setting(results: dict, main: list[dict]) -> str:
    one = main[0]
    epochs = f"{results['epochs']} epochs" if results["epochs"] else "an unknown number of epochs"
    where = "trained before and given" if results["given"] else "trained by this command"
    scale = "" if results["epochs"] == 256 else " (the paper: 256; every epoch mark of its schedule scaled)"
    over = "test images" if len(main) == 1 else "networks"
    hours = sum(sum(training["seconds"]) for training in results["trainings"]) / 3600
    trainings = f" The {len(results['trainings'])} trainings took {hours:.1f} hours in all, resumed ones included."
    return (
        f"CIFAR-ResNet-{one['depth']}, {len(main)} network{'s' * (len(main) > 1)}, {where}, {epochs}{scale}; weight "
        "decay and augmentation, which the paper does not give, are 1e-4 and crops with flips. The memory holds the "
        f"{one['memory']:,} training images' 64-d keys, searched exactly; all {one['n']:,} test images are answered. "
        f"Paper's settings: {settings(CIFAR100_RESNET8['settings'])}. *Tuned*: the even rows of the test set with the "
        "settings best on the odd ones, and the reverse, over one grid of k, σ and T for all. Intervals are 95 %, "
        f"paired, over {over}.{trainings if results['trainings'] else ''}"
    )


def _headline(main: list[dict]) -> Table:
    paper = CIFAR100_RESNET8
    over_seeds = {name: "{} ± {}".format(*paper[f"{name}_over_seeds"]) for name in ("base", "resmem")}
    published = {
        "base": f"{paper['base']} (5 seeds: {over_seeds['base']})",
        "resmem_paper": f"{paper['resmem']} (5 seeds: {over_seeds['resmem']})",
        "label_knn_paper": f"{paper['label_knn']}",
    }
    rows = [["base", published["base"], mean([n["base"] for n in main]), "", ""]]
    for name, shown in NAMES.items():
        of = [network["readers"][name] for network in main]
        accuracy = mean([reader["accuracy"] for reader in of])
        used = settings(of[0]["settings"]) if len(of) == 1 else ""
        gain = interval(over_all([reader["gain"] for reader in of]))
        rows.append([shown, published.get(name, ""), accuracy, gain, used])
    return Table(("accuracy, %", "paper", "ours", "over the base, points", "settings (even rows; odd rows)"), rows)


def _rates(main: list[dict]) -> Table:
    paper = CIFAR100_RESNET8

    def of(name: str) -> list[str]:
        kinds = ("resmem_paper", "resmem_tuned", "resmem_conservative")
        return [mean([network["readers"][kind][name] for network in main]) for kind in kinds]

    rows = [
        ["TPR: wrong before, right now", f"{paper['tpr']:.2f}", *of("tpr")],
        ["FPR: right before, wrong now", f"{paper['fpr']:.2f}", *of("fpr")],
        ["training accuracy, base", "", mean([n["train_base"] for n in main]), "", ""],
        ["training accuracy, ResMem", f"{paper['train_resmem']:g}", mean([n["train_resmem"] for n in main]), "", ""],
    ]
    return Table(("%", "paper", "ours, paper's settings", "tuned", "conservative"), rows)


def _pairs(main: list[dict]) -> Table:
    rows = []
    for i, (one, other, *found) in enumerate(main[0]["pairs"]):
        p = p_value(found[3]) if len(main) == 1 else ""
        difference = over_all([network["pairs"][i][2:] for network in main])
        rows.append([f"{NAMES[one]} - {NAMES[other]}", interval(difference), p])
    return Table(("difference", "points", "McNemar's p"), rows)


def _sweeps(swept: dict) -> Table:
    rows = []
    for name, shown in (("k", "k"), ("sigma", "σ"), ("temperature", "T")):
        low, high, says = CIFAR100_SWEEPS[name]
        curve = swept[name]
        best = int(np.argmax(curve["resmem"]))
        at = f"{curve['resmem'][best]:.2f} at {curve['values'][best]:g}"
        moved, against = f"{spread(name, curve):.2f}", f"{dip(curve['resmem']):.2f}"
        rows.append([f"{shown} in {low:g}-{high:g}", says, moved, at, against])
    columns = ("", "paper says", "ours: highest - lowest, points", "best", "largest step against one peak, points")
    return Table(columns, rows)


def _groups(found: list[dict]) -> Table:
    rows = []
    for group in found:
        accuracies = [f"{group[name]:.1f}" for name in ("base", "resmem", "interpolation")]
        differences = [interval(group[name][:3]) for name in ("gain", "difference")]
        rows.append([f"{group['by']}: {group['group']}", f"{group['share']:.1f}", *accuracies, *differences])
    columns = (
        "test images by",
        "share, %",
        "base",
        "ResMem",
        "interpolation",
        "ResMem - base, points",
        "- interpolation",
    )
    return Table(columns, rows)


def _family(found: list[dict]) -> Table:
    rows = []
    for one in found:
        for name, shown in MEMBERS.items():
            member = one["members"][name]
            over = "" if name == "interpolation" else interval(member["over_interpolation"][:3])
            chosen = "; ".join(f"k {k:g}, σ {s:.2f}, T {t:g}, a {a:g}, b {b:g}" for k, s, t, a, b in member["chosen"])
            rows.append([f"{one['kernel']}, {shown}", f"{member['accuracy']:.2f}", over, chosen])
    return Table(("kernel", "accuracy, %", "over interpolation, points", "chosen (even rows; odd rows)"), rows)


def _latency(depth: int, found: dict) -> Table:
    paper, ours = CIFAR100_RESNET8["milliseconds"], found["milliseconds"]
    parameters = {name: f"{count:,}" for name, count in found["parameters"].items()}
    both = paper["resnet8"] + paper["search"]
    rows = [
        [f"ResNet-{depth}, {parameters['base']} parameters", f"{paper['resnet8']}", f"{ours['base']:.2f}"],
        [f"ResNet-{depth} with its memory", f"{both:.1f}", f"{ours['resmem']:.2f}"],
        [f"ResNet-{depth + 6}, {parameters['next']} parameters", f"{paper['resnet14']}", f"{ours['next']:.2f}"],
    ]
    threads = "1 CPU thread" if found["threads"] == 1 else f"{found['threads']} CPU threads"
    return Table((f"milliseconds an image, on {threads}", "paper (ResNet-8, 14)", "ours"), rows)
