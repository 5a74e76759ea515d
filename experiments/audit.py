"""Wrong labels in a memory whose network was trained on them: found by the memory, by the network, and by cleanlab."""

import re
import resource
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, roc_auc_score

import residua as rs
from experiments.cifar100 import networks
from experiments.cifar100.data import normalise
from experiments.cifar100.recipe import Recipe
from experiments.cifar100.resnet import load
from experiments.cifar100.superclasses import confused
from experiments.cifar100.train import mark_name, train
from experiments.figures import INK, KNN, MIXED, RESMEM, panels
from experiments.halves import percent
from experiments.machine import device_of
from experiments.table import Table
from experiments.work import Work
from residua.core import Encoded

METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")  # cleanlab's label quality scores
NAMES = {
    "base": "the network's margin",
    "audit": "`rs.audit(memory)`, margin",
    "audit_resmem": "`rs.audit` of ResMem, margin",
    "audit_votes": "`rs.audit` of label k-NN, margin",
    "shapley": "KNN-Shapley, on the memory's own rows",
    "memorisation": "memorisation",
    "cleanlab_base": "cleanlab on the network's probabilities",
    "cleanlab_audit": "cleanlab on the audit's `pred_probs`",
}


def measure(
    work: Work,
    *,
    epochs: int = 8,
    share: float = 0.1,
    data: str = "data",
    download: bool = False,
    checkpoints: str = "out/audit",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Train on partly wrong labels, and look for them.

    Parameters
    ----------
    epochs : int
        Epochs to train a ResNet-8.
    share : float
        Share of the training labels that are replaced by another class of the same superclass.
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    checkpoints : str
        Folder for the training; one that was stopped goes on from there.
    device : str
        Where network and memory live.
    """
    networks.split(data, "train", download)
    history = work.map(trained, [(epochs, share, data, checkpoints, device)], "train")[0]
    about = work.map(compared, [(epochs, share, data, checkpoints, device)], "audit")[0]
    return {"epochs": epochs, "share": share, "train_seconds": float(np.sum(history["seconds"])), **about}


def folder_of(recipe: Recipe, share: float, checkpoints: str) -> Path:
    """Where the training leaves its networks."""
    return Path(checkpoints) / f"{recipe.name}-{100 * share:g}percent-wrong"


def trained(epochs: int, share: float, data: str, checkpoints: str, device: str) -> dict:
    """One training on labels of which a share is wrong; its history."""
    recipe = Recipe(epochs=epochs)
    images, labels = networks.split(data, "train")
    return train(recipe, images, confused(labels, share), folder_of(recipe, share, checkpoints), device_of(device))


def compared(epochs: int, share: float, data: str, checkpoints: str, device: str) -> dict:
    """``n``, ``wrong`` (rows), ``base`` and ``train_base`` (accuracy in %: on the test set; on the labels as given),
    ``found`` (name -> see ``detected``), ``cost`` (of an audit against the test set) and ``mended`` (see there)."""
    recipe = Recipe(epochs=epochs)
    model = load(folder_of(recipe, share, checkpoints) / mark_name(epochs)).to(device_of(device)).eval()
    images, truth = networks.split(data, "train")
    given = confused(truth, share)
    remembered, test = (
        rs.encode(model, normalise(pixels), labels, batch_size=networks.BATCH, progress=False)
        for pixels, labels in ((images, given), networks.split(data, "test"))
    )
    wrong, memory = given != truth, rs.Memory(remembered, device=device_of(device))
    found = rs.audit(memory, progress=False)
    others = {"resmem": rs.ResMem(memory), "votes": rs.KNNLM(memory, 50, 1.0, kernel="exponential")}
    said = remembered.logits.probabilities().numpy()
    doubt = {
        "base": -margin(said, given),
        "audit": -found.margin,
        "shapley": -found.shapley,
        "memorisation": found.memorisation,
    }
    doubt |= {
        f"audit_{name}": -rs.audit(reader, epsilon=0.02, progress=False).margin for name, reader in others.items()
    }
    doubt |= {f"cleanlab_{name}: {method}": score for name, method, score in cleanlab_scores(given, said, found)}
    return {
        "n": len(given),
        "wrong": int(wrong.sum()),
        "base": percent(test.logits.argmax().numpy() == test.labels),
        "train_base": percent(remembered.logits.argmax().numpy() == given),
        "found": {name: detected(wrong, score) for name, score in doubt.items()},
        "datalab": datalab(found, wrong),
        "cost": cost(remembered, test),
        "mended": mended(remembered, test, truth, found),
    }


def margin(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The log-probability of each label less that of the best other class.

    >>> margin(np.array([[0.5, 0.25, 0.25]]), np.array([1])).round(3).tolist()
    [-0.693]
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    others = probabilities.copy()
    np.put_along_axis(others, labels[:, None], 0, axis=1)
    return np.log(np.maximum(own[:, 0], 1e-30)) - np.log(others.max(axis=1))


def detected(wrong: np.ndarray, doubt: np.ndarray) -> dict:
    """How well `doubt` (n,) ranks the `wrong` rows first: areas under ROC and precision-recall, and the share of the
    wrong ones among the first as many rows as are wrong.

    >>> detected(np.array([True, False, True, False]), np.array([3.0, 2.0, 1.0, 0.0]))["first"]
    0.5
    """
    first = np.argsort(-doubt, kind="stable")[: int(wrong.sum())]
    return {
        "auroc": float(roc_auc_score(wrong, doubt)),
        "precision": float(average_precision_score(wrong, doubt)),
        "first": float(wrong[first].mean()),
    }


def cleanlab_scores(labels: np.ndarray, said: np.ndarray, found) -> list[tuple[str, str, np.ndarray]]:
    """Its label quality scores, turned into doubt, on the network's and on the audit's probabilities; none where it is
    not installed."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return []
    out = []
    for name, probabilities in (("base", said), ("audit", found.pred_probs)):
        proper = np.maximum(probabilities.astype(np.float64), 1e-12)
        proper /= proper.sum(axis=1, keepdims=True)
        for method in METHODS:
            out.append((name, method, -get_label_quality_scores(labels, proper, method=method)))
    return out


def datalab(found, wrong: np.ndarray) -> dict | None:
    """cleanlab's Datalab given an audit's ``pred_probs`` and ``knn_graph``: issues that it flags, and how many of the
    label issues are wrong labels; None where it is not installed."""
    try:
        from cleanlab import Datalab
    except ImportError:
        return None
    lab = Datalab({"label": found.labels}, label_name="label", verbosity=0)
    kinds = {"label": {}, "outlier": {}, "near_duplicate": {}}
    lab.find_issues(pred_probs=found.pred_probs, knn_graph=found.knn_graph, issue_types=kinds)
    flagged = lab.get_issues("label")["is_label_issue"].to_numpy()
    counts = dict(zip(lab.get_issue_summary()["issue_type"], lab.get_issue_summary()["num_issues"].tolist()))
    return {"issues": counts, "right": float(wrong[flagged].mean()), "reached": float(flagged[wrong].mean())}


def cost(remembered: Encoded, test: Encoded) -> dict:
    """Of an audit against the test set, in a process of its own: seconds (of the clock, and of the processor), the
    process's largest size in GB, and by how much Shapley values miss the utility."""
    with TemporaryDirectory() as folder, get_context("spawn").Pool(1) as pool:
        files = [str(Path(folder) / name) for name in ("remembered.npz", "test.npz")]
        for rows, file in zip((remembered, test), files):
            rows.save(file)
        return pool.apply(spent_on, files)


def spent_on(remembered: str, test: str) -> dict:
    """The same, in this process."""
    memory, asked = rs.Memory(Encoded.load(remembered)), Encoded.load(test)
    clock, own = time.perf_counter(), time.process_time()
    found = rs.audit(memory, asked, progress=False)
    spent = {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - own}
    return {
        **spent,
        "gigabytes": largest_size() / 1e9,
        "missed": float(abs(found.shapley.sum() - found.utility)),
        "n": len(asked),
    }


def largest_size() -> int:
    """The most bytes that this process has had in RAM. On Linux ``ru_maxrss`` is no less than its parent's, at that."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def mended(remembered: Encoded, test: Encoded, truth: np.ndarray, found) -> dict:
    """Test accuracy in % of ResMem and of label k-NN with their defaults: with the memory as it is, without the rows
    that the audit doubts most (as many as are wrong), with these relabelled as suggested, and with the truth."""
    count = int((truth != remembered.labels).sum())
    doubted = found.order[:count]
    suggested = remembered.labels.copy()
    suggested[doubted] = found.suggested[doubted]
    kept = np.setdiff1d(np.arange(len(truth)), doubted)
    rows = {
        "as it is": (slice(None), remembered.labels),
        "doubted rows dropped": (kept, remembered.labels),
        "doubted rows relabelled": (slice(None), suggested),
        "the truth": (slice(None), truth),
    }
    out = {}
    for name, (some, labels) in rows.items():
        logits = remembered.logits.dense().numpy()[some]
        memory = rs.Memory(rs.Encoded(remembered.keys[some], logits, labels[some], output="logits"))
        readers = {"resmem": rs.ResMem(memory), "label_knn": rs.KNNLM(memory, 50, 1.0, kernel="exponential")}
        out[name] = {kind: percent(reader.predict(test) == test.labels) for kind, reader in readers.items()}
    return out


def shown(name: str) -> str:
    """A score's name in words."""
    kind, _, method = name.partition(": ")
    return f"{NAMES[kind]}, {method.replace('_', ' ')}" if method else NAMES[kind]


def tables(results: dict) -> dict[str, Table]:
    """Who finds the wrong labels; what an audit costs; what mending does."""
    rows = [
        [shown(name), f"{one['auroc']:.3f}", f"{one['precision']:.3f}", f"{100 * one['first']:.1f}"]
        for name, one in results["found"].items()
    ]
    first = f"wrong among the first {results['wrong']:,}, %"
    cost, lab = results["cost"], results["datalab"]
    spent = [f"{results['n']:,} rows against {cost['n']:,}", f"{cost['seconds']:.0f}", f"{cost['cpu_seconds']:.0f}"]
    spent += [f"{cost['gigabytes']:.2f}", f"{cost['missed']:.0e}"]
    mended = [
        [name, *(f"{one[kind]:.2f}" for kind in ("resmem", "label_knn"))] for name, one in results["mended"].items()
    ]
    out = {
        "found": Table(("ranked by", "AUROC", "average precision", first), rows),
        "cost": Table(("an audit", "seconds", "processor seconds", "GB", "sum of Shapley values off by"), [spent]),
        "mended": Table(("the memory's labels", "ResMem, %", "label k-NN, %"), mended),
    }
    if lab is not None:
        flagged = [[kind.replace("_", " "), f"{count:,}"] for kind, count in lab["issues"].items()]
        flagged.append(["label issues that are wrong labels, %", f"{100 * lab['right']:.1f}"])
        flagged.append(["wrong labels among them, %", f"{100 * lab['reached']:.1f}"])
        out["datalab"] = Table(("Datalab, given the audit's pred_probs and knn_graph", "rows"), flagged)
    return out


def draw(results: dict) -> Figure:
    """The area under ROC of every score."""
    figure, axes = panels(1, 1, (8, 4.2))
    names = list(results["found"])[::-1]
    colours = {"audit": RESMEM, "shapley": RESMEM, "memorisation": RESMEM, "base": KNN}
    for y, name in enumerate(names):
        colour = MIXED if name.startswith("cleanlab") else colours.get(name.partition("_")[0], INK)
        axes[0, 0].plot(results["found"][name]["auroc"], y, "o", color=colour)
    axes[0, 0].set_yticks(range(len(names)), labels=[shown(name).replace("`", "") for name in names], fontsize=8)
    axes[0, 0].set(xlabel="area under ROC", title=f"{results['wrong']:,} of {results['n']:,} labels are wrong")
    return figure
