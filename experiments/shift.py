"""Covariate shift: a source memory, and a few labelled target rows added to it, on corrupted CIFAR-100 images."""

import io
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

import residua as rs
from experiments import heads
from experiments.cifar100 import networks
from experiments.cifar100.data import normalise
from experiments.cifar100.recipe import subset
from experiments.cifar100.resnet import load
from experiments.figures import BASE, DARK, INK, KNN, MIXED, RESMEM, dot, legend_below, panels
from experiments.halves import paired, percent
from experiments.machine import device_of
from experiments.shown import interval
from experiments.table import Table
from experiments.work import Work
from residua.core import Encoded
from residua.errors import ParameterError

QUALITY, RADIUS, NOISE = 10, 1.0, 25.0  # of JPEG; of the Gaussian blur, in pixels; standard deviation, of 255
KINDS = {"jpeg": f"JPEG, quality {QUALITY}", "blur": f"blur, {RADIUS:g} pixel", "noise": f"noise, sd {NOISE:g}"}
SHARES = (0.0, 0.01, 0.1)  # of the training images, corrupted, that are remembered beside the clean ones
K, SIGMA, LMBDA = (10, 20, 50, 100, 200), 2.0 ** np.arange(-3, 1), (0.2, 0.4, 0.6, 0.8)
TEMPERATURE = (1.0, 1.4, 2.0)
FEATURES = 1000  # of RanPAC
STAGES = ("jpeg", "blur", "noise") * 2
HALF_LIVES = (0.5, 1.0, 2.0)  # in stages

NAMES = {
    "base": "the network",
    "temperature": "its temperature alone",
    "head_target": "linear head, fitted to the target rows",
    "head_all": "linear head, fitted again to all rows",
    "resmem": "ResMem",
    "knnlm": "k-NN interpolation",
    "pooled": "pooled",
    "ranpac": "RanPAC, `fit`",
}

READERS = ("resmem", "knnlm", "pooled", "ranpac")


def measure(
    work: Work,
    *,
    weights: str = "",
    data: str = "data",
    download: bool = False,
    images: int = 2500,
    clean_rows: int = 10_000,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Every corruption with every amount of target rows; and a stream whose corruption changes.

    Parameters
    ----------
    weights : str
        A trained CIFAR-ResNet (.safetensors, or its folder).
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    images : int
        Test images, the same share of each class.
    clean_rows : int
        Training images that are remembered as they are.
    device : str
        Where network and memories live.
    """
    if not weights:
        raise ParameterError("weights is empty; expected a trained network's file, such as cifar100 leaves")
    networks.split(data, "train", download)
    about = (weights, data, images, clean_rows, device)
    cells = [(kind, share, *about) for kind in KINDS for share in SHARES]
    found = work.map(compare, cells, desc="shift")
    return {
        "images": images,
        "clean_rows": clean_rows,
        "clean": work.map(clean, [about], desc="clean")[0],
        "cells": [{"kind": kind, "share": share, **one} for (kind, share, *_), one in zip(cells, found)],
        "stream": work.map(stream, [about], desc="stream")[0],
    }


def corrupted(images: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Images uint8 (n, h, w, 3) after one of `KINDS`, of the same shape; noise is drawn from the seed.

    >>> images = np.zeros((2, 32, 32, 3), np.uint8)
    >>> int(corrupted(images, "blur", 0).max()), bool(corrupted(images, "noise", 0).any())
    (0, True)
    """
    from PIL import Image, ImageFilter

    if kind == "noise":
        drawn = np.random.default_rng(seed).normal(scale=NOISE, size=images.shape)
        return (images + drawn).round().clip(0, 255).astype(np.uint8)
    out = np.empty_like(images)
    for place, image in enumerate(map(Image.fromarray, images)):
        if kind == "blur":
            changed = image.filter(ImageFilter.GaussianBlur(RADIUS))
        else:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=QUALITY)
            changed = Image.open(file)
        out[place] = np.asarray(changed)
    return out


@lru_cache(maxsize=8)
def encoded(weights: str, data: str, part: str, kind: str, count: int, device: str) -> Encoded:
    """So many images of a split, the same share of each class, as they are or of a `kind`."""
    images, labels = networks.split(data, part)
    rows = subset(labels, count / len(labels), 0)
    images = images[rows] if kind == "clean" else corrupted(images[rows], kind, 1 + (part == "train"))
    model = load(weights).to(device_of(device), memory_format=torch.channels_last)
    return rs.encode(model, normalise(images), labels[rows], batch_size=networks.BATCH, progress=False)


def clean(weights: str, data: str, images: int, clean_rows: int, device: str) -> float:
    """The network's accuracy on the images as they are, in %."""
    test = encoded(weights, data, "test", "clean", images, device)
    return percent(test.logits.argmax().numpy() == test.labels)


def compare(kind: str, share: float, weights: str, data: str, images: int, clean_rows: int, device: str) -> dict:
    """Of every reader its ``accuracy`` (%), ``log_loss``, and ``gain`` over the network, [points, low, high]; ``over``:
    the same of readers beside the better of both heads."""
    source = encoded(weights, data, "train", "clean", clean_rows, device)
    test = encoded(weights, data, "test", kind, images, device)
    memory, target = rs.Memory(source, device=device_of(device)), None
    if share:
        most = encoded(weights, data, "train", kind, round(max(SHARES) * len(networks.split(data, "train")[1])), device)
        target = most[np.sort(subset(most.labels, share / max(SHARES), 1))]
        memory.add(target)
    found = probabilities(memory, target, test)
    rng, right = np.random.default_rng(0), {n: p.argmax(axis=1) == test.labels for n, p in found.items()}
    best = max((name for name in right if name.startswith("head")), key=lambda name: right[name].mean())
    return {
        "rows": 0 if target is None else len(target),
        "readers": {
            name: {
                "accuracy": percent(right[name]),
                "log_loss": float(-np.log(np.maximum(p[np.arange(len(p)), test.labels], 1e-12)).mean()),
                "gain": list(paired(right[name], right["base"], rng)[:3]),
                "over": list(paired(right[name], right[best], rng)[:3]),
            }
            for name, p in found.items()
        },
    }


def probabilities(memory: rs.Memory, target: Encoded | None, test: Encoded) -> dict[str, np.ndarray]:
    """What each reader says of the test rows, (n, L), by settings chosen on the other half of them."""
    alone = rs.ResMem(memory, k=0)
    found = {"base": alone.predict_proba(test), "temperature": tuned(alone, test, {"k": [0]}, "log_loss")}
    if target is not None:
        found["head_target"] = spoken(target.keys, target.labels, test)
    found["head_all"] = spoken(memory.keys, memory.labels, test)
    grid = {"k": K, "sigma": memory.median_nn_distance() * SIGMA, "temperature": TEMPERATURE}
    found["resmem"] = tuned(rs.ResMem(memory), test, grid)
    found["knnlm"] = tuned(rs.KNNLM(memory, kernel="exponential"), test, grid | {"lmbda": LMBDA})
    ranpac = rs.RanPAC(memory, FEATURES)
    for name, make in (("pooled", lambda: rs.Pooled(memory)), ("ranpac", ranpac.with_params)):
        found[name] = np.empty_like(found["base"])
        for half in (0, 1):
            found[name][half::2] = make().fit(test[1 - half :: 2]).predict_proba(test[half::2])
    return found


def spoken(keys: np.ndarray, labels: np.ndarray, test: Encoded) -> np.ndarray:
    """A linear head's probabilities (n, L)."""
    head, out = heads.linear(keys, labels), np.zeros(test.logits.shape)
    out[:, head.classes_] = head.predict_proba(test.keys)
    return out


def tuned(reader, test: Encoded, grid: dict, objective: str = "accuracy") -> np.ndarray:
    """Probabilities (n, L) by the settings best on the other half."""
    out = np.empty(test.logits.shape)
    for half in (0, 1):
        best = rs.tune(reader, test[1 - half :: 2], grid, objective=objective, evidence=None, progress=False)
        out[half::2] = best.predict_proba(test[half::2])
    return out


def stream(weights: str, data: str, images: int, clean_rows: int, device: str) -> dict:
    """A corruption after the other, each with 1 % of target rows and then asked about: ResMem over rows that fade by
    half in so many stages, chosen on the other half of the rows; over all rows alike; and over clean and newest alone.

    A row's weight is ``2 ** (stage / half-life)``: weights of neighbours are relative, so no old one is ever touched.
    """
    source = encoded(weights, data, "train", "clean", clean_rows, device)
    right: dict[str, list[np.ndarray]] = {"base": [], "alike": [], "fading": [], "newest": []}
    chosen: list[list[float | None]] = []
    for stage in range(len(STAGES)):
        test = encoded(weights, data, "test", STAGES[stage], images, device)
        arrived = [(at + 1, target_of(at, weights, data, device)) for at in range(stage + 1)]
        memories: dict[float | None, rs.Memory] = {
            half: weighed([(0, source), *arrived], half) for half in (None, *HALF_LIVES)
        }
        said, picked = {name: np.empty(len(test), np.int64) for name in right}, []
        for half in (0, 1):
            asked, other = test[half::2], test[1 - half :: 2]
            best = {life: settled(memory, other) for life, memory in memories.items()}
            life = max(best, key=lambda life: best[life].best_score_)
            newest = settled(weighed([(0, source), arrived[-1]], None), other)
            picked.append(life)
            said["base"][half::2] = asked.logits.argmax().numpy()
            for name, reader in (("alike", best[None]), ("fading", best[life]), ("newest", newest)):
                said[name][half::2] = reader.predict(asked)
        chosen.append(picked)
        for name, answer in said.items():
            right[name].append(answer == test.labels)
    rng, every = np.random.default_rng(0), {name: np.concatenate(parts) for name, parts in right.items()}
    return {
        "half_lives": chosen,
        "accuracy": {name: [percent(part) for part in parts] for name, parts in right.items()},
        "over_alike": {n: list(paired(every[n], every["alike"], rng)[:3]) for n in ("base", "fading", "newest")},
    }


def target_of(stage: int, weights: str, data: str, device: str) -> Encoded:
    """The rows that arrive in one stage: of a kind that comes again, other images."""
    count = round(max(SHARES) * len(networks.split(data, "train")[1]))
    most = encoded(weights, data, "train", STAGES[stage], count, device)
    return most[stage :: round(max(SHARES) / SHARES[1])]


def weighed(parts: list[tuple[int, Encoded]], half_life: float | None) -> rs.Memory:
    """A memory of (stage, rows), whose weight doubles every `half_life` stages; None: all alike."""
    made = None
    for stage, rows in parts:
        weight = np.full(len(rows), 1.0 if half_life is None else 2.0 ** (stage / half_life), np.float32)
        rows = Encoded(rows.keys, rows.logits, rows.labels, columns={"weight": weight}, source=rows.source)
        if made is None:
            made = rs.Memory(rows)
        else:
            made.add(rows)
    return made


def settled(memory: rs.Memory, other: Encoded) -> rs.ResMem:
    """ResMem, tuned for accuracy."""
    grid = {"k": K, "sigma": memory.median_nn_distance() * SIGMA, "temperature": TEMPERATURE}
    return rs.tune(rs.ResMem(memory), other, grid, objective="accuracy", evidence=None, progress=False)


def tables(results: dict) -> dict[str, Table]:
    """Accuracies, log-losses, and gains over the better head, by corruption and amount of target rows; the stream."""
    accuracies, losses, beside, above = [], [], [], []
    for one in results["cells"]:
        where, readers = f"{KINDS[one['kind']]}: {one['rows']:,}", one["readers"]
        accuracies.append([where, *(f"{readers[name]['accuracy']:.2f}" if name in readers else "" for name in NAMES)])
        losses.append([where, *(f"{readers[name]['log_loss']:.3f}" if name in readers else "" for name in NAMES)])
        above.append([where, *(interval(readers[name]["gain"]) for name in READERS)])
        beside.append([where, *(interval(readers[name]["over"]) for name in READERS)])
    found, names = results["stream"], {"base": "the network", "alike": "all rows weigh alike"}
    names |= {"fading": "rows fade", "newest": "clean and newest rows alone"}
    moved = [
        [
            label,
            *(f"{value:.2f}" for value in found["accuracy"][name]),
            f"{np.mean(found['accuracy'][name]):.2f}",
            "" if name == "alike" else interval(found["over_alike"][name]),
        ]
        for name, label in names.items()
    ]
    return {
        "accuracies": Table(("accuracy, %: target rows", *NAMES.values()), accuracies),
        "log-losses": Table(("log-loss: target rows", *NAMES.values()), losses),
        "gains": Table(("over the better head, points", *(NAMES[name] for name in READERS)), beside),
        "gains over the network": Table(("over the network, points", *(NAMES[name] for name in READERS)), above),
        "stream": Table(("accuracy, %", *STAGES, "mean", "over all alike, points"), moved),
    }


COLOURS = {"head_all": INK, "head_target": KNN, "resmem": RESMEM, "knnlm": DARK, "pooled": MIXED, "ranpac": BASE}


def draw(results: dict):
    """Of every corruption the gains over the network, by the amount of target rows."""
    figure, (axes,) = panels(1, len(KINDS), (13, 4.6), sharey=True)
    for panel, (kind, title) in zip(axes, KINDS.items()):
        for at, one in enumerate(one for one in results["cells"] if one["kind"] == kind):
            for place, (name, colour) in enumerate(COLOURS.items()):
                if name in one["readers"]:
                    middle, *ends = one["readers"][name]["gain"]
                    dot(
                        panel, at + 0.1 * (place - 2.5), middle, ends, colour=colour, label=NAMES[name].replace("`", "")
                    )
        panel.axhline(0, color="0.6", lw=1)
        panel.set_xticks(range(len(SHARES)), labels=[f"{share:.0%}" for share in SHARES])
        panel.set(title=title, xlabel="target rows, of the training images")
    axes[0].set_ylabel("accuracy over the network's, points")
    legend_below(figure, axes, columns=6)
    return figure
