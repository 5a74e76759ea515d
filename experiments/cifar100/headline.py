"""Section 4.2's headline: one network's test set, answered by the base, ResMem, label k-NN and k-NN interpolation.

Each reader answers at the paper's settings, and tuned. What is tuned never sees the rows it answers: the even rows of
the test set are answered with the settings best on the odd ones, and the reverse. All answer the same 10 000 images, so
differences are paired.
"""

import numpy as np
from matplotlib.axes import Axes

import residua as rs
from experiments import heads
from experiments.cifar100.groups import groups
from experiments.cifar100.networks import encoded, remembered_images, split
from experiments.figures import KNN, MIXED, RESMEM, dot_rows
from experiments.halves import crossed, paired, percent
from experiments.intervals import over_all
from experiments.machine import device_of
from experiments.published import CIFAR100_CONSERVATIVE, CIFAR100_RESNET8
from experiments.shown import interval, mean, p_value, settings
from experiments.table import Table

PAPER = CIFAR100_RESNET8["settings"]
MAX_FPR = CIFAR100_CONSERVATIVE["max_fpr"] / 100
K = (3, 5, 10, 20, 35, 53, 85, 130, 200, 350, 500)
# Multiples of the typical distance between neighbours (squared for the gaussian kernel): wide enough that the best
# widths are inside.
SIGMA = {"exponential": 2.0 ** np.arange(-5, 0.5, 0.5), "gaussian": 2.0 ** np.arange(-3.5, 1, 0.5)}
TEMPERATURE = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
LMBDA = tuple(round(0.05 * i, 2) for i in range(1, 21))
COARSE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

NAMES = {
    "resmem_paper": "ResMem, paper's settings",
    "label_knn_paper": "label k-NN, same k, σ",
    "interpolation_paper": "interpolation, same k, σ, T, tuned λ",
    "resmem_tuned": "ResMem, tuned",
    "label_knn_tuned": "label k-NN, tuned",
    "interpolation_tuned": "interpolation, tuned",
    "resmem_gaussian": "ResMem, gaussian kernel, tuned",
    "interpolation_gaussian": "interpolation, gaussian kernel, tuned",
    "resmem_conservative": f"ResMem, conservative (FPR < {100 * MAX_FPR:g} %)",
}
COLOURS = {"resmem": RESMEM, "label": KNN, "interpolation": MIXED}  # by how a name begins
# The differences that answer the paper's claims, and its doubters.
PAIRS = (
    ("resmem_paper", "label_knn_paper"),
    ("resmem_paper", "interpolation_paper"),
    ("resmem_tuned", "resmem_paper"),
    ("resmem_tuned", "label_knn_tuned"),
    ("resmem_tuned", "interpolation_tuned"),
    ("resmem_gaussian", "interpolation_gaussian"),
)


def compare(weights: str, data: str, fraction: float, seed: int, device: str) -> dict:
    """Everyone's answers on one network.

    What ``about`` gives, ``readers`` (name -> accuracy, tpr, fpr, gain [mean, low, high] in % and points, p_value of
    the gain, settings: one dict, or the two halves'), ``pairs`` ([name, name, mean, low, high, p_value]), and ``edges``
    and ``groups`` (see there).
    """
    remembered, test = encoded(weights, data, fraction, seed, device)
    memory = rs.Memory(remembered, device=device_of(device))
    base = right_of_base(test)
    rng = np.random.default_rng(0)
    right, readers = {}, {}
    for name, (predicted, chosen) in answers(memory, test).items():
        right[name] = own = predicted == test.labels
        *gain, p = paired(own, base, rng)
        rates = {"accuracy": percent(own), "tpr": percent(own & ~base), "fpr": percent(base & ~own)}
        readers[name] = {**rates, "gain": gain, "p_value": p, "settings": chosen}
    reader = rs.ResMem(memory, **fitting(memory))
    images = remembered_images(data, fraction, seed)[0], split(data, "test")[0]
    return {
        **about(reader, remembered, test),
        "readers": readers,
        "controls": heads.compared(remembered, test, grid_of(memory), base, rng),
        "edges": edges(memory, readers),
        "pairs": [[one, other, *paired(right[one], right[other], rng)] for one, other in PAIRS],
        "groups": groups(reader, test, images, base, right["resmem_tuned"], right["interpolation_tuned"]),
    }


def about(reader: rs.ResMem, remembered: rs.Encoded, test: rs.Encoded) -> dict:
    """``n``, ``memory`` (rows), and in % ``base``, ``train_base`` and ``train_resmem`` (the reader's)."""
    return {
        "n": len(test),
        "memory": len(remembered),
        "base": percent(right_of_base(test)),
        "train_base": percent(right_of_base(remembered)),
        "train_resmem": percent(reader.predict(remembered) == remembered.labels),
    }


def right_of_base(data: rs.Encoded) -> np.ndarray:
    """Which rows the base answers rightly."""
    return data.logits.argmax().numpy() == data.labels


def answers(memory: rs.Memory, test: rs.Encoded) -> dict:
    """Every reader's predictions, and the settings it used."""
    used, grid, wide = fitting(memory), grid_of(memory), grid_of(memory, "gaussian")
    resmem, mixed = rs.ResMem(memory, k=1), rs.KNNLM(memory, k=1, kernel="exponential")
    labels = mixed.with_params(lmbda=1.0)
    votes = grid | {"temperature": [1.0], "lmbda": [1.0]}
    alone = {"lmbda": LMBDA, **{name: [value] for name, value in used.items()}}
    return {
        "resmem_paper": (rs.ResMem(memory, **used).predict(test), used),
        "label_knn_paper": (labels.with_params(**used).predict(test), used),
        "interpolation_paper": crossed(mixed.with_params(**used), test, alone),
        "resmem_tuned": crossed(resmem, test, grid),
        "label_knn_tuned": crossed(labels, test, votes, refusable=False),
        "interpolation_tuned": crossed(mixed, test, grid | {"lmbda": COARSE}),
        "resmem_gaussian": crossed(rs.ResMem(memory, k=1, kernel="gaussian"), test, wide),
        "interpolation_gaussian": crossed(rs.KNNLM(memory, k=1), test, wide | {"lmbda": COARSE}),
        "resmem_conservative": crossed(resmem, test, grid, objective="conservative", max_fpr=MAX_FPR),
    }


def grid_of(memory: rs.Memory, kernel: str = "exponential") -> dict:
    """The values that compete for every reader of one kernel alike: the paper's own among them."""
    sigma = memory.median_nn_distance() * SIGMA[kernel]
    sigma = sigma**2 if kernel == "gaussian" else np.unique([*sigma, PAPER["sigma"]])
    return {"k": [k for k in K if k <= len(memory)], "sigma": sigma, "temperature": TEMPERATURE}


def fitting(memory: rs.Memory) -> dict:
    """The paper's settings, its k within the memory."""
    return {**PAPER, "k": min(PAPER["k"], len(memory))}


def edges(memory: rs.Memory, readers: dict) -> list[str]:
    """Tuned readers whose σ or T is the smallest or largest that competed: a wider grid may find better ones."""
    out = []
    for name, reader in readers.items():
        grid = grid_of(memory, "gaussian" if name.endswith("gaussian") else "exponential")
        halves = reader["settings"] if isinstance(reader["settings"], list) else []
        for parameter in ("sigma", "temperature"):
            ends = (min(grid[parameter]), max(grid[parameter]))
            if any(half["k"] and half[parameter] in ends for half in halves):
                out.append(f"{name}: {parameter}")
    return out


def accuracy_table(main: list[dict]) -> Table:
    """Accuracies, of several networks their mean ± standard deviation, the paper's beside them."""
    paper = CIFAR100_RESNET8
    seeds = "{} (5 seeds: {} ± {})"
    published = {
        "base": seeds.format(paper["base"], *paper["base_over_seeds"]),
        "resmem_paper": seeds.format(paper["resmem"], *paper["resmem_over_seeds"]),
        "label_knn_paper": f"{paper['label_knn']}",
    }
    rows = [["base", published["base"], mean([network["base"] for network in main]), "", ""]]
    for name, label in heads.NAMES.items() if all("controls" in network for network in main) else ():  # records of 0.1
        of = [network["controls"][name] for network in main]
        gain = interval(over_all([control["gain"] for control in of]))
        rows.append([label, "", mean([control["accuracy"] for control in of]), gain, ""])
    for name, label in NAMES.items():
        of = [network["readers"][name] for network in main]
        used = settings(of[0]["settings"]) if len(of) == 1 else ""
        gain = interval(over_all([reader["gain"] for reader in of]))
        rows.append([label, published.get(name, ""), mean([reader["accuracy"] for reader in of]), gain, used])
    return Table(("accuracy, %", "paper", "ours", "over the base, points", "settings (even rows; odd rows)"), rows)


def rates_table(main: list[dict]) -> Table:
    """How many answers are put right and spoilt, and the training accuracy."""
    paper, kinds = CIFAR100_RESNET8, ("resmem_paper", "resmem_tuned", "resmem_conservative")

    def of(name: str) -> list[str]:
        return [mean([network["readers"][kind][name] for network in main]) for kind in kinds]

    rows = [
        ["TPR: wrong before, right now", f"{paper['tpr']:.2f}", *of("tpr")],
        ["FPR: right before, wrong now", f"{paper['fpr']:.2f}", *of("fpr")],
        ["training accuracy, base", "", mean([n["train_base"] for n in main]), "", ""],
        ["training accuracy, ResMem", f"{paper['train_resmem']:g}", mean([n["train_resmem"] for n in main]), "", ""],
    ]
    return Table(("%", "paper", "ours, paper's settings", "tuned", "conservative"), rows)


def pairs_table(main: list[dict]) -> Table:
    """Paired differences between readers."""
    rows = []
    for i, (one, other, *found) in enumerate(main[0]["pairs"]):
        p = p_value(found[3]) if len(main) == 1 else ""
        difference = over_all([network["pairs"][i][2:] for network in main])
        rows.append([f"{NAMES[one]} - {NAMES[other]}", interval(difference), p])
    return Table(("difference", "points", "McNemar's p"), rows)


def panel(axes: Axes, main: list[dict]) -> None:
    """What each reader adds to its base, in points, with the accuracy; the paper's beside."""
    paper = CIFAR100_RESNET8
    published = {  # points over the base, and accuracy
        "label_knn_paper": (paper["label_knn"] - paper["base"], paper["label_knn"]),
        "resmem_paper": (paper["gain"], paper["resmem"]),
    }

    def words(gain: float, accuracy: float) -> str:
        return f"{gain:+.2f}: {accuracy:.2f} %"

    rows = []
    for name, label in NAMES.items():
        readers = [network["readers"][name] for network in main]
        accuracy, gain = np.mean([reader["accuracy"] for reader in readers]), over_all([r["gain"] for r in readers])
        printed = (published[name][0], words(*published[name])) if name in published else None
        rows.append((label, gain, COLOURS[name.partition("_")[0]], words(gain[0], accuracy), printed))
    dot_rows(axes, rows)
    title = f"Base {np.mean([network['base'] for network in main]):.2f} % (the paper's {paper['base']} %)"
    axes.set(xlabel="test accuracy over the base's, points (diamonds: the paper's)", title=title)
