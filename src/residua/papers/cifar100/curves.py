"""One network's point on the curves over epochs, depths and shares of the data (Table 1, Figures 2 and 4).

A curve has many networks, so that fewer settings compete here than in the headline's comparison.
"""

import numpy as np

import residua as rs
from residua.papers.cifar100.compare import PAPER, fitting
from residua.papers.cifar100.networks import device_of, encoded
from residua.papers.halves import crossed, paired, percent

# As wide as the headline's where readers choose, so that none is held back: interpolation likes a sharper base.
K = (20, 35, 53, 85, 200)
SIGMA = (0.125, 0.18, 0.25, 0.35, 0.5, 1.0)  # multiples of the typical distance between neighbours
TEMPERATURE = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
LMBDA = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


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
    base = test.logits.argmax().numpy() == test.labels
    rng = np.random.default_rng(0)
    return {
        "n": len(test),
        "memory": len(memory),
        "base": percent(base),
        "train_base": percent(remembered.logits.argmax().numpy() == remembered.labels),
        "train_resmem": percent(published.predict(remembered) == remembered.labels),
        "readers": {
            name: {"accuracy": percent(answer), "gain": list(paired(answer, base, rng)[:3])}
            for name, answer in right.items()
        },
        "difference": list(paired(right["resmem_tuned"], right["interpolation_tuned"], rng)[:3]),
    }
