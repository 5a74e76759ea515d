"""What the demo is made of: scikit-learn's handwritten digits, a network too small for them, and the picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from residua.core.atomic import atomic_write
from residua.errors import MemoryFileError
from residua.explanation import Explanation

FILTERS = 4  # averaged to 2 x 2 each: 16 numbers per digit, too few on purpose
EPOCHS = 40
SHARES = {"test": 0.35, "validation": 0.2}  # the rest is for training
MEMORIES = 5  # shown beside each digit
BASE, MEMORY, GREY, DARK = "#C8501E", "#1F6FB4", "#8A8A8A", "#444444"


@dataclass(frozen=True)
class Digits:
    """Images float32 (n, 1, 8, 8) in [0, 1] and what they show, int64 (n,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def load_digits(seed: int) -> dict[str, Digits]:
    """The 1 797 digits in three parts, drawn by `seed`, each with every class in its share."""
    pixels, shown = map(np.asarray, datasets.load_digits(return_X_y=True))
    images = torch.from_numpy((pixels / 16).astype(np.float32)).reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(shown.astype(np.int64))
    rest, parts = np.arange(len(labels)), {}
    for name, share in SHARES.items():
        size = round(share * len(labels))
        rest, parts[name] = train_test_split(rest, test_size=size, random_state=seed, stratify=shown[rest])
    parts["train"] = rest
    return {name: Digits(images[rows], labels[rows]) for name, rows in parts.items()}


def train_base(train: Digits, seed: int) -> nn.Module:
    """One convolution, averaged to 16 numbers, and a linear layer; trained with Adam and left alone from then on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a network this small trains several times faster on one than on many that wait
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            features = nn.Conv2d(1, FILTERS, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten()
            model = nn.Sequential(*features, nn.Linear(4 * FILTERS, 10))
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
            for _ in range(EPOCHS):
                for rows in torch.randperm(len(train)).split(64):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(train.images[rows]), train.labels[rows]).backward()
                    optimizer.step()
    finally:
        torch.set_num_threads(threads)
    return model.requires_grad_(False).eval()


def draw(path: Path, images, explanations: list[Explanation], remembered, title: str, subtitle: str) -> None:
    """Write a PNG with one row per digit: the image, both predictions, and its most decisive memories.

    `images` (n, 8, 8) are the digits of the `explanations`, `remembered` (rows, 8, 8) what the memory's rows show.
    """
    n = max(len(explanations), 1)
    height = 1.5 + 1.72 * n
    figure = Figure(figsize=(12.6, height), facecolor="white")
    figure.text(0.028, 1 - 0.38 / height, title, fontsize=17, weight="bold", va="center")
    figure.text(0.028, 1 - 0.75 / height, subtitle, fontsize=10.5, color=DARK, va="center")
    margins = {"left": 0.028, "right": 0.985, "top": 1 - 1.42 / height, "bottom": 0.5 / height}
    widths = [1, 2.1, *[1] * MEMORIES]
    grid = figure.add_gridspec(n, len(widths), hspace=0.62, wspace=0.3, width_ratios=widths, **margins)
    for row, (image, why) in enumerate(zip(images, explanations)):
        truth = "" if why.label is None else f"truth: {why.label}"
        _digit(figure.add_subplot(grid[row, 0]), image, "test digit", truth, "#222222", 1.6)
        _predictions(figure.add_subplot(grid[row, 1]), why)
        for place, neighbour in enumerate(_decisive(why), 2):
            _memory(figure.add_subplot(grid[row, place]), remembered[why.rows[neighbour]], why, neighbour)
    try:
        with atomic_write(path) as part:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(part, format="png", dpi=130)
    except MemoryFileError as error:
        raise MemoryFileError(f"{error}; choose another folder with --out") from error


def _classes(why: Explanation) -> tuple[int, int]:
    """What ResMem says, and what the base said."""
    return int(why.prediction), int(why.base_prediction)


def _decisive(why: Explanation) -> np.ndarray:
    """The neighbours that moved the decision most: the new answer's score against the old one's."""
    now, before = _classes(why)
    swing = why.contributions[:, now] - why.contributions[:, before]
    return np.argsort(-np.abs(swing), kind="stable")[:MEMORIES]


def _digit(axes, image: np.ndarray, title: str, below: str, frame: str, width: float, **style) -> None:
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9.5, pad=5)
    axes.set_xlabel(below, labelpad=4, **{"fontsize": 9.5, **style})
    for spine in axes.spines.values():
        spine.set(color=frame, linewidth=width)


def _predictions(axes, why: Explanation) -> None:
    """Both classes' scores, before (base) and after (with the memory), as bars."""
    classes, places = list(_classes(why)), np.array([1.0, 0.0])
    after = why.scores[classes]
    for at, values, color in ((places + 0.17, why.base[classes], BASE), (places - 0.17, after, MEMORY)):
        axes.barh(at, values, height=0.3, color=color)
        for y, value in zip(at, values):
            axes.text(max(value, 0) + 0.03, y, f"{value:.2f}", va="center", fontsize=8.5, color=DARK)
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.set(xlim=(min(-0.02, *after), max(1.0, *after) + 0.22), ylim=(-0.55, 1.55))
    axes.set(xticks=[], yticks=places, yticklabels=classes)
    axes.tick_params(length=0, labelsize=11)
    axes.set_frame_on(False)
    heading = {"fontsize": 10, "weight": "bold", "transform": axes.transAxes}
    axes.text(-0.12, 1.1, f"base said {why.base_prediction}", color=BASE, **heading)
    axes.text(1.0, 1.1, f"ResMem says {why.prediction}", color=MEMORY, ha="right", **heading)


def _memory(axes, image: np.ndarray, why: Explanation, neighbour: int) -> None:
    to_new, to_old = (why.contributions[neighbour, label] for label in _classes(why))
    strong = abs(to_new - to_old) >= 0.01
    color = GREY if not strong else MEMORY if to_new > to_old else BASE
    moved = f"{to_new:+.2f} to {why.prediction}   {to_old:+.2f} to {why.base_prediction}".replace("-", "\u2212")
    title = f"a remembered {why.labels[neighbour]}"
    _digit(axes, image, title, moved, color, 2.4 if strong else 1.2, fontsize=8.5, color=color)
