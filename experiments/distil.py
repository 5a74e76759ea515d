"""A student that has learned what the neighbours say, beside its teacher, and beside itself taught by labels alone."""

import math
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.special import softmax

import residua as rs
from experiments.cifar100 import networks
from experiments.cifar100.data import normalise
from experiments.cifar100.resnet import load
from experiments.figures import BASE, DARK, KNN, LIGHT, legend_below, panels
from experiments.gate import told
from experiments.knnlm.language import Language
from experiments.knnlm.texts import pairs
from experiments.machine import device_of
from experiments.pooled import GRID as PLACES
from experiments.pooled import LMBDA, SIGMA, differences, factor, judged, small
from experiments.shown import interval
from experiments.table import Table
from experiments.work import Work
from residua.core import Encoded, as_tensor
from residua.errors import ParameterError
from residua.readers import Reader
from residua.readers.own_rows import own_rows

OWN = 8000  # of the memory's own rows, each without itself, that the teacher is tuned on: no test row
BATCHES = (1, 8, 64)
REPEAT, WARM_UP = 60, 10
ALONE = {"lmbda": 1.0}
# Of each reader: what it is called, and, where it is a student, how it was taught.
READERS: dict[str, tuple[str, dict | None]] = {
    "base": ("base, T tuned", None),
    "teacher": ("the teacher: k-NN interpolation, tuned on the memory's own rows", None),
    "interpolation": ("k-NN interpolation, tuned on test rows", None),
    "student": ("**student, alone**", {}),
    "labels": ("the same, taught by labels alone", {"imitation": 0.0}),
    "mixed": ("**student, mixed in**, λ tuned", {}),
    "labels_mixed": ("the same, taught by labels alone", {"imitation": 0.0}),
    "residual": ("**student, residual read-out**, γ tuned", {"readout": "residual"}),
    "labels_residual": ("the same, taught by labels alone", {"readout": "residual", "imitation": 0.0}),
}
PAIRS = (
    ("student", "teacher"),
    ("student", "interpolation"),
    ("student", "labels"),
    ("mixed", "interpolation"),
    ("mixed", "labels_mixed"),
    ("residual", "interpolation"),
    ("residual", "labels_residual"),
    ("residual", "mixed"),
)
TEXT = {
    "knnlm": "kNN-LM, tuned",
    "student": "**student, mixed in**, λ tuned",
    "labels": "the same, taught by labels alone",
}


def measure(
    work: Work,
    *,
    weights: tuple[str, ...] = ("results/networks/resnet8-100percent-256epochs-seed0-epoch128.safetensors",),
    data: str = "../shared/data/cifar100",
    image_epochs: int = 50,
    model: str = "",
    domain: str = "package:sklearn",
    glob: str = "**/*.py",
    domain_tokens: int = 150_000,
    eval_tokens: int = 20_000,
    window: int = 256,
    stride: int = 192,
    epochs: int = 3,
    rate: float = 2e-3,
    index: str = "knnlm-fast",
    checkpoints: str = "out/knnlm",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Images, and with --model text.

    Parameters
    ----------
    weights : tuple of str
        Trained CIFAR-ResNets (.safetensors, or their folders); - is none.
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    image_epochs : int
        Of a student of images.
    model : str
        A transformers causal language model: folder or name.
    domain : str
        Text that the model never saw: a folder, or package:NAME (its source).
    glob : str
        Which files of a folder.
    domain_tokens : int
        Tokens to remember.
    eval_tokens : int
        Tokens to score; half as many others are tuned on.
    window : int
        Tokens the model sees at a time.
    stride : int
        By how much windows advance.
    epochs : int
        Of a student of text, in steps of 256 tokens.
    rate : float
        Of a student of text.
    index : str
        Of the text's memory, as rs.Memory takes it.
    checkpoints : str
        Folder for the text's memory.
    device : str
        Where models and memories live.
    """
    weights = tuple(file for file in weights if file != "-")
    if not weights and not model:
        raise ParameterError("neither weights nor a model is given; expected trained networks' files, or --model")
    found: dict[str, Any] = {
        "networks": work.map(images, [(file, data, device, image_epochs) for file in weights], desc="images")
    }
    sizes = {"memory_tokens": domain_tokens, "eval_tokens": eval_tokens, "window": window, "stride": stride}
    settings = {"model": model, "texts": "", "validation": "", "test": "", "glob": glob, "index": index}
    settings |= {"checkpoints": checkpoints, "device": device, **sizes}
    return found | {
        "texts": work.map(
            text,
            [(settings, domain, {"epochs": epochs, "rate": rate, "batch_size": 256})] if model else [],
            desc="text",
        )
    }


def images(weights: str, data: str, device: str, epochs: int) -> dict:
    """``network``, ``memory`` and ``n`` (rows), ``readers``: name -> as ``pooled.judged`` says; ``pairs``: two names ->
    ``pooled.differences``; ``teacher`` (its settings), ``seconds`` (to teach each), ``bytes``, and ``latency``."""
    remembered, test = networks.encoded(weights, data, 1.0, 0, device)
    memory = rs.Memory(remembered, device=device_of(device))
    teacher = teacher_of(memory)
    students, seconds = dict[str, rs.Distilled](), dict[str, float]()
    for name, (_, how) in READERS.items():
        if how is not None:
            known = next((other for other in students if READERS[other][1] == how), None)
            start = time.process_time()
            students[name] = students[known] if known else rs.distil(teacher, epochs=epochs, progress=False, **how)
            if known is None:
                seconds[name] = time.process_time() - start
    said = answers(memory, teacher, students, test)
    path = Path(weights)
    per_row = memory.bytes_per_row
    return {
        "network": path.stem if path.suffix == ".safetensors" else path.name,
        "memory": len(memory),
        "n": len(test),
        "readers": {name: judged(table, test.labels, said["base"]) for name, table in said.items()},
        "pairs": {f"{one}, {other}": differences(said[one], said[other], test.labels) for one, other in PAIRS},
        "teacher": {name: teacher.params[name] for name in ("k", "sigma", "temperature", "lmbda")},
        "seconds": seconds,
        "bytes": {"student": students["student"].student.nbytes, "memory": sum(per_row.values()) * len(memory)},
        "latency": latency(weights, data, {"student": students["student"].with_params(**ALONE), "teacher": teacher}),
    }


def teacher_of(memory: rs.Memory) -> rs.KNNLM:
    """Interpolation with settings of the memory's own rows, each answered without itself."""
    rows, reader = list(own_rows(memory, OWN)), rs.KNNLM(memory, kernel="exponential")
    best = rs.tune(reader, rows, grid_of(memory), evidence=None, progress=False)
    found = best.results_
    heard = np.flatnonzero(found["k"] > 0)  # a teacher has something to say
    at = heard[found["score"][heard].argmax()]
    return reader.with_params(**{name: found[name][at].item() for name in best.best_params_})


def grid_of(memory: rs.Memory) -> dict[str, Any]:
    """What interpolations are tuned over."""
    grid = PLACES | {"sigma": SIGMA * memory.median_nn_distance(), "lmbda": LMBDA}
    return grid | {"k": [k for k in PLACES["k"] if k <= len(memory)]}


def answers(
    memory: rs.Memory, teacher: rs.KNNLM, students: dict[str, rs.Distilled], test: Encoded
) -> dict[str, np.ndarray]:
    """Of each reader its probabilities of all test rows (n, L). What is tuned is tuned on the other half of them."""
    said = {name: np.empty((len(test), memory.n_outputs), np.float32) for name in READERS}
    logits = test.logits.dense().numpy()
    said["teacher"] = teacher.predict_proba(test)
    for name in ("student", "labels"):
        said[name] = students[name].with_params(**ALONE).predict_proba(test)
    for half in (0, 1):
        seen, asked = slice(1 - half, None, 2), slice(half, None, 2)
        always: dict[str, Any] = {"evidence": None, "progress": False}
        said["base"][asked] = softmax(logits[asked] * factor(logits[seen], test.labels[seen]), axis=1)
        mixed = rs.KNNLM(memory, kernel="exponential")
        best = rs.tune(mixed, test[seen], grid_of(memory), **always)
        said["interpolation"][asked] = best.predict_proba(test[asked])
        for name in ("mixed", "labels_mixed", "residual", "labels_residual"):
            best = rs.tune(students[name], test[seen], **always)
            said[name][asked] = best.predict_proba(test[asked])
    return said


def latency(weights: str, data: str, readers: dict[str, Reader]) -> dict:
    """Median milliseconds of a batch through the network alone (``base``) and with each reader attached, in turn, on
    the CPU, by batch size; and ``threads``."""
    ways = {"base": load(weights)} | {name: load(weights) for name in readers}
    test, found = networks.split(data, "test")[0], {}
    handles = [rs.attach(ways[name], reader) for name, reader in readers.items()]
    with torch.inference_mode():
        for batch in BATCHES:
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for i in range(WARM_UP + REPEAT):
                x = normalise(test[np.arange(i * batch, (i + 1) * batch) % len(test)])
                for name, network in ways.items():
                    start = time.perf_counter()
                    network(x)
                    taken[name].append(1000 * (time.perf_counter() - start))
            found[str(batch)] = {name: float(np.median(times[WARM_UP:])) for name, times in taken.items()}
    for handle in handles:
        handle.detach()
    return {"milliseconds": found, "threads": torch.get_num_threads()}


def text(settings: dict, domain: str, how: dict) -> dict:
    """``name``, ``rows``, ``base`` (perplexity), ``tokens``; ``readers``: by name what ``gate.told`` gives against the
    model alone, ``lmbda``, the ``share`` of kNN-LM's gain in log-perplexity, and ``microseconds`` a token takes;
    ``over_labels``: the student against itself taught by labels alone; ``seconds`` to teach each, and ``bytes`` of the
    student."""
    language = Language(settings)
    documents = language.texts(domain)
    memory = language.remember(pairs(documents.memory), "distil")
    memory.index = memory.index.index  # many are asked once: their answers are not kept
    tune, score = (list(part) for part in language.sets(documents, memory))
    always: dict[str, Any] = {"evidence": None, "progress": False}
    teacher, seconds = rs.tune(rs.KNNLM(memory), tune, **always), {}
    made: dict[str, Reader] = {"knnlm": teacher}
    students = dict[str, rs.Distilled]()
    for name, imitation in (("student", 0.5), ("labels", 0.0)):
        start = time.process_time()
        students[name] = rs.distil(teacher, imitation=imitation, progress=False, **how)
        seconds[name] = time.process_time() - start
        made[name] = rs.tune(students[name], tune, **always)
    silent = teacher.with_params(k=0)
    alone = rs.evaluate(silent, score, label_knn=False, progress=False)
    found = {name: rs.evaluate(one, score, label_knn=False, progress=False) for name, one in made.items()}
    whole = math.log(alone.perplexity / found["knnlm"].perplexity)
    without = seconds_of(silent, score)
    readers = {}
    for name, one in found.items():
        took = (seconds_of(made[name], score) - without) / one.n
        about = {"lmbda": made[name].params["lmbda"], "microseconds": 1e6 * took}
        about["share"] = 100 * math.log(alone.perplexity / one.perplexity) / whole
        readers[name] = told(one, alone, made[name]) | about
    return {
        "name": domain.removeprefix("package:"),
        "rows": len(memory),
        "base": alone.perplexity,
        "tokens": alone.n,
        "taught": how,
        "readers": readers,
        "over_labels": told(found["student"], found["labels"], made["student"])["change"],
        "seconds": seconds,
        "bytes": students["student"].student.nbytes,
    }


def seconds_of(reader: Reader, rows: list[Encoded]) -> float:
    """To read rows and say how likely each true token was; the quicker of two times."""
    taken = []
    for _ in range(2):
        start = time.process_time()
        for part, now in reader.predictions(rows):
            now.log_prob(as_tensor(part.labels))
        taken.append(time.process_time() - start)
    return min(taken)


def tables(results: dict) -> dict[str, Table]:
    """Of each network every reader, and what it costs; pairs of readers; and of text."""
    out = {}
    for place, network in enumerate(results["networks"]):
        rows = []
        for name, found in network["readers"].items():
            gain = "" if name == "base" else interval(found["over"]["accuracy"])
            lost = "" if name == "base" else small(found["over"]["log_loss"])
            numbers = (f"{found['accuracy']:.2f}", gain, f"{found['log_loss']:.3f}", lost, f"{found['ece']:.1f}")
            rows.append([READERS[name][0], *numbers])
        columns = (network["network"], "accuracy, %", "over the base, points", "log-loss", "over the base", "ECE, %")
        out[f"network {place + 1}"] = Table(columns, rows)
        threads, taken = network["latency"]["threads"], network["latency"]["milliseconds"]
        what = f"milliseconds a batch, {threads} CPU thread{'s' * (threads > 1)}"
        rows = [
            [
                f"{batch} image{'s' * (batch != '1')}",
                f"{one['base']:.2f}",
                *(f"{one[name]:.2f} ({100 * (one[name] / one['base'] - 1):+.0f} %)" for name in ("student", "teacher")),
            ]
            for batch, one in taken.items()
        ]
        rows.append(["MB", "", *(f"{network['bytes'][name] / 1e6:.2f}" for name in ("student", "memory"))])
        out[f"cost {place + 1}"] = Table((what, "the network alone", "with the student", "with the teacher"), rows)
    if results["networks"]:
        out["pairs"] = pairs_table(results["networks"])
    return out | ({"text": table(results["texts"][0])} if results["texts"] else {})


def pairs_table(found: list[dict]) -> Table:
    """How far readers are apart on each network."""
    rows = []
    for pair in found[0]["pairs"]:
        one, other = (_called(name) for name in pair.split(", "))
        each = [network["pairs"][pair] for network in found]
        rows.append([f"{one} - {other}", *(interval(difference["accuracy"], bold=True) for difference in each)])
        rows.append(["log-loss", *(small(difference["log_loss"]) for difference in each)])
    return Table(("difference", *(network["network"] for network in found)), rows)


def table(one: dict) -> Table:
    """Of a text every reader."""
    rows = [["the model alone", f"{one['base']:.2f}", "", "", "", "", ""]]
    for name, found in one["readers"].items():
        numbers = (f"{found['perplexity']:.2f}", interval(found["change"]), f"{found['share']:.0f}")
        taught = f"{one['seconds'][name]:.0f}" if name in one["seconds"] else ""
        rows.append([TEXT[name], *numbers, f"{found['lmbda']:.2f}", f"{found['microseconds']:.0f}", taught])
    rows.append(["student - the same, taught by labels alone", "", interval(one["over_labels"]), "", "", "", ""])
    heads = (one["name"], "perplexity", "change, %", "of kNN-LM's gain, %", "λ", "µs a token", "to teach it, s")
    return Table(heads, rows)


def _called(name: str) -> str:
    taught = " taught by labels alone" if name.startswith("labels") else ""
    which = name.replace("labels", "student").replace("student_", "") if taught else name
    return READERS[which][0].replace("*", "") + taught


def draw(results: dict) -> Figure:
    """Of each network the readers by log-loss and accuracy: better is up and left; of text their perplexities."""
    networks_ = results["networks"]
    if not networks_:
        (one,) = results["texts"]
        figure, ((axes,),) = panels(1, 1, (7, 2.4))
        shown = {"the model alone": one["base"]} | {
            TEXT[name].replace("*", ""): found["perplexity"] for name, found in one["readers"].items()
        }
        axes.barh(list(shown)[::-1], list(shown.values())[::-1], color=[LIGHT, DARK, KNN, BASE])
        axes.set(xlabel="perplexity", title=one["name"])
        return figure
    figure, (row,) = panels(1, len(networks_), (4.8 * len(networks_), 4.6))
    colours = {"base": BASE, "teacher": KNN, "interpolation": KNN}
    for axes, network in zip(row, networks_):
        for name, marker in zip(READERS, "sovDd^<P*"):
            found = network["readers"][name]
            colour = colours.get(name, LIGHT if name.startswith("labels") else DARK)
            axes.plot(found["log_loss"], found["accuracy"], marker, color=colour, label=_called(name), ms=8, alpha=0.85)
        axes.set(xlabel="log-loss", ylabel="accuracy, %", title=network["network"])
        axes.title.set_fontsize(9)
        axes.margins(0.08)
    legend_below(figure, row)
    return figure
