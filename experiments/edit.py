"""Edits: wrong answers of an image network and of a code model set right, one after another, beside two ways to do
without them."""

import copy
import re
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure

import residua as rs
from experiments.cifar100 import networks
from experiments.cifar100.data import SIDE, normalise
from experiments.cifar100.recipe import PAD
from experiments.cifar100.resnet import load
from experiments.figures import BASE, KNN, LIGHT, MIXED, RESMEM, dot, legend_below, panels
from experiments.halves import percent, wilson
from experiments.knnlm.cached_index import CachedIndex
from experiments.knnlm.language import Language
from experiments.knnlm.texts import Text
from experiments.machine import device_of
from experiments.table import Table
from experiments.work import Work
from residua.core import Encoded
from residua.errors import InputError
from residua.readers import Reader

PAPER = {"k": 53, "sigma": 0.7, "temperature": 1.4}  # ResMem's settings on this data
REACHES = (0.5, 0.75, 0.9, 1.0)
CROPS = 4  # random ones of each image
STEPS, RATE = 300, 0.01  # of Adam on the head; it stops where all examples are right
GROUP = 100  # edits of one age
WAYS = {
    "none": "ResMem, without an edit",
    "edits": "`rs.edit`",
    "added": "`memory.add` of the same examples, read by ResMem",
    "head": "the head fine-tuned on them",
    "replay": "the head fine-tuned on them and on as many remembered rows, drawn anew at each step",
}
COLOURS = {"none": LIGHT, "edits": RESMEM, "added": KNN, "head": BASE, "replay": MIXED}
TEXT_WAYS = {"edits": "`rs.edit`", "added": "`memory.add` of the same rows, read by kNN-LM (λ 0.25)"}
VIEWS = {"reliability": "reliability", "flips": "flips", "crops": "crops", "locality": "others unchanged"}
TOLD = {"reliability": "reliability", "shorter": "two lines before it", "elsewhere": "another file before it"}
FACT = re.compile(r"( *[\w.\[\]'\"]+ =)( .{2,30})")  # a name, and what it is set to
BEFORE, FEW = 12, 2  # lines
OTHERS = 10_000  # tokens of documents that no edit is about


def measure(
    work: Work,
    *,
    weights: tuple[str, ...] = (),
    data: str = "data",
    download: bool = False,
    counts: tuple[int, ...] = (100, 500, 1000),
    others: int = 100_000,
    model: str = "../shared/models/code-gpt2",
    memory_tokens: int = 200_000,
    eval_tokens: int = 60_000,
    facts: int = 200,
    checkpoints: str = "out/edit",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Images, what many more edits leave of the first ones, and text.

    Parameters
    ----------
    weights : tuple of str
        Trained CIFAR-ResNets (.safetensors, or their folders), such as the experiment cifar100 leaves.
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    download : bool
        Let torchvision fetch the data.
    counts : tuple of int
        Edits after which all is measured.
    others : int
        Edits made after the first ones, whose age is then measured; 0: none.
    model : str
        A transformers causal language model, with the split.json of its texts; empty: no text.
    memory_tokens : int
        Tokens of its own domain to remember.
    eval_tokens : int
        Tokens of held-out documents, of which up to 10 000 are asked; half as many others hold the lines to edit.
    facts : int
        Lines to be edited.
    checkpoints : str
        Folder for the memory of text.
    device : str
        Where networks and memories live.
    """
    cells = [(one, data, list(counts), device) for one in weights]
    networks.split(data, "train", download)
    aged = [(weights[0], data, others, device)] if weights and others else []
    settings = {"model": model, "texts": "", "validation": "", "test": "", "glob": "**/*.py", "window": 256}
    settings |= {"stride": 192, "index": "exact", "memory_tokens": memory_tokens, "eval_tokens": eval_tokens}
    settings |= {"checkpoints": checkpoints, "device": device}
    first = work.map(images, cells[:1], "images")
    after, told = work.map(ages, aged, "ages"), work.map(text, [(settings, facts)] if model else [], "text")
    return {"images": first + work.map(images, cells[1:], "images"), "ages": after, "text": told}


def share(right: np.ndarray) -> list[float]:
    """[%, low, high] of true values, with Wilson's 95 % interval."""
    return wilson(int(right.sum()), len(right))


def images(weights: str, data: str, counts: list[int], device: str) -> dict:
    """Misclassified test images of one network, edited one after another: ``n``, ``rest`` (that are no edits), ``base``
    (accuracy), ``ways``: count -> shares; ``first``: of the first edits; ``reach``: of all by radius; ``undone``,
    ``undone_half``: % of answers as if the edits had never been; ``seconds`` of one."""
    plain, test, views = encoded(weights, data, device)
    memory = copy.copy(plain)
    memory.index = CachedIndex(memory.index, PAPER["k"])  # the same images are asked about many times
    reader = rs.ResMem(memory, **PAPER)
    before = reader.predict(test)
    wrong = np.random.default_rng(0).permutation(np.flatnonzero(before != test.labels))
    wrong = wrong[distinct(test.keys[wrong])][: max(counts)]  # twins have labels of their own
    counts = [count for count in counts if count <= len(wrong)]
    rest = np.setdiff1d(np.arange(len(test)), wrong)

    def seen(answer: Callable[[Encoded], np.ndarray], rows: np.ndarray, unchanged: np.ndarray) -> dict:
        flips, *crops = (answer(view[rows]) == test.labels[rows] for view in views)
        now = answer(test[rest])
        return {
            "reliability": share(answer(test[rows]) == test.labels[rows]),
            "flips": share(flips),
            "crops": share(np.concatenate(crops)),
            "locality": share(now == unchanged[rest]),
            "accuracy": [percent(unchanged[rest] == test.labels[rest]), percent(now == test.labels[rest])],
        }

    edited, ways, seconds = reader, {name: {} for name in WAYS}, 0.0
    first: dict[int, dict] = {}
    for start, stop in pairwise([0, *counts]):
        begun = time.perf_counter()
        for row in wrong[start:stop]:
            edited = rs.edit(edited, test[int(row)])
        seconds += time.perf_counter() - begun
        rows = wrong[:stop]
        ways["none"][stop] = seen(reader.predict, rows, before)
        ways["edits"][stop] = seen(edited.predict, rows, before)
        first[stop] = seen(edited.predict, wrong[: counts[0]], before)
        added = copy.copy(plain)
        added.add(test[rows])
        ways["added"][stop] = seen(rs.ResMem(added, **PAPER).predict, rows, before)
        alone = test.logits.argmax().numpy()
        for name, replay in (("head", False), ("replay", True)):
            ways[name][stop] = seen(tuned_head(weights, test[rows], memory if replay else None), rows, alone)
    assert isinstance(edited, rs.Edited)
    by_reach = {reach: seen(edited.with_params(reach=reach).predict, wrong, before) for reach in REACHES}
    half = rs.edit(reader, test[wrong[1::2]])
    edited.edits.forget(edited.edits.ids[::2])
    undone_half = percent(edited.predict(test) == half.predict(test))
    edited.edits.forget(edited.edits.ids)
    return {
        "name": Path(weights).stem,
        "n": len(test),
        "rest": len(rest),
        "base": percent(before == test.labels),
        "ways": ways,
        "first": first,
        "reach": by_reach,
        "undone_half": undone_half,
        "undone": percent((edited.predict_proba(test) == reader.predict_proba(test)).all(axis=1)),
        "seconds": seconds / len(wrong),
    }


def distinct(keys: np.ndarray) -> np.ndarray:
    """The first row of each key, in order."""
    return np.sort(np.unique(keys, axis=0, return_index=True)[1])


def encoded(weights: str, data: str, device: str) -> tuple[rs.Memory, Encoded, list[Encoded]]:
    """The memory of the training images, the test images, and these mirrored, and cut four times."""
    remembered, test = networks.encoded(weights, data, 1.0, 0, device)
    pictures, labels = networks.split(data, "test")
    model = load(weights).to(device_of(device), memory_format=torch.channels_last)
    rng = np.random.default_rng(1)
    views = [pictures[:, :, ::-1], *(cropped(pictures, rng) for _ in range(CROPS))]
    coded = [through(model, view, labels) for view in views]
    return rs.Memory(remembered, device=device_of(device)), test, coded


def through(model: torch.nn.Module, pictures: np.ndarray, labels: np.ndarray) -> Encoded:
    """Pictures uint8 (n, 32, 32, 3) through a network."""
    pictures = normalise(np.ascontiguousarray(pictures))
    return rs.encode(model, pictures, labels, batch_size=networks.BATCH, progress=False)


def cropped(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each picture (n, 32, 32, 3) moved by up to four pixels each way, with black where it ends."""
    padded = np.pad(pictures, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
    top, left = rng.integers(0, 2 * PAD + 1, (2, len(pictures), 1)) + np.arange(SIDE)
    rows = np.arange(len(pictures))[:, None, None]
    return padded[rows, top[:, :, None], left[:, None, :]]


def tuned_head(weights: str, examples: Encoded, memory: rs.Memory | None) -> Callable[[Encoded], np.ndarray]:
    """What a network says whose last layer was trained on the keys of `examples` until it is right on all; with a
    `memory`, at each step on as many of its rows as well."""
    head = load(weights).fc
    optimizer = torch.optim.Adam(head.parameters(), RATE)
    keys, labels = torch.from_numpy(examples.keys), torch.from_numpy(examples.labels)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        with torch.no_grad():
            if bool((head(keys).argmax(dim=1) == labels).all()):
                break
        batch, truth = keys, labels
        if memory is not None:
            drawn = torch.randint(memory.n_rows, (len(keys),), generator=generator)
            batch = torch.cat([keys, memory.keys_at(drawn).cpu()])
            truth = torch.cat([labels, memory.column("label")[drawn.to(memory.device)].long().cpu()])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(batch), truth).backward()
        optimizer.step()

    def answer(rows: Encoded) -> np.ndarray:
        with torch.no_grad():
            return head(torch.from_numpy(rows.keys)).argmax(dim=1).numpy()

    return answer


def ages(weights: str, data: str, others: int, device: str) -> dict:
    """What edits say that were made so many edits ago, the last ones up to 100: ``ages``: age -> shares.

    ``recognition``: the edit itself decides its example; ``recall``: its label is said; ``retention``: of its mirror
    image; ``fresh``: the same when no other edit was made yet. ``added``, ``added_mirrored``: what a memory says that
    took in the same rows. And ``total`` edits, ``locality`` and ``accuracy`` before and after on images without one.
    The edits between are training images, then these mirrored, with their labels.
    """
    memory, test, views = encoded(weights, data, device)
    reader = rs.ResMem(memory, **PAPER)
    before = reader.predict(test)
    wrong = np.random.default_rng(0).permutation(np.flatnonzero(before != test.labels))
    wrong = wrong[distinct(test.keys[wrong])]
    pictures, labels = networks.split(data, "train")
    model = load(weights).to(device_of(device), memory_format=torch.channels_last)
    order = np.random.default_rng(2).permutation(len(labels))
    halves = [(pictures[order], labels[order]), (pictures[order][:, :, ::-1], labels[order])]
    between = [through(model, *half) for half in halves]
    between = [part[distinct(part.keys)] for part in between]  # some pictures are there twice, under two labels
    since = [1, *(age for age in (10**power for power in range(12)) if 2 * GROUP < age < others), others]
    groups = {age: wrong[at * GROUP : (at + 1) * GROUP] for at, age in enumerate(since)}
    edited: Reader = reader
    added, taken, fresh, numbers = copy.copy(memory), 0, {}, {}
    for age, after in zip(reversed(since), [*reversed(since[:-1]), None]):
        rows = groups[age]
        fresh[age] = share(rs.edit(reader, test[rows]).predict(views[0][rows]) == test.labels[rows])
        edited = rs.edit(edited, test[rows])
        numbers[age] = edited.edits.ids[-len(rows) :]
        added.add(test[rows])
        more = 0 if after is None else age - GROUP - (after if after > 1 else 0)
        for part in _taken(between, taken, more):
            edited = rs.edit(edited, part)
            added.add(part)
        taken += more
    assert isinstance(edited, rs.Edited)
    beside, found = rs.ResMem(added, **PAPER), {}
    for age, rows in groups.items():
        deciding, _, edits = edited._deciding(torch.from_numpy(test.keys[rows]))
        said = edits.column("id")[deciding[:, 0].clamp_min(0)].cpu().numpy()
        found[age] = {
            "recognition": share((said == numbers[age]) & (deciding[:, 0] >= 0).cpu().numpy()),
            "recall": share(edited.predict(test[rows]) == test.labels[rows]),
            "retention": share(edited.predict(views[0][rows]) == test.labels[rows]),
            "fresh": fresh[age],
            "added": share(beside.predict(test[rows]) == test.labels[rows]),
            "added_mirrored": share(beside.predict(views[0][rows]) == test.labels[rows]),
        }
    rest = np.setdiff1d(np.arange(len(test)), np.concatenate(list(groups.values())))
    now = edited.predict(test[rest])
    accuracy = [percent(answer == test.labels[rest]) for answer in (before[rest], now)]
    return {"ages": found, "total": len(edited.edits), "locality": share(now == before[rest]), "accuracy": accuracy}


def _taken(parts: list[Encoded], start: int, count: int) -> list[Encoded]:
    """`count` rows of `parts` from `start` on."""
    found, stop = [], start + count
    for part in parts:
        found.append(part[max(0, start) : max(0, min(stop, len(part)))])
        start, stop = start - len(part), stop - len(part)
    return [part for part in found if len(part)]


def text(settings: dict, facts: int) -> dict:
    """Lines of held-out code, edited one after another: ``ways``: count -> shares of tokens and, where a line has
    several, of whole lines; ``reach``; ``base`` (shares of the model alone); ``undone``; ``rows``."""
    language = Language(settings)
    documents = language.texts()
    memory = rs.lm.remember(
        language.model,
        language.tokenizer,
        [(one.name, one.text) for one in documents.memory],
        index="exact",
        window=settings["window"],
        stride=settings["stride"],
        progress=False,
    )
    reader = rs.KNNLM(memory, k=0)
    asked = lines(documents.tune, facts * 3)
    coded = [valued(language, memory, prompts, asked) for prompts in contexts(asked)]
    same = [len({tuple(rows[at].labels) for rows in coded}) == 1 for at in range(len(asked))]
    kept = [
        at for at in range(len(asked)) if same[at] and bool((reader.predict(coded[0][at]) != coded[0][at].labels).any())
    ]
    kept = kept[:facts]
    examples, shorter, elsewhere = ([rows[at] for at in kept] for rows in coded)
    other, tokens = list[Encoded](), 0
    for batch in language.encoded(documents.score, memory):
        other.append(batch)
        tokens += len(batch)
        if tokens >= OTHERS:
            break
    unchanged = [reader.predict(batch) for batch in other]

    def seen(one: Reader, count: int) -> dict:
        found: dict = {}
        for name, views in (("reliability", examples), ("shorter", shorter), ("elsewhere", elsewhere)):
            right = [one.predict(rows) == rows.labels for rows in views[:count]]
            found[name] = share(np.concatenate(right))
            found[f"{name}_lines"] = share(np.array([answer.all() for answer in right]))
        now = [one.predict(batch) == said for batch, said in zip(other, unchanged)]
        return found | {"locality": share(np.concatenate(now))}

    if not kept:
        raise InputError(f"none of {len(asked)} lines of the held-out documents can be edited: raise eval_tokens")
    counts = sorted({max(1, len(kept) // 4), max(1, len(kept) // 2), len(kept)})
    edited: Reader = reader
    ways: dict[str, dict] = {name: {} for name in TEXT_WAYS}
    for start, stop in pairwise([0, *counts]):
        for rows in examples[start:stop]:
            edited = rs.edit(edited, rows)
        ways["edits"][stop] = seen(edited, stop)
    added = copy.copy(memory)
    with added.editing("add") as draft:
        for rows in examples:
            draft.add(rows)
    ways["added"][len(kept)] = seen(rs.KNNLM(added, lmbda=0.25), len(kept))
    assert isinstance(edited, rs.Edited)
    by_reach = {reach: seen(edited.with_params(reach=reach), len(kept)) for reach in REACHES}
    base, rows = seen(reader, len(kept)), len(edited.edits)
    edited.edits.forget(edited.edits.ids)
    undone = np.concatenate([edited.predict(batch) == said for batch, said in zip(other, unchanged)])
    return {
        "facts": len(kept),
        "rows": rows,
        "memory": len(memory),
        "tokens": len(undone),
        "ways": ways,
        "reach": by_reach,
        "base": base,
        "undone": percent(undone),
    }


def lines(documents: list[Text], most: int) -> list[tuple[str, str, str]]:
    """(the lines before, a name and its =, what it is set to) of lines of code, each once, in an order of chance."""
    found = {}
    for document in documents:
        every = document.text.split("\n")
        for at in range(BEFORE, len(every)):
            line = FACT.fullmatch(every[at])
            if line is not None:
                found.setdefault(line[0], ("\n".join(every[at - BEFORE : at]), line[1], line[2]))
    order = np.random.default_rng(0).permutation(len(found))[:most]
    asked = list(found.values())
    return [asked[at] for at in order]


def contexts(asked: list[tuple[str, str, str]]) -> list[list[str]]:
    """Each line's name after the lines before it, after the last two of them, and after those of another line."""
    own = [before for before, _, _ in asked]
    short = ["\n".join(before.split("\n")[-FEW:]) for before in own]
    other = own[1:] + own[:1]
    return [[f"{before}\n{name}" for before, (_, name, _) in zip(views, asked)] for views in (own, short, other)]


def valued(
    language: Language, memory: rs.Memory, prompts: list[str], asked: list[tuple[str, str, str]]
) -> list[Encoded]:
    """Of each prompt the rows of what follows, a token each."""
    found = []
    for prompt, (_, _, value) in zip(prompts, asked):
        whole = list(rs.lm.encode(language.model, language.tokenizer, [prompt + value], like=memory, end_of_text=False))
        count = sum(map(len, whole)) - len(language.tokenizer(prompt)["input_ids"])
        rows = whole[-1]
        found.append(rows[max(0, len(rows) - max(1, count)) :])
    return found


def shown(found: list[float]) -> str:
    """A share and its interval."""
    middle, low, high = found
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def tables(results: dict) -> dict[str, Table]:
    """Each network's ways, and radii; ages; text."""
    found: dict[str, Table] = {}
    for one in results["images"]:
        heads = ("%", "edits", *VIEWS.values(), "accuracy on the others, before → after")
        rows = [
            [WAYS[way], str(count), *(shown(seen[view]) for view in VIEWS), "{:.2f} → {:.2f}".format(*seen["accuracy"])]
            for way, counts in one["ways"].items()
            for count, seen in counts.items()
        ]
        first = [
            ["the first edits, after all", str(count), *(shown(seen[view]) for view in VIEWS), ""]
            for count, seen in one["first"].items()
        ]
        found[one["name"]] = Table(heads, rows + first)
        reach = [[f"{float(reach):g}", *(shown(seen[view]) for view in VIEWS)] for reach, seen in one["reach"].items()]
        found[f"{one['name']} reach"] = Table(("reach", *VIEWS.values()), reach)
    for one in results["ages"]:
        names = {"recognition": "recognised", "recall": "recalled", "retention": "mirrored", "fresh": "mirrored, fresh"}
        names |= {"added": "`memory.add`: recalled", "added_mirrored": "`memory.add`: mirrored"}
        rows = [
            [f"{int(age):,}" if int(age) > 1 else f"up to {GROUP}", *(shown(seen[name]) for name in names)]
            for age, seen in one["ages"].items()
        ]
        found["ages"] = Table(("edits ago", *names.values()), rows)
    for one in results["text"]:
        heads = ("%", "lines", *TOLD.values(), "whole lines", "two before it", "other file", "others unchanged")
        views = (*TOLD, *(f"{name}_lines" for name in TOLD), "locality")
        told = {"the model alone": {one["facts"]: one["base"]}}
        told |= {TEXT_WAYS[way]: counts for way, counts in one["ways"].items()}
        told |= {f"`rs.edit`, reach {float(reach):g}": {one["facts"]: seen} for reach, seen in one["reach"].items()}
        rows = [
            [way, str(count), *(shown(seen[view]) for view in views)]
            for way, counts in told.items()
            for count, seen in counts.items()
        ]
        found["text"] = Table(heads, rows)
    return found


def draw(results: dict) -> Figure:
    """Reliability, generalisation and locality of every way, by the number of edits, for each network."""
    every = results["images"]
    figure, axes = panels(max(1, len(every)), len(VIEWS), (13, 3.2 * max(1, len(every))))
    for row, one in zip(axes, every):
        for panel, (view, label) in zip(row, VIEWS.items()):
            for way, counts in one["ways"].items():
                for count, seen in counts.items():
                    middle, *ends = seen[view]
                    dot(panel, int(count), middle, ends, colour=COLOURS[way], label=WAYS[way].replace("`", ""))
            panel.set(title=f"{one['name'][:24]}: {label}", xlabel="edits", ylabel="%")
            panel.title.set_fontsize(9)
    legend_below(figure, list(axes.flat), columns=2)
    return figure
