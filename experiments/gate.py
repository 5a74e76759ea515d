"""A gate over a memory of text, beside λ by distance and a nested cache: the same neighbours, shares by query."""

import time
from collections.abc import Callable
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

import residua as rs
from experiments.figures import DARK, KNN, MIXED, RESMEM, dot_rows, panels
from experiments.knnlm.domains import BUCKETS, CACHE
from experiments.knnlm.language import Language
from experiments.knnlm.texts import pairs
from experiments.shown import interval
from experiments.table import Table
from experiments.work import Work
from residua.errors import ParameterError
from residua.evaluation.significance import paired
from residua.readers import Reader

OWN = "own domain"
PAST = 2000  # rows that a gate's cache looks back
# Of each reader: what it is called, and what it is compared with.
NAMES = {
    "knnlm": ("one λ, tuned", "adaptive"),
    "adaptive": (f"λ by distance, {BUCKETS} buckets", "knnlm"),
    "gate": ("gate", "adaptive"),
    "tempered": ("tempered gate", "adaptive"),
    "tempered_own": ("tempered, fitted on remembered documents", "adaptive"),
    "nested": ("λ by distance, cache nested over it", "adaptive"),
    "cached": ("gate over votes and cache", "nested"),
    "cached_own": ("the same, fitted on remembered documents", "nested"),
}
COLOURS = {"knnlm": KNN, "adaptive": KNN, "nested": KNN, "cached": DARK, "cached_own": DARK, "tempered": RESMEM}


def measure(
    work: Work,
    *,
    model: str = "../shared/models/code-gpt2",
    texts: str = "",
    validation: str = "",
    test: str = "",
    domain: str = "package:sklearn",
    glob: str = "**/*.py",
    window: int = 256,
    stride: int = 192,
    domain_tokens: int = 600_000,
    own_tokens: int = 550_000,
    eval_tokens: int = 40_000,
    index: str = "knnlm-fast",
    checkpoints: str = "out/knnlm",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Both corpora.

    Parameters
    ----------
    model : str
        A transformers causal language model: folder or name.
    texts : str
        Folder to remember; by default Python's own library, by the split.json beside the model.
    validation : str
        Folder to tune on; without it and --test, files of --texts are set aside.
    test : str
        Folder to score.
    domain : str
        Text that the model never saw: a folder, or package:NAME (its source).
    glob : str
        Which files of a folder.
    window : int
        Tokens the model sees at a time.
    stride : int
        By how much windows advance.
    domain_tokens : int
        Tokens to remember of --domain.
    own_tokens : int
        Tokens to remember of the model's own domain.
    eval_tokens : int
        Tokens to score, of each; half as many others are tuned on.
    index : str
        As rs.Memory takes it.
    checkpoints : str
        Folder for memories; a build that was stopped goes on from there.
    device : str
        Where the model runs.
    """
    given = locals()
    names = ("model", "texts", "validation", "test", "glob", "window", "stride", "eval_tokens", "index", "checkpoints")
    settings = {name: given[name] for name in (*names, "device")}
    if min(domain_tokens, own_tokens, eval_tokens) < 1:
        numbers = f"domain_tokens={domain_tokens}, own_tokens={own_tokens}, eval_tokens={eval_tokens}"
        raise ParameterError(f"{numbers}; expected at least 1 token each")
    cells = [
        (settings | {"memory_tokens": own_tokens}, OWN, None),
        (settings | {"memory_tokens": domain_tokens}, domain.removeprefix("package:"), domain),
    ]
    return {"corpora": work.map(corpus, cells, "corpora")}


def corpus(settings: dict, name: str, folder: str | None) -> dict:
    """Every reader on one corpus: ``name``, ``rows`` of the memory, ``typical`` (distance), ``base`` (perplexity) and
    ``readers``, by name what ``told`` gives."""
    language = Language(settings)
    documents = language.texts(folder)
    memory = language.remember(pairs(documents.memory), "own" if folder is None else "domain")
    tune, score = (list(part) for part in language.sets(documents, memory))

    def tuned(reader: Reader, grid: dict | None = None, **options) -> Callable[[], Reader]:
        return lambda: rs.tune(reader, tune, grid, evidence=None, progress=False, **options)

    def again(reader: rs.Gated) -> rs.Gated:
        return rs.lm.fit(language.model, language.tokenizer, reader, progress=False)

    made: dict[str, Reader] = {}
    seconds: dict[str, float] = {}
    ways: dict[str, Callable[[], Reader]] = {
        "knnlm": tuned(rs.KNNLM(memory)),
        "adaptive": tuned(rs.KNNLM(memory), adaptive=BUCKETS),
        "gate": lambda: rs.Gated(memory, form="gate").fit(tune, progress=False),
        "tempered": lambda: rs.Gated(memory, form="tempered").fit(tune, progress=False),
        "tempered_own": lambda: again(rs.Gated(memory, form="tempered")),
        "nested": lambda: tuned(rs.ContinuousCache(made["adaptive"]), CACHE)(),
        "cached": lambda: rs.Gated(memory, cache=PAST).fit(tune, progress=False),
        "cached_own": lambda: again(rs.Gated(memory, cache=PAST)),
    }
    for way, make in ways.items():
        start = time.process_time()
        made[way] = make()
        seconds[way] = time.process_time() - start
    found = {way: rs.evaluate(reader, score, label_knn=False, progress=False) for way, reader in made.items()}
    return {
        "name": name,
        "rows": len(memory),
        "typical": memory.median_nn_distance(),
        "base": found["knnlm"].base_perplexity,
        "tokens": found["knnlm"].n,
        "readers": {
            way: told(one, found[NAMES[way][1]], made[way]) | {"seconds": seconds[way]} for way, one in found.items()
        },
    }


def told(found: rs.evaluation.Evaluation, other: rs.evaluation.Evaluation, reader: Reader) -> dict:
    """``perplexity`` and ``accuracy``; against another reader the ``change`` of perplexity in %, with its interval over
    documents, and in how many ``documents`` of ``of`` it is lower; of a gate its ``weights`` and ``power``."""
    losses = found.per_row["log_prob"].astype(np.float64) - other.per_row["log_prob"]
    _, documents = np.unique(found.per_row["id"], return_inverse=True)
    drawn = paired(losses, losses, documents, False, 0.95, 2000, np.random.default_rng(0))
    low, high = drawn["perplexity_ratio_interval"]
    gains = np.bincount(documents, losses)
    about = {
        "perplexity": found.perplexity,
        "accuracy": 100 * found.accuracy,
        "change": [100 * (edge - 1) for edge in (np.exp(-losses.mean()), low, high)],
        "documents": int((gains > 0).sum()),
        "of": len(gains),
    }
    if isinstance(reader, rs.Gated):
        about |= {"weights": sum(map(len, reader.shares.weights)), "power": reader.shares.power}
    return about


def tables(results: dict) -> dict[str, Table]:
    """One table for each corpus, by its name."""
    return {one["name"]: table(one) for one in results["corpora"]}


def table(one: dict) -> Table:
    """Each reader, and what it is compared with."""
    rows = [["the model alone", f"{one['base']:.2f}", "", "", "", "", ""]]
    for way, found in one["readers"].items():
        label, other = NAMES[way]
        shown = ["", "", ""]
        if way != "knnlm":
            shown = [interval(found["change"]), NAMES[other][0], f"{found['documents']} of {found['of']}"]
        fitted = f"{found['weights']} weights, b {found['power']:.2f}" if "weights" in found else ""
        rows.append([label, f"{found['perplexity']:.2f}", *shown, fitted, f"{found['seconds']:.0f}"])
    heads = ("", "perplexity", "change, %", "against", "documents better", "fitted", "to choose it, s")
    return Table(heads, rows)


def draw(results: dict) -> Figure:
    """How each reader changes perplexity against what it is compared with."""
    corpora = results["corpora"]
    figure, axes = panels(len(corpora), 1, (9, 3.2 * len(corpora)))
    for panel, one in zip(axes[:, 0], corpora):
        shown = {way: found for way, found in one["readers"].items() if way not in ("knnlm", "adaptive", "nested")}
        rows = [
            (NAMES[way][0], found["change"], COLOURS.get(way, MIXED), f"{found['perplexity']:.2f}", None)
            for way, found in shown.items()
        ]
        dot_rows(panel, rows)
        flat, nested = (one["readers"][way]["perplexity"] for way in ("adaptive", "nested"))
        title = f"{one['name']}: λ by distance {flat:.2f}, with a cache nested over it {nested:.2f}"
        panel.set(xlabel="perplexity against λ by distance, or against the nested cache, %", title=title)
    return figure
