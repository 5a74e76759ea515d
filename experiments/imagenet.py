"""ResMem, Table 2: ImageNet through MobileNet-V2 of five widths (bring the images; none come along)."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset, Subset

import residua as rs
from experiments.figures import RESMEM, dot_rows, panels
from experiments.halves import crossed, paired, percent
from experiments.machine import device_of
from experiments.published import IMAGENET_MOBILENET_V2
from experiments.shown import interval, settings
from experiments.table import Table
from experiments.work import Work
from residua.core import Encoded, HeadLogits
from residua.encoding.fingerprint import source_of_module
from residua.errors import MemoryFileError, MissingDependencyError, ParameterError

K = (5, 10, 20, 30, 50, 100)
SIGMA = 2.0 ** np.arange(-3, 3)  # multiples of the typical distance between neighbours
TEMPERATURE = (0.4, 0.6, 0.8, 1.0, 1.4, 2.0)
NAMES = {"resmem_paper": "ResMem, paper's settings", "resmem_tuned": "ResMem, tuned"}


def measure(
    work: Work,
    *,
    data: str = "imagenet",
    alpha: float = 1.0,
    weights: str = "pretrained",
    encoded: str = "out/imagenet",
    file_rows: int = 20_000,
    batch_size: int = 128,
    workers: int = 0,
    index: str = "exact",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Encode (a stopped run goes on after the last whole file), remember, answer.

    Parameters
    ----------
    data : str
        Folder of train/<class>/ and val/<class>/ images.
    alpha : float
        Width of MobileNet-V2: 0.35, 0.5, 0.75, 1.0 or 1.3.
    weights : str
        pretrained (torchvision has them for width 1.0), random, or a .safetensors file of the state_dict.
    encoded : str
        Folder for keys.
    file_rows : int
        Images in each of its files.
    batch_size : int
        Images at a time.
    workers : int
        Processes that read images.
    index : str
        Of the memory: exact, or a FAISS factory string.
    device : str
        Where network and memory live.
    """
    if alpha not in IMAGENET_MOBILENET_V2 or (weights == "pretrained" and alpha != 1):
        widths = ", ".join(map(str, IMAGENET_MOBILENET_V2))
        raise ParameterError(
            f"alpha={alpha}, weights={weights!r}; expected a width of {widths}, pretrained only at 1.0"
        )
    if min(file_rows, batch_size) < 1 or workers < 0:
        raise ParameterError(f"file_rows={file_rows}, batch_size={batch_size}, workers={workers}; expected at least 1")
    cell = (data, alpha, weights, encoded, file_rows, batch_size, workers, index, device)
    return work.map(compare, [cell], desc="imagenet")[0]


def compare(data, alpha, weights, encoded, file_rows, batch_size, workers, index, device) -> dict:
    """Base, ResMem at the paper's settings for this width, and ResMem tuned."""
    network, train, val = network_and_images(data, alpha, weights)
    network.to(device_of(device))
    reading = {"batch_size": batch_size, "num_workers": workers}
    remembered, asked = (encode(network, part, Path(encoded), file_rows, **reading) for part in (train, val))
    parts = list(asked)
    rows = zip(*((part.keys, part.logits.dense().numpy(), part.labels) for part in parts))
    about = {name: getattr(parts[0], name) for name in ("source", "task", "head")}
    test = Encoded(*map(np.concatenate, rows), **about)
    memory = rs.Memory(remembered, index=index, storage="head", device=device_of(device))
    base = test.logits.argmax().numpy() == test.labels
    rng = np.random.default_rng(0)
    readers = {}
    for name, (predicted, chosen) in answers(memory, test, alpha).items():
        right = predicted == test.labels
        *gain, p = paired(right, base, rng)
        rates = {"accuracy": percent(right), "tpr": percent(right & ~base), "fpr": percent(base & ~right)}
        readers[name] = {**rates, "gain": gain, "p_value": p, "settings": chosen}
    return {
        "alpha": alpha,
        "weights": weights if weights in ("pretrained", "random") else "given",
        "classes": len(train.classes),
        "train": len(memory),
        "n": len(test),
        "dim": test.dim,
        "base": percent(base),
        "readers": readers,
    }


def network_and_images(data: str, alpha: float, weights: str) -> tuple[torch.nn.Module, Dataset, Dataset]:
    """MobileNet-V2 in evaluation mode, and the training and validation images as it was trained to see them."""
    try:
        from torchvision.datasets import ImageFolder
        from torchvision.models import MobileNet_V2_Weights, mobilenet_v2
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision built for another torch
        raise MissingDependencyError(
            f"images and network are torchvision's, which does not load here ({error}): "
            'pip install "residua[vision]", in the build that matches torch'
        ) from error
    published = MobileNet_V2_Weights.IMAGENET1K_V1
    try:
        train, val = (ImageFolder(str(Path(data) / part), published.transforms()) for part in ("train", "val"))
    except OSError as error:
        raise MemoryFileError(f"{data}: {error}; expected train/<class>/ and val/<class>/ with images") from error
    if train.classes != val.classes:
        raise MemoryFileError(f"{data}/train and {data}/val hold folders of other classes; expected the same ones")
    if weights == "pretrained":
        return mobilenet_v2(weights=published).eval(), train, val
    network = mobilenet_v2(width_mult=alpha, num_classes=len(train.classes) if weights == "random" else 1000)
    if weights != "random":
        try:
            network.load_state_dict(load_file(weights))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise MemoryFileError(f"{weights} is no state_dict of MobileNet-V2, width {alpha} ({error})") from error
    return network.eval(), train, val


def encode(network: torch.nn.Module, images: Dataset, folder: Path, rows: int, **reading) -> Iterator[Encoded]:
    """The images' keys, `rows` at a time: those of files that are there, else encoded into a file, whole or absent.

    Rows bear their position as id. Only keys and last layer are kept: logits are recomputed from them.
    """
    files = [os.path.relpath(path, images.root) for path, _ in images.samples]
    whose = [source_of_module(network, "").to_json(), str(images.transform), rows, files]
    folder = folder / hashlib.sha256(json.dumps(whose).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(files), rows):
        path = folder / f"{start // rows:05d}.npz"
        if not path.exists():
            own = range(start, min(start + rows, len(files)))
            found = rs.encode(network, DataLoader(Subset(images, own), **reading), ids=np.array(own))
            logits = HeadLogits(found.head, torch.from_numpy(found.keys))
            about = {"source": found.source, "task": found.task, "head": found.head}
            Encoded(found.keys, logits, found.labels, found.ids, **about).save(path)
        yield Encoded.load(path)


def answers(memory: rs.Memory, test: Encoded, alpha: float) -> dict:
    """Reader -> (predictions, settings)."""
    printed = {name: IMAGENET_MOBILENET_V2[alpha][name] for name in ("k", "sigma", "temperature")}
    printed["k"] = min(printed["k"], len(memory))
    grid = {
        "k": sorted({min(k, len(memory)) for k in K}),
        "sigma": np.unique([*(memory.median_nn_distance() * SIGMA), printed["sigma"]]),
        "temperature": TEMPERATURE,
    }
    reader = rs.ResMem(memory, k=1)
    return {
        "resmem_paper": (reader.with_params(**printed).predict(test), printed),
        "resmem_tuned": crossed(reader, test, grid),
    }


def tables(results: dict) -> dict[str, Table]:
    """Table 2's row beside ours."""
    paper = IMAGENET_MOBILENET_V2[results["alpha"]]
    rows = [("base", paper["base"], f"{results['base']:.2f}", "", "", "", "")]
    for (name, words), printed in zip(NAMES.items(), (paper["resmem"], "")):
        reader = results["readers"][name]
        accuracy, tpr, fpr = (f"{reader[rate]:.2f}" for rate in ("accuracy", "tpr", "fpr"))
        rows.append((words, printed, accuracy, interval(reader["gain"]), tpr, fpr, settings(reader["settings"])))
    columns = ("accuracy, %", "paper", "ours", "over the base, points", "TPR", "FPR", "settings (even; odd rows)")
    return {"accuracy": Table(columns, rows)}


def draw(results: dict):
    """What ResMem adds to the base, beside Table 2's row."""
    paper, readers = IMAGENET_MOBILENET_V2[results["alpha"]], results["readers"]
    figure, axes = panels(1, 1, (7.5, 2.6))
    printed = paper["resmem"] - paper["base"], f"{paper['base']} → {paper['resmem']}"
    rows = [
        (NAMES[name], reader["gain"], RESMEM, f"{results['base']:.2f} → {reader['accuracy']:.2f}", beside)
        for (name, reader), beside in zip(readers.items(), (printed, None))
    ]
    dot_rows(axes[0, 0], rows)
    axes[0, 0].set_xlabel("points over the base")
    note = ", randomly initialised" if results["weights"] == "random" else ""
    figure.suptitle(f"MobileNet-V2, width {results['alpha']:g}{note}: {results['n']:,} images", fontsize=11)
    return figure
