"""How small a memory may be: rows merged, quantised, pruned or drawn at random, by what they keep of its gain."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure

import residua as rs
from experiments.cifar100 import networks
from experiments.figures import BASE, DARK, KNN, LIGHT, MIXED, legend_below, panels
from experiments.gate import told
from experiments.halves import crossed, paired, percent
from experiments.knnlm.language import Language
from experiments.knnlm.texts import pairs
from experiments.shown import interval
from experiments.table import Table
from experiments.work import Work
from residua.core import Encoded
from residua.errors import ParameterError

ROWS = (500, 1000, 5000, 10_000)
CODES = ("SQ8", "PQ64x4fs")
WAYS = {
    "whole": "all rows",
    "merged": "**merged**",
    "head": "merged, answers by the head from the mean key",
    "quantised": "all rows, quantised",
    "random": "random rows",
    "pruned": "rows of the largest residuals",
}
GRID: dict[str, list] = {"k": [5, 10, 20, 53, 130, 260], "temperature": [0.7, 1.0, 1.4, 2.0]}
SIGMA = 2.0 ** np.arange(-4, 1)  # in multiples of the typical distance between neighbours
SHARES = (0.05, 0.2, 0.5)  # of the tokens of a text that are left
TEXT = {"whole": "all tokens", "merged": "**merged**, by next token and context", "random": "random tokens"}
APART = ("index", "members")  # bytes that a row of the memory itself does not have


def measure(
    work: Work,
    *,
    weights: tuple[str, ...] = (),
    rows: tuple[int, ...] = ROWS,
    data: str = "data",
    download: bool = False,
    model: str = "",
    domain: str = "package:sklearn",
    domain_tokens: int = 150_000,
    eval_tokens: int = 20_000,
    checkpoints: str = "out/knnlm",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Tune ResMem for accuracy on the even test rows and score the odd ones, and the reverse, over each small memory.

    Parameters
    ----------
    weights : tuple of str
        Trained CIFAR-ResNets (.safetensors, or their folders).
    rows : tuple of int
        How many are left.
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    model : str
        A transformers causal language model, for text as well.
    domain : str
        Text that the model never saw: a folder, or package:NAME (its source).
    domain_tokens : int
        Tokens to remember.
    eval_tokens : int
        Tokens to score; half as many others are tuned on.
    checkpoints : str
        Folder for the text's memory.
    device : str
        Where networks live.
    """
    if not weights and not model:
        raise ParameterError("neither weights nor a model is given; expected trained networks' files, or --model")
    if weights:
        networks.split(data, "train", download)
    wanted = [("whole", 0), *(("quantised", code) for code in CODES)]
    wanted += [(way, n) for way in ("merged", "head", "random", "pruned") for n in rows]
    found = []
    for file in weights:
        cells = [(file, data, device, way, size) for way, size in wanted]
        points = work.map(kept, cells, desc=Path(file).stem)
        found.append({"network": name_of(file), "points": points})
    settings = {"model": model, "texts": "", "validation": "", "test": "", "glob": "**/*.py", "index": "exact"}
    settings |= {"memory_tokens": domain_tokens, "eval_tokens": eval_tokens, "window": 256, "stride": 192}
    settings |= {"checkpoints": checkpoints, "device": device}
    ways = [("whole", 1.0), *((way, share) for way in ("merged", "random") for share in SHARES)]
    texts = work.map(kept_text, [(settings, domain, *one) for one in ways] if model else [], desc="text")
    return {"networks": found, "texts": texts}


def name_of(weights: str) -> str:
    """What a network is called."""
    path = Path(weights)
    return path.stem if path.suffix == ".safetensors" else path.name


def kept(weights: str, data: str, device: str, way: str, size: int | str) -> dict:
    """``way``, ``size``, ``rows``, ``bytes`` (of all rows, without an index of the keys themselves), ``base`` and
    ``accuracy`` in %, and the ``gain`` over the base, [difference, low, high], paired."""
    remembered, test = networks.encoded(weights, data, 1.0, 0, device)
    memory = small(remembered, way, size)
    right = {"base": test.logits.argmax().numpy() == test.labels, "reader": answers(memory, test) == test.labels}
    gain = paired(right["reader"], right["base"], np.random.default_rng(0))[:3]
    return {
        "way": way,
        "size": size,
        "rows": len(memory),
        "bytes": bytes_of(memory),
        "base": percent(right["base"]),
        "accuracy": percent(right["reader"]),
        "gain": list(gain),
    }


def small(remembered: Encoded, way: str, size: int | str) -> rs.Memory:
    """A memory of these rows made small in one of ``WAYS``."""
    if way == "whole":
        return rs.Memory(remembered)
    if way == "quantised":
        memory = rs.Memory(remembered, index=str(size), storage="head")
        memory.discard_keys()
        return memory
    count = int(size)
    if way == "random":
        return rs.Memory(remembered[np.sort(np.random.default_rng(0).choice(len(remembered), count, replace=False))])
    if way == "pruned":
        said = torch.softmax(remembered.logits.dense(), dim=1)[torch.arange(len(remembered)), remembered.labels]
        return rs.Memory(remembered[np.sort(np.argsort(said.numpy(), kind="stable")[:count])])
    return rs.Memory(remembered, storage="head" if way == "head" else "full").compress(rows=count)


def answers(memory: rs.Memory, test: Encoded) -> np.ndarray:
    """What tuned ResMem says of every test row, int (n,), by settings that did not see it."""
    grid = GRID | {"sigma": list(SIGMA * memory.median_nn_distance())}
    grid["k"] = [k for k in GRID["k"] if k <= len(memory)]
    return crossed(rs.ResMem(memory, k=1), test, grid)[0]


def bytes_of(memory: rs.Memory) -> int:
    """Bytes of all rows: their columns, and of keys that were discarded their codes."""
    each = memory.bytes_per_row
    apart = APART if memory.keys_kept else APART[1:]
    return sum(size for name, size in each.items() if name not in apart) * len(memory)


def kept_text(settings: dict, domain: str, way: str, left: float) -> dict:
    """``way``, ``rows``, ``bytes``, ``base`` (perplexity), and of kNN-LM, tuned on other documents, what ``gate.told``
    says against the model alone."""
    language = Language(settings)
    documents = language.texts(domain)
    memory = language.remember(pairs(documents.memory), "compress")
    tune, score = (list(part) for part in language.sets(documents, memory))
    few = fewer(language, documents.memory, memory, way, round(left * len(memory)))
    reader = rs.tune(rs.KNNLM(few), tune, evidence=None, progress=False)
    found, alone = (rs.evaluate(one, score, label_knn=False, progress=False) for one in (reader, rs.KNNLM(few, k=0)))
    about = {"way": way, "rows": len(few), "bytes": bytes_of(few), "base": alone.perplexity}
    return about | told(found, alone, reader)


def fewer(language: Language, texts: list, memory: rs.Memory, way: str, rows: int) -> rs.Memory:
    """A memory of text made small."""
    if way == "merged":
        return memory.compress(rows=rows)
    if way == "whole":
        return memory
    drawn = np.zeros(len(memory), bool)
    drawn[np.random.default_rng(0).choice(len(memory), rows, replace=False)] = True
    parts, start = [], 0
    for part in language.encoded(texts, memory):
        parts.append(part[np.flatnonzero(drawn[start : start + len(part)])])
        start += len(part)
    return rs.Memory([part for part in parts if len(part)], storage="none", key_dtype=memory.schema.key_dtype)


def share(point: dict, whole: dict) -> float:
    """How much of the whole memory's gain is left, in %."""
    return 100 * point["gain"][0] / whole["gain"][0]


def tables(results: dict) -> dict[str, Table]:
    """Of each network every small memory."""
    out = {}
    for place, network in enumerate(results["networks"]):
        whole, *_ = network["points"]
        rows = []
        for point in network["points"]:
            name = WAYS[point["way"]] + (f", {point['size']}" if point["way"] == "quantised" else "")
            size = point["bytes"] / 1e6
            numbers = (f"{point['rows']:,}", f"{size:.2f}" if size < 10 else f"{size:.1f}", f"{point['accuracy']:.2f}")
            rows.append([name, *numbers, interval(point["gain"]), f"{share(point, whole):.0f}"])
        title = f"{network['network']}, base {whole['base']:.2f} %"
        columns = (title, "rows", "MB", "accuracy, %", "over the base, points", "of the gain, %")
        out[f"network {place + 1}"] = Table(columns, rows)
    if results.get("texts"):
        whole, *_ = results["texts"]
        title = f"scikit-learn, base {whole['base']:.2f}"
        columns = (title, "tokens", "MB", "perplexity", "change, %", "of the gain, %")
        out["text"] = Table(columns, [text_row(one, whole) for one in results["texts"]])
    return out


def text_row(one: dict, whole: dict) -> list[str]:
    """A small memory of text; its share is of the gain in log-perplexity."""
    gain = 100 * np.log(one["base"] / one["perplexity"]) / np.log(whole["base"] / whole["perplexity"])
    numbers = (f"{one['rows']:,}", f"{one['bytes'] / 1e6:.1f}", f"{one['perplexity']:.2f}")
    return [TEXT[one["way"]], *numbers, interval(one["change"]), f"{gain:.0f}"]


def draw(results: dict) -> Figure:
    """Of each network the gain by bytes; of text alone the perplexity by tokens."""
    found = results["networks"]
    if not found:
        return draw_text(results["texts"])
    figure, (row,) = panels(1, len(found), (7.6 * len(found), 4.4))
    colours = [BASE, DARK, LIGHT, MIXED, KNN, "#B8B8B8"]
    for axes, network in zip(row, found):
        for (way, label), colour, marker in zip(WAYS.items(), colours, "*os^DX"):
            points = sorted((point for point in network["points"] if point["way"] == way), key=lambda p: p["bytes"])
            sizes, gains = [p["bytes"] / 1e6 for p in points], [p["gain"][0] for p in points]
            axes.plot(sizes, gains, marker=marker, color=colour, label=label.replace("*", ""), ms=7, lw=1.4)
        axes.axhline(0, color=BASE, lw=1)
        axes.set(xscale="log", xlabel="MB of rows", ylabel="points over the base", title=network["network"])
        axes.title.set_fontsize(10)
    legend_below(figure, row, columns=2)
    return figure


def draw_text(found: list[dict]) -> Figure:
    """Perplexity by tokens that are left."""
    figure, ((axes,),) = panels(1, 1, (6, 3.6))
    whole = found[0]
    for way, colour, marker in (("merged", DARK, "o"), ("random", KNN, "D")):
        points = sorted((one for one in found if one["way"] == way), key=lambda one: one["rows"])
        points.append(whole)
        rows, perplexities = [one["rows"] for one in points], [one["perplexity"] for one in points]
        axes.plot(rows, perplexities, marker=marker, color=colour, label=TEXT[way].replace("*", ""), lw=1.4)
    axes.set(xscale="log", xlabel="tokens remembered", ylabel="perplexity")
    axes.set_xticks(rows, [f"{count:,}" for count in rows])
    axes.minorticks_off()
    legend_below(figure, [axes])
    return figure
