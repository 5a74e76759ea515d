"""Tables 1 and 4 of kNN-LM: the base, and what the cache, the memory, both, and shares by distance make of it.

Every setting is chosen on the documents tuned on; every number is of the scored ones.
"""

import numpy as np
from matplotlib.axes import Axes

import residua as rs
from experiments.figures import DARK, KNN, MIXED, dot_rows
from experiments.knnlm.curves import curves
from experiments.knnlm.language import K, Language, settings_of
from experiments.knnlm.sweep import LMBDA, SETTINGS, SIGMA, TEMPERATURE, Swept, sweep
from experiments.knnlm.texts import Texts, pairs
from experiments.published import DOMAIN, WIKITEXT103
from experiments.shown import interval, settings
from experiments.table import Table

BUCKETS = 16
CACHE = {"window": (64, 256, 1024, 4096), "lmbda": (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)}
NAMES = {
    "base_tuned": "base, T tuned",
    "cache": "+ cache",
    "knnlm_paper": "+ kNN-LM, σ = 1 (the paper's)",
    "knnlm": "+ kNN-LM, tuned",
    "knnlm+cache": "+ kNN-LM + cache",
    "adaptive": "+ kNN-LM, λ by distance",
    "adaptive+cache": "+ kNN-LM, λ by distance, + cache",
    "other_memory": "+ kNN-LM over the training text",
}
COLOURS = {"cache": KNN, "knnlm+cache": DARK, "adaptive+cache": DARK, "other_memory": KNN}
# The papers' perplexities: test set of Table 1; of Table 4, which has no cache.
AT_HOME = {"base": WIKITEXT103["base"][1], "cache": WIKITEXT103["cache"][1], "knnlm_paper": WIKITEXT103["knnlm"][1]}
AT_HOME["knnlm+cache"] = WIKITEXT103["knnlm+cache"][1]
ELSEWHERE = {"base": DOMAIN["wiki model on books"], "knnlm_paper": DOMAIN["with a memory of books"]}


def in_domain(settings: dict) -> dict:
    """The model on its own domain, with a memory of the text it was trained on; see ``compared``."""
    language = Language(settings)
    texts = language.texts()
    return compared(language, language.remember(pairs(texts.memory), "own"), texts)


def across(settings: dict, name: str, folder: str) -> dict:
    """The model on text of another domain: with a memory of that, and with the memory of what it was trained on."""
    language = Language(settings)
    texts = language.texts(folder)
    found = {"name": name, **compared(language, language.remember(pairs(texts.memory), name), texts)}
    other = language.remember(pairs(language.texts().memory), "own")
    reader = rs.tune(rs.KNNLM(other, k=1), language.encoded(texts.tune, other), evidence=None, progress=False)
    found["readers"]["other_memory"] = language.evaluate(texts.score, reader)
    return found


def compared(language: Language, memory: rs.Memory, texts: Texts) -> dict:
    """Every reader's score on one corpus.

    ``counts`` (documents and tokens), ``rows`` of the memory, ``index`` (its name, measured ``recall`` at ``recall_k``,
    and ``rerank``, how many neighbours have exact distances), ``typical`` (distance), ``base``, ``readers`` (name ->
    what ``Language.evaluate`` gives), ``adaptive`` (perplexity with one share and with shares by distance, on the half
    of the tuning documents not fitted on), ``curves`` and ``edges``.
    """

    def tuned(reader, grid: dict, **options):
        return rs.tune(reader, language.encoded(texts.tune, memory), grid, evidence=None, progress=False, **options)

    def chosen(**fixed) -> rs.KNNLM:
        best = found.best(**fixed)
        return rs.KNNLM(memory, **{name: best[name] for name in SETTINGS})

    found = sweep(memory, *language.sets(texts, memory), temperature=TEMPERATURE)
    most = min(K, len(memory))
    knnlm = chosen()
    adaptive = tuned(knnlm, {name: [value] for name, value in settings_of(knnlm).items()}, adaptive=BUCKETS)
    readers = {
        "base_tuned": rs.KNNLM(memory, k=0, temperature=found.best(k=0)["temperature"]),
        "knnlm_paper": chosen(k=most, sigma=1.0, temperature=1.0),
        "knnlm": knnlm,
        "cache": tuned(rs.ContinuousCache(rs.KNNLM(memory, k=0)), CACHE),
        "knnlm+cache": tuned(rs.ContinuousCache(knnlm), CACHE),
        "adaptive": adaptive,
        "adaptive+cache": tuned(rs.ContinuousCache(adaptive), CACHE),
    }
    scored = {name: language.evaluate(texts.score, reader) for name, reader in readers.items()}
    recall = memory.recall
    return {
        "counts": texts.counts(),
        "rows": len(memory),
        "index": {
            "name": memory.index.name,
            "recall": recall and recall.value,
            "recall_k": recall and recall.k,
            "rerank": getattr(memory.index, "rerank", True),
        },
        "typical": memory.median_nn_distance(),
        "base": scored["knnlm"]["base"],
        "readers": scored,
        "adaptive": getattr(adaptive, "adaptive_", None),
        "curves": curves(found, most),
        "edges": edges(found, memory),
    }


def edges(found: Swept, memory: rs.Memory) -> list[str]:
    """Tuned settings that are the smallest or largest that competed: a wider grid may find better ones."""
    best = found.best()
    widths = SIGMA * memory.median_nn_distance() ** 2
    competed = {"sigma": widths, "temperature": TEMPERATURE, "lmbda": LMBDA}
    return [name for name, values in competed.items() if np.isclose(best[name], (values[0], values[-1])).any()]


def table(one: dict, paper: dict[str, float]) -> Table:
    """Perplexities and accuracies on one corpus, the paper's perplexities beside."""
    base = one["base"]
    rows = [["base", f"{paper['base']:.2f}", f"{base['perplexity']:.2f}", "", "", f"{base['accuracy']:.2f}", "", ""]]
    for name, label in NAMES.items():
        if name not in one["readers"]:
            continue
        reader, printed = one["readers"][name], ("", "")
        if name in paper:
            printed = f"{paper[name]:.2f}", f"{change(paper[name], paper):+.1f}"
        perplexities = [printed[0], f"{reader['perplexity']:.2f}", printed[1], interval(reader["change"])]
        accuracies = [f"{reader['accuracy']:.2f}", interval(reader["gain"])]
        rows.append([label, *perplexities, *accuracies, told(reader["settings"])])
    heads = ("perplexity, accuracy", "paper", "ours", "paper: %", "ours: %", "accuracy, %", "gain, points", "settings")
    return Table(heads, rows)


def change(perplexity: float, paper: dict[str, float]) -> float:
    """Of the paper's perplexity against its base, in %."""
    return 100 * (perplexity / paper["base"] - 1)


def told(found: dict) -> str:
    """A reader's settings, of those that it has."""
    if "window" in found:
        return f"window {found['window']}, θ {found['theta']:.3g}, λ {found['lmbda']:.3g}"
    if found["k"] == 0:
        return f"T {found['temperature']:.3g}"
    if isinstance(found.get("lmbda"), dict):
        shares = found["lmbda"]["shares"]
        return f"λ {max(shares):.2f} (near) to {min(shares):.2f}, {len(shares)} buckets"
    return settings(found)


def panel(axes: Axes, name: str, one: dict, paper: dict[str, float]) -> None:
    """How each reader changes the perplexity, with its interval over documents; the paper's beside."""
    rows = []
    for reader, label in NAMES.items():
        if reader not in one["readers"] or reader == "base_tuned":
            continue
        found, printed = one["readers"][reader], None
        if reader in paper:
            printed = change(paper[reader], paper), f"{change(paper[reader], paper):+.1f} %: {paper[reader]:.2f}"
        words = f"{found['change'][0]:+.1f} %: {found['perplexity']:.2f}"
        rows.append((label, found["change"], COLOURS.get(reader, MIXED), words, printed))
    dot_rows(axes, rows)
    title = f"{name}, base {one['base']['perplexity']:.2f} (the paper's {paper['base']:.2f})"
    axes.set(xlabel="perplexity against the base's, % (diamonds: the paper's)", title=title)
