"""Forgetting twice: rows forgotten by the memory, exactly, and by the network, as well as that can be done; and what a
membership attack, or one who asks for secrets, still finds."""

import copy
import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import residua as rs
from experiments.canaries import PROMPTS, leaks
from experiments.cifar100 import networks
from experiments.cifar100.data import CLASS_NAMES, normalise
from experiments.cifar100.resnet import load
from experiments.compress import name_of
from experiments.dampening import Importance, dampened, importance
from experiments.edit import share, shown
from experiments.figures import BASE, KNN, MIXED, RESMEM, dot, legend_below, panels
from experiments.halves import RESAMPLES, percent
from experiments.machine import device_of
from experiments.table import Table
from experiments.work import Work
from residua.core import Encoded
from residua.errors import ParameterError

ALPHAS = (5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
SPENT = 1.0  # points of accuracy that dampening may cost, on rows that are not scored
BATCH = 64  # images of one squared gradient
WAYS = {
    "nothing": "nothing",
    "memory": "`memory.forget`",
    "network": "SSD",
    "both": "both",
    "network alone": "nothing, network without a memory",
    "dampened alone": "SSD, network without a memory",
}
READERS = {
    "base": "the model alone",
    "memory": "kNN-LM",
    "forgotten": "after `forget`",
    "purged": "after `purge`, loaded again",
    "never": "a memory that never held them",
}
ASKED = {"lines": "the lines before", "name": "the name alone"}


def measure(
    work: Work,
    *,
    weights: tuple[str, ...] = (),
    data: str = "data",
    download: bool = False,
    remembered: int = 3000,
    tests: int = 2000,
    forgotten: int = 500,
    category: str = "rocket",
    alphas: tuple[float, ...] = ALPHAS,
    model: str = "../shared/models/code-gpt2",
    secrets: int = 20,
    candidates: int = 64,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Images of one class, and images at random, are forgotten; then documents with secrets.

    Parameters
    ----------
    weights : tuple of str
        Trained CIFAR-ResNets (.safetensors, or their folders), such as the experiment cifar100 leaves.
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    remembered : int
        Training images that are remembered beside those that are to be forgotten.
    tests : int
        Test images that are scored.
    forgotten : int
        Training images to be forgotten, at random; of the class all.
    category : str
        The class.
    alphas : tuple of float
        How many times as important to the forgotten as to the others a parameter must be, to be dampened.
    model : str
        A transformers causal language model, with the split.json of its texts; empty: no text.
    secrets : int
        Secrets in the remembered documents.
    candidates : int
        Secrets, the true one among them, that are compared.
    device : str
        Where networks and memories live.
    """
    if category not in CLASS_NAMES:
        raise ParameterError(f"category={category!r}; expected a class of CIFAR-100, such as 'rocket'")
    if weights:
        networks.split(data, "train", download)
    label = CLASS_NAMES.index(category)
    cells = [(one, data, remembered, tests, forgotten, label, list(alphas), device) for one in weights]
    texts = [(model, device, secrets, candidates)] if model else []
    return {"images": work.map(images, cells, "images"), "text": work.map(leaks, texts, "text")}


def images(
    weights: str,
    data: str,
    remembered: int,
    tests: int,
    forgotten: int,
    label: int,
    alphas: list[float],
    device: str,
) -> dict:
    """One network: ``name``, ``remembered``, ``sets``: what is forgotten -> see ``forget``."""
    model = load(weights).to(device_of(device), memory_format=torch.channels_last)
    (pictures, labels), (asked, truth) = networks.split(data, "train"), networks.split(data, "test")
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    sets = {"one class": np.flatnonzero(labels == label), "at random": np.sort(order[:forgotten])}
    kept = np.sort(order[forgotten:][labels[order[forgotten:]] != label][:remembered])
    chosen = np.arange(len(truth)) % 10 == 0  # settings are chosen by these, the others are scored
    scored = rng.permutation(np.flatnonzero(~chosen))[:tests]
    same = np.setdiff1d(np.flatnonzero(~chosen & (truth == label)), scored)  # more of the class, for its attack
    scored, tuned = np.concatenate([scored, same]), np.flatnonzero(chosen)

    def through(network: torch.nn.Module, which: str, rows: np.ndarray) -> Encoded:
        inputs, answers = (pictures, labels) if which == "train" else (asked, truth)
        found = rs.encode(network, normalise(inputs[rows]), answers[rows], batch_size=networks.BATCH, progress=False)
        found.ids = rows
        return found

    def weighed(rows: np.ndarray) -> Importance:
        rows = np.random.default_rng(0).permutation(rows)
        parts = (rows[at : at + BATCH] for at in range(0, len(rows) - BATCH + 1, BATCH))
        return importance(model, ((normalise(pictures[one]), torch.from_numpy(labels[one])) for one in parts))

    retained, test, settings = (
        through(model, "train", kept),
        through(model, "test", scored),
        through(model, "test", tuned),
    )
    importances, found = weighed(kept), {}
    for name, rows in sets.items():
        one = label if name == "one class" else None
        sides, before = (kept, rows, scored, tuned), (retained, test, settings)
        found[name] = forget(model, through, sides, before, one, (weighed(rows), importances), alphas)
    return {"name": name_of(weights), "remembered": len(kept), "sets": found}


def forget(
    model: torch.nn.Module,
    through: Callable[[torch.nn.Module, str, np.ndarray], Encoded],
    rows: tuple[np.ndarray, ...],
    before: tuple[Encoded, Encoded, Encoded],
    label: int | None,
    importances: tuple[Importance, Importance],
    alphas: list[float],
) -> dict:
    """Rows of training images forgotten in every way: ``ways`` -> see ``answered``; ``sweep`` by α: ``dampened`` (% of
    all parameters), ``forgotten`` and ``others`` (accuracy of the network, the latter on rows that are not scored);
    ``alpha``, the smallest that costs at most ``SPENT`` points there (None: none, then the largest); ``exact``: whether
    all answers after ``memory.forget`` are those of a memory that never held the rows."""
    kept, gone, scored, tuned = rows
    retained, test, settings = before
    leaving = through(model, "train", gone)
    counted = settings.labels != label if label is not None else np.ones(len(settings), bool)
    most, sweep, networks_by_alpha = percent(right(settings)[counted]), [], {}
    for alpha in alphas:
        networks_by_alpha[alpha], part = dampened(model, *importances, alpha=alpha)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a network knows nothing any more is what is measured
            now, others = (
                right(through(networks_by_alpha[alpha], *some)) for some in (("train", gone), ("test", tuned))
            )
        sweep.append(
            {"alpha": alpha, "dampened": 100 * part, "forgotten": percent(now), "others": percent(others[counted])}
        )
    cheap = [one["alpha"] for one in sweep if one["others"] >= most - SPENT]
    alpha = min(cheap, default=max(alphas))
    after = networks_by_alpha[alpha]
    again = [through(after, which, some) for which, some in (("train", kept), ("train", gone), ("test", scored))]
    memories = {}
    for name, (stay, go) in {"before": (retained, leaving), "after": (again[0], again[1])}.items():
        memories[name] = rs.Memory([stay, go])
        forgetful = memories[f"{name}, forgotten"] = copy.copy(memories[name])
        forgetful.forget(gone)
    readers = {name: rs.ResMem(memory) for name, memory in memories.items()}
    never = rs.ResMem(rs.Memory(retained))
    exact = all(
        (
            readers["before, forgotten"].predict_proba(some, exclude=None) == never.predict_proba(some, exclude=None)
        ).all()
        for some in (leaving, test)
    )
    old, new = (leaving, test), (again[1], again[2])
    return {
        "n": len(gone),
        "settings": most,
        "sweep": sweep,
        "alpha": alpha if cheap else None,
        "exact": bool(exact),
        "ways": {
            "nothing": answered(readers["before"], *old, label),
            "memory": answered(readers["before, forgotten"], *old, label),
            "network": answered(readers["after"], *new, label),
            "both": answered(readers["after, forgotten"], *new, label),
            "network alone": answered(readers["before"].with_params(k=0), *old, label),
            "dampened alone": answered(readers["after"].with_params(k=0), *new, label),
        },
    }


def right(rows: Encoded) -> np.ndarray:
    """Which rows the network answers as they are labelled."""
    return rows.logits.argmax().numpy() == rows.labels


def answered(reader: rs.ResMem, gone: Encoded, test: Encoded, label: int | None) -> dict:
    """``forgotten``, ``like`` (unseen test images of the same class, or any) and ``others`` (test images of other
    classes, or any): shares answered rightly; ``attack`` and ``likelihood``: see ``attacked``. No row is left out
    because it is remembered: that is what an attacker may ask."""
    member, unseen = (reader.predict_proba(rows, exclude=None) for rows in (gone, test))
    like = test.labels == label if label is not None else np.ones(len(test), bool)
    others = test.labels != label
    correct = unseen.argmax(axis=1) == test.labels
    signs = traits(member, gone.labels), traits(unseen[like], test.labels[like])
    return {
        "forgotten": share(member.argmax(axis=1) == gone.labels),
        "like": share(correct[like]),
        "others": share(correct[others]),
        "likelihood": area(signs[0][:, 0], signs[1][:, 0]),
        "attack": attacked(*signs),
    }


def traits(said: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What an attacker looks at, (n, 3): the log-odds of the true label (as LiRA takes), the entropy, and the log-odds
    of the likeliest class.

    >>> traits(np.array([[0.75, 0.25]]), np.array([1])).round(3).tolist()
    [[-1.099, 0.562, 1.099]]
    """
    said = said.astype(np.float64).clip(1e-12, 1 - 1e-12)

    def odds(p: np.ndarray) -> np.ndarray:
        return np.log(p) - np.log1p(-p)

    return np.stack(
        [odds(said[np.arange(len(said)), labels]), -(said * np.log(said)).sum(axis=1), odds(said.max(axis=1))], axis=1
    )


def attacked(members: np.ndarray, others: np.ndarray) -> list[float]:
    """Area under ROC, with an interval, of a logistic attack that tells (n, c) traits of members from others, each
    scored by an attack that was fitted on four other fifths: it also finds what is unlikelier than if never seen."""
    x, y = np.concatenate([members, others]), np.repeat([1, 0], [len(members), len(others)])
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = cross_val_predict(model, x, y, cv=folds, method="decision_function")
    return area(scores[y == 1], scores[y == 0])


def area(members: np.ndarray, others: np.ndarray) -> list[float]:
    """[area under ROC, low, high] of members' scores above others', with a 95 % bootstrap interval over both.

    >>> area(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    [1.0, 1.0, 1.0]
    """
    wins = (members[:, None] > others) + (members[:, None] == others) / 2
    rng, draws = np.random.default_rng(0), []
    for _ in range(RESAMPLES // 4):
        first, second = (rng.multinomial(n, np.full(n, 1 / n)) / n for n in wins.shape)
        draws.append(min(1.0, first @ wins @ second))
    low, high = np.quantile(draws, [0.025, 0.975])
    return [float(wins.mean()), float(low), float(high)]


def ratio(found: list[float]) -> str:
    """An area under ROC and its interval."""
    middle, low, high = found
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def tables(results: dict) -> dict[str, Table]:
    """Of each network what is forgotten in each way, and by how strong a dampening; secrets; files."""
    out = {}
    for place, network in enumerate(results["images"], 1):
        for name, found in network["sets"].items():
            heads = ("right, %", "the forgotten", "unseen of their kind", "others", "attack", "likelihood alone")
            rows = [
                [
                    WAYS[way],
                    *(shown(one[part]) for part in ("forgotten", "like", "others")),
                    *(ratio(one[part]) for part in ("attack", "likelihood")),
                ]
                for way, one in found["ways"].items()
            ]
            out[f"{name} {place}"] = Table((f"{network['name']}, {name}", *heads[1:]), rows)
            rows = [
                [
                    f"{one['alpha']:g}" + (" (taken)" if one["alpha"] == found["alpha"] else ""),
                    *(f"{one[part]:.2f}" for part in ("dampened", "forgotten", "others")),
                ]
                for one in found["sweep"]
            ]
            rows.append(
                [
                    "as trained",
                    "0.00",
                    f"{found['ways']['network alone']['forgotten'][0]:.2f}",
                    f"{found['settings']:.2f}",
                ]
            )
            heads = ("parameters dampened, %", "the forgotten right, %", "others right, %")
            out[f"sweep {name} {place}"] = Table((f"{network['name']}, {name}: α", *heads), rows)
    same = {
        f"`memory.forget`, {network['name']}, {name}": found["exact"]
        for network in results["images"]
        for name, found in network["sets"].items()
    }
    for found in results["text"]:
        same |= {f"`rs.lm.forget` and `purge`, {found['gone']} tokens of {found['rows']}": all(found["same"].values())}
        rows = []
        for how, readers in found["said"].items():
            for reader, prompts in readers.items():
                label = READERS[reader] + (f", {how}" if reader != "base" else "")
                bits = ["{:.2f} [{:.2f}, {:.2f}]".format(*prompts[prompt]["exposure"]) for prompt in PROMPTS]
                counts = [str(prompts[prompt][what]) for prompt in PROMPTS for what in ("first", "extracted")]
                rows.append([label, *bits, *counts])
        chance = found["most"] - np.log2(np.arange(1, found["candidates"] + 1)).mean()
        rows.append(["by chance", *[f"{chance:.2f}"] * len(PROMPTS), *[""] * 2 * len(PROMPTS)])
        heads = [f"exposure given {ASKED[prompt]}, bits" for prompt in PROMPTS]
        heads += [f"{what}, given {ASKED[prompt]}" for prompt in PROMPTS for what in ("ranked first", "recited")]
        out["secrets"] = Table((f"{found['secrets']} secrets among {found['candidates']} candidates", *heads), rows)
        rows = [[step, str(count)] for step, count in found["files"].items()]
        out["files"] = Table(("the folder, once the memory was", f"secrets in its files, of {found['secrets']}"), rows)
    exact = [[what, "all" if one else "not all"] for what, one in same.items()]
    out["exact"] = Table(("probabilities, bit for bit those of a memory that never held the rows", ""), exact)
    return out


def draw(results: dict) -> Figure:
    """Of each network and set the area under ROC of the attack; of the secrets the exposure."""
    sets = [(network["name"], name, found) for network in results["images"] for name, found in network["sets"].items()]
    figure, (row,) = panels(1, len(sets) + len(results["text"]), (4.6 * (len(sets) + len(results["text"])), 3.8))
    colours = dict(zip(WAYS, (BASE, RESMEM, MIXED, "#111111", KNN, KNN)))
    for axes, (network, name, found) in zip(row, sets):
        for y, (way, one) in enumerate(found["ways"].items()):
            dot(axes, one["attack"][0], y, one["attack"][1:], colour=colours[way], horizontal=True)
        axes.axvline(0.5, color=BASE, lw=1)
        axes.set_yticks(range(len(WAYS)), labels=[label.replace("`", "") for label in WAYS.values()], fontsize=8)
        axes.set(xlabel="area under ROC of the attack", title=f"{network}\n{name}", ylim=(len(WAYS) - 0.5, -0.5))
        axes.title.set_fontsize(9)
    for axes, found in zip(row[len(sets) :], results["text"]):
        rows = [
            (f"{READERS[reader]}" + (f", {how}" if reader != "base" else ""), prompts)
            for how, readers in found["said"].items()
            for reader, prompts in readers.items()
        ]
        for prompt, colour in zip(PROMPTS, (RESMEM, MIXED)):
            for y, (_, prompts) in enumerate(rows):
                middle, *ends = prompts[prompt]["exposure"]
                label = f"given {ASKED[prompt]}" if y == 0 else None
                dot(
                    axes,
                    middle,
                    y + (0.15 if prompt == "name" else -0.15),
                    ends,
                    colour=colour,
                    horizontal=True,
                    label=label,
                )
        axes.axvline(found["most"], color=BASE, lw=1)
        axes.set_yticks(range(len(rows)), labels=[label.replace("`", "") for label, _ in rows], fontsize=8)
        axes.set(xlabel="exposure, bits", title="secrets", ylim=(len(rows) - 0.5, -0.5))
        axes.title.set_fontsize(9)
        legend_below(figure, axes)
    return figure
