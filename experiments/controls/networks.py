"""Trained CIFAR-100 networks: their controls, superclasses, agreement with the memory, and keys of other layers."""

import numpy as np

import residua as rs
from experiments.cifar100 import networks
from experiments.cifar100.curves import grid_of
from experiments.cifar100.data import normalise
from experiments.cifar100.headline import fitting, right_of_base
from experiments.cifar100.resnet import load
from experiments.cifar100.superclasses import SUPERCLASS
from experiments.halves import crossed, paired, percent
from experiments.heads import compared
from experiments.machine import device_of

LAYERS = {
    "first convolution": "conv",
    "first block": "blocks.0",
    "second block": "blocks.1",
    "last block (the head's input)": "fc:input",
    "logits": "fc",
}


def compare(weights: str, data: str, device: str) -> dict:
    """``base`` and ``readers`` (name -> accuracy and gain: ResMem tuned, and the controls), in % and points, of one
    network; ``agreement`` and ``superclasses`` as ``rs.evaluate`` gives them, of ResMem at the paper's settings."""
    remembered, test = networks.encoded(weights, data, 1.0, 0, device)
    memory = rs.Memory(remembered, device=device_of(device))
    grid, base, rng = grid_of(memory), right_of_base(test), np.random.default_rng(0)
    tuned = crossed(rs.ResMem(memory, k=1), test, grid)[0] == test.labels
    found = rs.evaluate(rs.ResMem(memory, **fitting(memory)), test, progress=False)
    return {
        "base": percent(base),
        "readers": {"resmem": {"accuracy": percent(tuned), "gain": list(paired(tuned, base, rng)[:3])}}
        | compared(remembered, test, grid, base, rng),
        "agreement": found.agreement,
        "superclasses": found.per_superclass(SUPERCLASS).iloc[-1].to_dict(),
    }


def layer(weights: str, data: str, key: str, images: int, device: str) -> dict:
    """``dim``, and accuracy in % and gain in points of tuned ResMem over keys of one layer, beside those of label k-NN:
    `images` remembered, of every class alike, and the whole test set."""
    model = load(weights).to(device_of(device)).eval()
    step = max(1, len(networks.split(data, "train")[1]) // images)
    remembered, test = (
        rs.encode(model, normalise(pixels[::every]), labels[::every], key=key, batch_size=500, progress=False)
        for (pixels, labels), every in ((networks.split(data, "train"), step), (networks.split(data, "test"), 1))
    )
    memory = rs.Memory(remembered, device=device_of(device))
    grid, base = grid_of(memory), right_of_base(test)
    votes = grid | {"temperature": [1.0], "lmbda": [1.0]}
    own = crossed(rs.ResMem(memory, k=1), test, grid)[0] == test.labels
    label_knn = crossed(rs.KNNLM(memory, k=1, lmbda=1.0, kernel="exponential"), test, votes, refusable=False)[0]
    return {
        "dim": memory.dim,
        "memory": len(memory),
        "base": percent(base),
        "resmem": percent(own),
        "gain": list(paired(own, base, np.random.default_rng(0))[:3]),
        "label_knn": percent(label_knn == test.labels),
    }
