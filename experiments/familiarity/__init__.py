"""What a memory has never seen: pictures and texts from elsewhere, told by distance, by doubt and by detectors."""

from typing import Literal

import numpy as np

from experiments.cifar100 import networks
from experiments.familiarity.pictures import OTHERS, among_pictures
from experiments.familiarity.texts import CORPORA, among_texts
from experiments.figures import BASE, DARK, KNN, LIGHT, RESMEM, legend_below, panels
from experiments.table import Table
from experiments.work import Work
from residua.errors import ParameterError

NAMES = {
    "unfamiliar": "**unfamiliar** (cosine)",
    "unsure": "**unsure** (cosine)",
    "sum": "the two p-values' logarithms, added",
    "unfamiliar_plain": "unfamiliar, keys as they are",
    "msp": "largest probability (MSP)",
    "energy": "energy",
    "mahalanobis": "Mahalanobis",
}
SHOWN = ("unfamiliar", "unsure", "msp", "mahalanobis")
LEVELS = (0.01, 0.05, 0.1)


def measure(
    work: Work,
    *,
    weights: str = "",
    model: str = "",
    data: str = "data",
    download: bool = False,
    known: int = 60,
    memory_tokens: int = 60_000,
    eval_tokens: int = 12_000,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Tell rows like those remembered from rows that are not: the area under the ROC curve of each score.

    Parameters
    ----------
    weights : str
        A trained CIFAR-ResNet (.safetensors, or its folder), such as the experiment cifar100 leaves.
    model : str
        A folder with a causal language model, its tokenizer and split.json; without it no texts are measured.
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    known : int
        Classes that are remembered where the others' images are to be told from theirs.
    memory_tokens, eval_tokens : int
        Tokens that are remembered; tokens of each corpus that are judged.
    device : str
        Where network and memory live.
    """
    if not weights:
        raise ParameterError("weights is empty; expected a trained network's file, such as cifar100 leaves")
    networks.split(data, "train", download)
    cells = [(weights, data, device, number) for number in (0, known)]
    whole, held_out = work.map(among_pictures, cells, desc="pictures")
    spoken = work.map(among_texts, [(model, memory_tokens, eval_tokens, device)], desc="texts")[0] if model else None
    auroc = {name: {**whole["auroc"][name], **held_out["auroc"].get(name, {})} for name in whole["auroc"]}
    return {"auroc": auroc, "fresh": whole["fresh"], "n": whole["n"], "known": known, "texts": spoken}


def tables(results: dict) -> dict[str, Table]:
    """AUROC on pictures; how often fresh rows get small p-values; AUROC on texts, of tokens and of documents."""
    auroc = results["auroc"]
    columns = [OTHERS[name] for name in OTHERS]
    rows = [
        [
            NAMES.get(name, f"pytorch-ood: {name}"),
            *(f"{100 * found[other]:.1f}" if other in found else "" for other in OTHERS),
        ]
        for name, found in auroc.items()
    ]
    if not any(name not in NAMES for name in auroc):
        rows.append(["pytorch-ood: not installed", *[""] * len(columns)])
    fresh = [
        [f"test images, {name}", *(f"{100 * share:.1f}" for share in shares)]
        for name, shares in results["fresh"].items()
    ]
    made = {
        "pictures": Table(("AUROC, %", *columns), rows),
        "fresh": Table(("share with a p-value of at most, %", *(f"{100 * level:g} %" for level in LEVELS)), fresh),
    }
    if results["texts"] is not None:
        spoken = results["texts"]["auroc"]
        told = [
            [f"{TEXTS[name]}, {of}", *(f"{100 * spoken[of][name][corpus]:.1f}" for corpus in CORPORA)]
            for of in spoken
            for name in spoken[of]
        ]
        made["texts"] = Table(("AUROC, %", *CORPORA.values()), told)
    return made


TEXTS = {
    "unfamiliar": "**unfamiliar**",
    "unsure": "**unsure**",
    "msp": "the model's largest probability",
    "surprise": "the model's surprise, -log p (knows the answer)",
}


def draw(results: dict):
    """AUROC of four scores on each kind of picture."""
    figure, ((axes,),) = panels(1, 1, (10, 4.2))
    others, width = list(OTHERS), 0.8 / len(SHOWN)
    for i, (name, colour) in enumerate(zip(SHOWN, (DARK, RESMEM, BASE, KNN))):
        at = np.arange(len(others)) + (i - (len(SHOWN) - 1) / 2) * width
        heights = [100 * results["auroc"][name][other] for other in others]
        axes.bar(at, heights, width, color=colour, label=NAMES[name].replace("*", ""))
    axes.axhline(50, color=LIGHT, lw=1, label="chance")
    axes.set_xticks(
        range(len(others)), labels=[OTHERS[name].replace(" (", "\n(").replace(", ", ",\n") for name in others]
    )
    axes.set(ylabel="AUROC against CIFAR-100's test images, %", ylim=(0, 100))
    legend_below(figure, axes, columns=5)
    return figure
