"""ResMem, Figure 3: images that the memory corrected, and the memories that did."""

from collections import Counter
from typing import Literal

import numpy as np

import residua as rs
from experiments.cifar100.data import CLASS_NAMES
from experiments.cifar100.headline import PAPER
from experiments.cifar100.networks import encoded, split
from experiments.examples.tiles import pack, unpack
from experiments.figures import BASE, INK, RESMEM, panels
from experiments.machine import device_of
from experiments.published import CIFAR100_EXAMPLES, CIFAR100_RESNET8
from experiments.table import Table
from experiments.work import Work
from residua.errors import ParameterError


def measure(
    work: Work,
    *,
    weights: str = "",
    data: str = "data",
    download: bool = False,
    shown: int = 8,
    memories: int = 6,
    pairs: int = 12,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Answer the test set at the paper's settings and look at what changed.

    Parameters
    ----------
    work : Work
    weights : str
        A trained CIFAR-ResNet (.safetensors, or its folder), such as the experiment cifar100 leaves.
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    shown : int
        Images in the figure.
    memories : int
        Memories beside each.
    pairs : int
        Confusions in each table.
    device : {"auto", "cpu", "cuda"}
        Where network and memory live.
    """
    if not weights:
        raise ParameterError("weights is empty; expected a trained network's file, such as cifar100 leaves")
    if min(shown, memories, pairs) < 1 or memories > PAPER["k"]:
        raise ParameterError(
            f"shown={shown}, memories={memories}, pairs={pairs}; expected at least 1, and at most {PAPER['k']} memories"
        )
    split(data, "train", download)
    return work.map(find, [(weights, data, shown, memories, pairs, device)], desc="examples")[0]


def find(weights: str, data: str, shown: int, memories: int, pairs: int, device: str) -> dict:
    """Everything that is told and drawn; `corrected` and `introduced` are numbers of test images."""
    remembered, test = encoded(weights, data, 1.0, 0, device)
    reader = rs.ResMem(rs.Memory(remembered, device=device_of(device)), **PAPER)
    scores = reader.scores(test)
    before, after, truth = test.logits.argmax().numpy(), scores.argmax(axis=1), test.labels
    chosen = choose(before, after, truth, scores, shown)
    images = split(data, "train")[0], split(data, "test")[0]
    return {
        "n": len(test),
        "corrected": int(((before != truth) & (after == truth)).sum()),
        "introduced": int(((before == truth) & (after != truth)).sum()),
        "confusions": confusions(before, after, truth, pairs),
        "examples": [explained(reader, test, int(i), remembered, images, memories) for i in chosen],
    }


def papers_pairs() -> list[tuple[int, int]]:
    """The confusions that the paper shows, each the smaller class first."""
    return [tuple(sorted(map(CLASS_NAMES.index, pair))) for pair in CIFAR100_EXAMPLES["confusions"]]


def confusions(before: np.ndarray, after: np.ndarray, truth: np.ndarray, most: int) -> list[dict]:
    """Pairs of classes taken for each other, in either direction: the most often corrected, the most often introduced,
    and the paper's, with the base's ``errors`` of that kind, how many are ``corrected``, and how many are new."""
    wrong, right, now = before != truth, before == truth, after == truth
    errors = _counted(truth[wrong], before[wrong])
    corrected = _counted(truth[wrong & now], before[wrong & now])
    introduced = _counted(truth[right & ~now], after[right & ~now])
    named = papers_pairs()
    top = [pair for counted in (corrected, introduced) for pair, _ in counted.most_common(most)]
    rows = [
        {
            "pair": [CLASS_NAMES[a], CLASS_NAMES[b]],
            "errors": errors[a, b],
            "corrected": corrected[a, b],
            "introduced": introduced[a, b],
            "paper": (a, b) in named,
        }
        for a, b in dict.fromkeys([*named, *top])
    ]
    return sorted(rows, key=lambda row: (-row["corrected"], row["introduced"], row["pair"]))


def _counted(one: np.ndarray, other: np.ndarray) -> Counter:
    pairs = np.sort(np.stack([one, other], axis=1), axis=1).tolist()
    return Counter(sorted(map(tuple, pairs)))  # most_common keeps this order among equals


def choose(before: np.ndarray, after: np.ndarray, truth: np.ndarray, scores: np.ndarray, shown: int) -> np.ndarray:
    """Corrected test rows: for each pair of classes the one corrected most clearly (by ResMem's score of the truth over
    that of the base's answer), the paper's pairs first, then the pairs corrected most often."""
    rows = np.flatnonzero((before != truth) & (after == truth))
    clear = scores[rows, truth[rows]] - scores[rows, before[rows]]
    pair_of = {row: tuple(sorted((int(truth[row]), int(before[row])))) for row in rows.tolist()}
    often, named = Counter(pair_of.values()), papers_pairs()
    best: dict[tuple, int] = {}
    for row in rows[np.argsort(-clear, kind="stable")].tolist():
        best.setdefault(pair_of[row], row)
    order = sorted(best, key=lambda pair: (pair not in named, -often[pair], pair))
    return np.array([best[pair] for pair in order[:shown]], dtype=np.int64)


def explained(reader, test, row: int, remembered, images, memories: int) -> dict:
    """One test image, and the memories that moved it most from the base's answer to the truth.

    ``scores`` are the truth's before and after, and those of the base's answer; ``moved`` is what a memory adds to the
    truth's lead, ``share`` their part of the whole change; ``tiles`` are the images, the test image first.
    """
    why = rs.explain(reader, test[row])
    truth, said = int(why.label), int(test[row].logits.argmax()[0])
    moved = why.contributions[:, truth] - why.contributions[:, said]
    most = np.argsort(-moved, kind="stable")[:memories]
    before = remembered[why.rows[most]].logits.argmax().numpy()
    return {
        "row": row,
        "truth": CLASS_NAMES[truth],
        "base": CLASS_NAMES[said],
        "scores": [float(values[c]) for c in (truth, said) for values in (why.base, why.scores)],
        "memories": [
            {
                "id": int(why.ids[i]),
                "label": CLASS_NAMES[why.labels[i]],
                "base": CLASS_NAMES[b],
                "distance": float(why.distances[i]),
                "moved": float(moved[i]),
            }
            for i, b in zip(most, before)
        ],
        "share": float(moved[most].sum() / moved.sum()),
        "tiles": pack(np.stack([images[1][row], *images[0][why.rows[most]]])),
    }


def tables(results: dict) -> dict[str, Table]:
    """How many images changed, which classes were confused, and what moved the images of the figure."""
    n, paper = results["n"], CIFAR100_RESNET8
    counts = [
        (
            "corrected (TPR)",
            f"{paper['tpr']:.2f}",
            f"{100 * results['corrected'] / n:.2f}",
            f"{results['corrected']:,}",
        ),
        ("broken (FPR)", f"{paper['fpr']:.2f}", f"{100 * results['introduced'] / n:.2f}", f"{results['introduced']:,}"),
    ]
    pairs = [
        (
            " / ".join(row["pair"]) + (" (the paper's)" if row["paper"] else ""),
            row["errors"],
            row["corrected"],
            row["introduced"],
            f"{row['corrected'] - row['introduced']:+d}",
        )
        for row in results["confusions"]
    ]
    moves = []
    for example in results["examples"]:
        first, now, base, base_now = example["scores"]
        beside = example["memories"]
        moves.append(
            (
                f"{example['truth']} (base: {example['base']})",
                f"{first:.2f} → {now:.2f}",
                f"{base:.2f} → {base_now:.2f}",
                f"{sum(memory['label'] == example['truth'] for memory in beside)} of {len(beside)}",
                f"{sum(memory['label'] != memory['base'] for memory in beside)} of {len(beside)}",
                f"{100 * example['share']:.0f} %",
            )
        )
    columns = ("truth", "score of the truth", "of the base's answer", "memories of that class", "base wrong", "share")
    return {
        "counts": Table(("%", "paper", "ours", f"of {n:,} test images"), counts),
        "confusions": Table(("pair", "base's errors", "corrected", "introduced", "net"), pairs),
        "examples": Table(columns, moves),
    }


def draw(results: dict):
    """A test image a row, the memories that decided beside it."""
    examples = results["examples"]
    columns = 1 + max((len(example["memories"]) for example in examples), default=0)
    rows = max(1, len(examples))
    figure, grid = panels(rows, columns, (1.6 * columns + 0.3, 2.05 * rows + 0.9))
    figure.get_layout_engine().set(h_pad=0.12)  # words under a tile are nearer to it than to the tile below
    for axes in grid.flat:
        axes.axis("off")
    for row, example in zip(grid, examples):
        tiles = unpack(example["tiles"])
        _tile(row[0], tiles[0], example["truth"], f"base: {example['base']}", INK)
        for axes, tile, memory in zip(row[1:], tiles[1:], example["memories"]):
            colour = RESMEM if memory["label"] == example["truth"] else BASE
            _tile(axes, tile, memory["label"], f"base: {memory['base']}\n{memory['moved']:+.3f}", colour)
    figure.suptitle(
        "Left: test images the base got wrong and ResMem right. Beside: the memories that decided, and what each adds\n"
        "to the truth's lead. Titles are labels (blue: the truth's class); under them, what the base says.",
        fontsize=10.5,
    )
    return figure


def _tile(axes, tile, title: str, below: str, colour: str) -> None:
    axes.imshow(tile, interpolation="nearest")
    axes.set_title(title.replace("_", " "), fontsize=9.5, color=colour, fontweight="bold", pad=4)
    axes.text(
        0.5, -0.04, below.replace("_", " "), transform=axes.transAxes, ha="center", va="top", fontsize=8, color=INK
    )
