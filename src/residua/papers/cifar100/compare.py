"""One network's test set, answered by everyone: the base, ResMem, label k-NN, k-NN interpolation.

Each reader answers at the paper's settings, and tuned. What is tuned never sees the rows it answers: the even rows of
the test set are answered with the settings best on the odd ones, and the reverse. All answer the same 10 000 images, so
differences are paired.
"""

import numpy as np

import residua as rs
from residua.papers.cifar100.groups import groups
from residua.papers.cifar100.networks import device_of, encoded, split, training_images
from residua.papers.halves import crossed, paired, percent
from residua.papers.published import CIFAR100_CONSERVATIVE, CIFAR100_RESNET8

PAPER = CIFAR100_RESNET8["settings"]
MAX_FPR = CIFAR100_CONSERVATIVE["max_fpr"] / 100
K = (3, 5, 10, 20, 35, 53, 85, 130, 200, 350, 500)
# Multiples of the typical distance between neighbours (squared for the gaussian kernel): wide enough that the best
# widths are inside.
SIGMA = {"exponential": 2.0 ** np.arange(-5, 0.5, 0.5), "gaussian": 2.0 ** np.arange(-3.5, 1, 0.5)}
TEMPERATURE = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
LMBDA = tuple(round(0.05 * i, 2) for i in range(1, 21))
COARSE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

# The differences that answer the paper's claims, and its doubters.
PAIRS = (
    ("resmem_paper", "label_knn_paper"),
    ("resmem_paper", "interpolation_paper"),
    ("resmem_tuned", "resmem_paper"),
    ("resmem_tuned", "label_knn_tuned"),
    ("resmem_tuned", "interpolation_tuned"),
    ("resmem_gaussian", "interpolation_gaussian"),
)


def measure(weights: str, data: str, fraction: float, seed: int, device: str) -> dict:
    """Everyone's answers on one network.

    Returns
    -------
    dict
        ``n``, ``memory`` (rows), ``base``, ``train_base``, ``train_resmem`` (at the paper's settings, %), ``readers``
        (name -> accuracy, tpr, fpr, gain [mean, low, high] in % and points, p_value of the gain, settings: one dict, or
        the two halves'), ``pairs`` ([name, name, mean, low, high, p_value]), and ``edges`` and ``groups`` (see there).
    """
    remembered, test = encoded(weights, data, fraction, seed, device)
    memory = rs.Memory(remembered, device=device_of(device))
    base = test.logits.argmax().numpy() == test.labels
    answers = {name: answer(memory, test) for name, answer in READERS.items()}
    right = {name: predicted == test.labels for name, (predicted, _) in answers.items()}
    rng = np.random.default_rng(0)
    readers = {}
    for name, (_, settings) in answers.items():
        gain, low, high, p = paired(right[name], base, rng)
        readers[name] = {
            "accuracy": percent(right[name]),
            "tpr": percent(right[name] & ~base),
            "fpr": percent(base & ~right[name]),
            "gain": [gain, low, high],
            "p_value": p,
            "settings": settings,
        }
    reader = rs.ResMem(memory, **fitting(memory))
    again = reader.predict(remembered)
    images = training_images(data, fraction, seed), split(data, "test")[0]
    return {
        "n": len(test),
        "memory": len(memory),
        "base": percent(base),
        "train_base": percent(remembered.logits.argmax().numpy() == remembered.labels),
        "train_resmem": percent(again == remembered.labels),
        "readers": readers,
        "edges": edges(memory, readers),
        "pairs": [[one, other, *paired(right[one], right[other], rng)] for one, other in PAIRS],
        "groups": groups(reader, test, images, base, right["resmem_tuned"], right["interpolation_tuned"]),
    }


def grid_of(memory: rs.Memory, kernel: str = "exponential", **more) -> dict:
    """The values that compete for every reader of one kernel alike: the paper's own among them."""
    sigma = memory.median_nn_distance() * SIGMA[kernel]
    sigma = sigma**2 if kernel == "gaussian" else np.unique([*sigma, PAPER["sigma"]])
    return {"k": [k for k in K if k <= len(memory)], "sigma": sigma, "temperature": TEMPERATURE, **more}


def fitting(memory: rs.Memory) -> dict:
    """The paper's settings, its k within the memory."""
    return {**PAPER, "k": min(PAPER["k"], len(memory))}


def _resmem_paper(memory, test):
    return rs.ResMem(memory, **fitting(memory)).predict(test), fitting(memory)


def _label_knn_paper(memory, test):
    settings = fitting(memory)
    return rs.KNNLM(memory, lmbda=1.0, kernel="exponential", **settings).predict(test), settings


def _interpolation_paper(memory, test):
    settings = fitting(memory)
    reader = rs.KNNLM(memory, kernel="exponential", **settings)
    return crossed(reader, test, {"lmbda": LMBDA, **{name: [value] for name, value in settings.items()}})


def _resmem_tuned(memory, test):
    return crossed(rs.ResMem(memory, k=1), test, grid_of(memory))


def _label_knn_tuned(memory, test):
    reader = rs.KNNLM(memory, k=1, lmbda=1.0, kernel="exponential")
    return crossed(reader, test, grid_of(memory, lmbda=[1.0]) | {"temperature": [1.0]}, refusable=False)


def _interpolation_tuned(memory, test):
    reader = rs.KNNLM(memory, k=1, kernel="exponential")
    return crossed(reader, test, grid_of(memory, lmbda=COARSE))


def _resmem_gaussian(memory, test):
    return crossed(rs.ResMem(memory, k=1, kernel="gaussian"), test, grid_of(memory, "gaussian"))


def _interpolation_gaussian(memory, test):
    return crossed(rs.KNNLM(memory, k=1), test, grid_of(memory, "gaussian", lmbda=COARSE))


def _resmem_conservative(memory, test):
    return crossed(rs.ResMem(memory, k=1), test, grid_of(memory), objective="conservative", max_fpr=MAX_FPR)


READERS = {
    "resmem_paper": _resmem_paper,
    "label_knn_paper": _label_knn_paper,
    "interpolation_paper": _interpolation_paper,
    "resmem_tuned": _resmem_tuned,
    "label_knn_tuned": _label_knn_tuned,
    "interpolation_tuned": _interpolation_tuned,
    "resmem_gaussian": _resmem_gaussian,
    "interpolation_gaussian": _interpolation_gaussian,
    "resmem_conservative": _resmem_conservative,
}


def edges(memory: rs.Memory, readers: dict) -> list[str]:
    """Tuned readers whose σ or T is the smallest or largest that competed: a wider grid may find better ones."""
    out = []
    for name, reader in readers.items():
        grid = grid_of(memory, "gaussian" if name.endswith("gaussian") else "exponential")
        for parameter in ("sigma", "temperature"):
            ends = (min(grid[parameter]), max(grid[parameter]))
            settings = reader["settings"] if isinstance(reader["settings"], list) else []
            if any(half["k"] and half[parameter] in ends for half in settings):
                out.append(f"{name}: {parameter}")
    return out
