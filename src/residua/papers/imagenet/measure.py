"""ResMem on ImageNet's validation images, from a memory of the training images."""

import re
from pathlib import Path

import numpy as np

import residua as rs
from residua.errors import ParameterError
from residua.papers.cifar100.networks import device_of
from residua.papers.halves import crossed, paired, percent
from residua.papers.imagenet.folder import Images, listing
from residua.papers.imagenet.models import load_model
from residua.papers.imagenet.shards import encode_shards, gathered, load_shards
from residua.papers.published import IMAGENET_MOBILENET_V2
from residua.papers.work import Work

K = (5, 10, 20, 30, 50, 100)
SIGMA = 2.0 ** np.arange(-3, 3)  # multiples of the typical distance between neighbours
TEMPERATURE = (0.4, 0.6, 0.8, 1.0, 1.4, 2.0)
LMBDA = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7)


def run(
    work: Work,
    *,
    data: str,
    model: str,
    weights: str,
    alpha: float,
    shards: str,
    shard_rows: int,
    batch_size: int,
    workers: int,
    index: str,
    device: str,
) -> dict:
    """Encode (resumably), remember, answer.

    Raises
    ------
    ParameterError
        When Table 2 has no such width.
    MemoryFileError, MissingDependencyError
        When the folder is not in ImageNet's layout; when the model's library does not load.
    """
    if alpha not in IMAGENET_MOBILENET_V2.values:
        raise ParameterError(
            f"alpha={alpha}; expected a width of Table 2: {', '.join(map(str, IMAGENET_MOBILENET_V2.values))}"
        )
    cell = (data, model, weights, alpha, shards, shard_rows, batch_size, workers, index, device)
    return work.map(measure, [cell], desc="imagenet")[0]


def measure(
    data: str,
    model: str,
    weights: str,
    alpha: float,
    shards: str,
    shard_rows: int,
    batch_size: int,
    workers: int,
    index: str,
    device: str,
) -> dict:
    """Base, ResMem at the paper's settings for this width, and ResMem and k-NN interpolation tuned.

    Returns
    -------
    dict
        ``model``, ``weights``, ``alpha``, ``classes``, ``train``, ``n`` (images), ``dim``, ``base`` (%) and ``readers``
        (name -> accuracy, tpr, fpr, gain [points, low, high], p_value, settings).
    """
    train = listing(Path(data) / "train")
    val = listing(Path(data) / "val", train.classes)
    module, preprocessing = load_model(model, weights)
    module.to(device_of(device))
    folder = Path(shards) / re.sub(r"[^\w.-]+", "-", f"{model}-{Path(weights).name}")
    options = {"rows": shard_rows, "batch_size": batch_size, "workers": workers}
    remembered, asked = (
        encode_shards(module, Images(images, preprocessing), folder / name, **options)
        for name, images in (("train", train), ("val", val))
    )
    test = gathered(asked)
    storage = "full" if test.head is None else "head"
    memory = rs.Memory(load_shards(remembered), index=index, storage=storage, device=device_of(device))
    base = test.logits.argmax().numpy() == test.labels
    rng = np.random.default_rng(0)
    readers = {}
    for name, (predicted, settings) in _answers(memory, test, alpha).items():
        right = predicted == test.labels
        gain, low, high, p = paired(right, base, rng)
        readers[name] = {
            "accuracy": percent(right),
            "tpr": percent(right & ~base),
            "fpr": percent(base & ~right),
            "gain": [gain, low, high],
            "p_value": p,
            "settings": settings,
        }
    return {
        "model": model,
        "weights": weights if weights in ("pretrained", "random") else "given",
        "alpha": alpha,
        "classes": len(train.classes),
        "train": len(memory),
        "n": len(test),
        "dim": test.dim,
        "base": percent(base),
        "readers": readers,
    }


def _answers(memory: rs.Memory, test: rs.Encoded, alpha: float) -> dict:
    """Reader -> (predictions, settings)."""
    settings = {name: IMAGENET_MOBILENET_V2[alpha][name] for name in ("k", "sigma", "temperature")}
    settings["k"] = min(settings["k"], len(memory))
    grid = {
        "k": sorted({min(k, len(memory)) for k in K}),
        "sigma": np.unique([*(memory.median_nn_distance() * SIGMA), settings["sigma"]]),
        "temperature": TEMPERATURE,
    }
    mixed = rs.KNNLM(memory, k=1, kernel="exponential")
    return {
        "resmem_paper": (rs.ResMem(memory, **settings).predict(test), settings),
        "resmem_tuned": crossed(rs.ResMem(memory, k=1), test, grid),
        "interpolation_tuned": crossed(mixed, test, {**grid, "lmbda": LMBDA}),
    }
