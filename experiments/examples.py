"""ResMem, Figure 3: images that the memory corrected, and the memories that did."""

import base64
import io
from collections import Counter
from typing import Literal

import numpy as np
from PIL import Image

import residua as rs
from experiments.cifar100.data import CLASS_NAMES
from experiments.cifar100.headline import PAPER
from experiments.cifar100.networks import encoded, split
from experiments.figures import BASE, INK, RESMEM, panels
from experiments.machine import device_of
from experiments.published import CIFAR100_EXAMPLES, CIFAR100_RESNET8
from experiments.table import Table
from experiments.work import Work
from residua.errors import ParameterError

# The confusions that the paper shows, each the smaller class first.
PAPERS_PAIRS = [tuple(sorted(map(CLASS_NAMES.index, pair))) for pair in CIFAR100_EXAMPLES["confusions"]]


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
    device : str
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


def confusions(before: np.ndarray, after: np.ndarray, truth: np.ndarray, most: int) -> list[dict]:
    """Pairs of classes taken for each other, in either direction: the most often corrected, the most often introduced,
    and the paper's, with the base's ``errors`` of that kind, how many are ``corrected``, and how many are new."""
    wrong, now = before != truth, after == truth

    def counted(which: np.ndarray, said: np.ndarray) -> Counter:
        pairs = np.sort(np.stack([truth, said], axis=1)[which], axis=1).tolist()
        return Counter(sorted(map(tuple, pairs)))  # most_common keeps this order among equals

    counts = {
        "errors": counted(wrong, before),
        "corrected": counted(wrong & now, before),
        "introduced": counted(~wrong & ~now, after),
    }
    top = [pair for name in ("corrected", "introduced") for pair, _ in counts[name].most_common(most)]
    rows = [
        {
            "pair": [CLASS_NAMES[label] for label in pair],
            **{name: count[pair] for name, count in counts.items()},
            "paper": pair in PAPERS_PAIRS,
        }
        for pair in dict.fromkeys([*PAPERS_PAIRS, *top])
    ]
    return sorted(rows, key=lambda row: (-row["corrected"], row["introduced"], row["pair"]))


def choose(before: np.ndarray, after: np.ndarray, truth: np.ndarray, scores: np.ndarray, shown: int) -> np.ndarray:
    """Corrected test rows: for each pair of classes the one corrected most clearly (by ResMem's score of the truth over
    that of the base's answer), the paper's pairs first, then the pairs corrected most often."""
    rows = np.flatnonzero((before != truth) & (after == truth))
    clear = scores[rows, truth[rows]] - scores[rows, before[rows]]
    of_pair: dict[tuple, list[int]] = {}
    for row in rows[np.argsort(-clear, kind="stable")].tolist():
        of_pair.setdefault(tuple(sorted((int(truth[row]), int(before[row])))), []).append(row)
    order = sorted(of_pair, key=lambda pair: (pair not in PAPERS_PAIRS, -len(of_pair[pair]), pair))
    return np.array([of_pair[pair][0] for pair in order[:shown]], dtype=np.int64)


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


def pack(tiles: np.ndarray) -> str:
    """Images uint8 (n, side, side, 3) for a JSON record, losslessly: base64 of one PNG.

    >>> tiles = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    >>> bool((unpack(pack(tiles)) == tiles).all())
    True
    """
    file = io.BytesIO()
    Image.fromarray(np.hstack(tiles)).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def unpack(text: str) -> np.ndarray:
    """What ``pack`` packed, uint8 (n, side, side, 3)."""
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        strip = np.asarray(picture.convert("RGB"))
    return np.stack(np.hsplit(strip, strip.shape[1] // strip.shape[0]))


def tables(results: dict) -> dict[str, Table]:
    """How many images changed, which classes were confused, and what moved the images of the figure."""
    n = results["n"]
    counts = [
        (name, f"{CIFAR100_RESNET8[rate]:.2f}", f"{100 * results[key] / n:.2f}", f"{results[key]:,}")
        for name, rate, key in (("corrected (TPR)", "tpr", "corrected"), ("broken (FPR)", "fpr", "introduced"))
    ]
    pairs, moves = [], []
    for row in results["confusions"]:
        pair = " / ".join(row["pair"]) + (" (the paper's)" if row["paper"] else "")
        corrected, introduced = row["corrected"], row["introduced"]
        pairs.append((pair, row["errors"], corrected, introduced, f"{corrected - introduced:+d}"))
    for example in results["examples"]:
        truth, memories = example["truth"], example["memories"]
        first, now, base, base_now = (f"{score:.2f}" for score in example["scores"])
        same = sum(memory["label"] == truth for memory in memories)
        wrong = sum(memory["label"] != memory["base"] for memory in memories)
        of = [f"{number} of {len(memories)}" for number in (same, wrong)]
        image = f"{truth} (base: {example['base']})"
        moves.append((image, f"{first} → {now}", f"{base} → {base_now}", *of, f"{100 * example['share']:.0f} %"))
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
    style = {"ha": "center", "va": "top", "fontsize": 8, "color": INK}
    axes.text(0.5, -0.04, below.replace("_", " "), transform=axes.transAxes, **style)
