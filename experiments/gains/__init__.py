"""Where kNN-LM's gain comes from: by token, with examples (Figure 6); beside n-grams (Figure 7); by other metrics."""

from typing import Literal

import numpy as np
from matplotlib.figure import Figure

import residua as rs
from experiments.figures import DARK, KNN, MIXED, dot_rows, panels
from experiments.gains import metrics, where
from experiments.gains.ngrams import ORDERS, NGrams
from experiments.knnlm.domains import BUCKETS
from experiments.knnlm.language import Language
from experiments.knnlm.sweep import LMBDA
from experiments.knnlm.texts import pairs
from experiments.shown import interval, settings
from experiments.table import Table
from experiments.work import Work
from residua.core import AbsentLogits, Encoded
from residua.errors import ParameterError

OWN = "own domain"
SHARES = np.array([0.0, *LMBDA])
# Of each reader: what it is called, and what it is compared with.
NAMES = {
    **{f"order {n}": (f"+ {n}-grams" if n > 1 else "+ unigrams", "base") for n in ORDERS},
    "ngrams_by_match": ("+ n-grams, λ by the longest match", "base"),
    "knnlm": ("+ kNN-LM", "base"),
    "adaptive": ("+ kNN-LM, λ by distance", "base"),
    "both": ("+ kNN-LM + n-grams", "knnlm"),
    "both_by_match": ("+ kNN-LM, λ by distance, + n-grams, λ by match", "adaptive"),
}


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
    memory_tokens: int = 300_000,
    metric_tokens: int = 100_000,
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
    memory_tokens : int
        Tokens to remember, of each corpus.
    metric_tokens : int
        Tokens of it over which metrics are compared; 0: they are not.
    eval_tokens : int
        Tokens to score, of each; half as many others are tuned on.
    index : str
        As rs.Memory takes it.
    checkpoints : str
        Folder for memories; a build that was stopped goes on from there.
    device : str
        Where the model runs.
    """
    given = {name: value for name, value in locals().items() if name not in ("work", "domain", "metric_tokens")}
    if min(memory_tokens, metric_tokens + 1, eval_tokens) < 1:
        numbers = f"memory_tokens={memory_tokens}, metric_tokens={metric_tokens}, eval_tokens={eval_tokens}"
        raise ParameterError(f"{numbers}; expected at least 1 token each, or 0 over which to compare metrics")
    cells = [(given, OWN, None), (given, domain.removeprefix("package:"), domain)]
    found = work.map(corpus, cells, "corpora")
    compared = work.map(by_metric, [(*cell, metric_tokens) for cell in cells if metric_tokens], "metrics")
    return {"corpora": found, "metrics": compared}


def remembered(
    settings: dict, name: str, folder: str | None
) -> tuple[Language, rs.Memory, list[Encoded], list[Encoded]]:
    """The model, the memory of a corpus, and the tokens to tune on and to score."""
    language = Language(settings)
    documents = language.texts(folder)
    memory = language.remember(pairs(documents.memory), "own" if folder is None else name)
    return language, memory, *(list(part) for part in language.sets(documents, memory))


def by_metric(settings: dict, name: str, folder: str | None, tokens: int) -> dict:
    """L2, inner product and cosine on one corpus."""
    language, memory, tune, score = remembered(settings, name, folder)
    return {"name": name, **metrics.compared(language, memory, tokens, tune, score)}


def corpus(settings: dict, name: str, folder: str | None) -> dict:
    """``name``, ``rows`` of the memory, ``typical`` (distance), ``tokens`` and ``documents`` scored, ``readers`` by
    name (``perplexity``, ``change`` against NAMES' other in %, ``settings``), ``groups`` (``where.measured``) and
    ``examples``."""
    language, memory, tune, score = remembered(settings, name, folder)
    joined = [_joined(part) for part in (tune, score)]
    model = NGrams(memory.labels, memory.column("id")[memory.active_rows].numpy(), memory.n_outputs)
    asked = [(one.labels, one.ids) for one in joined]
    ngrams, match = ([of(*one) for one in asked] for of in (model.probabilities, model.match))
    flat = rs.tune(rs.KNNLM(memory), tune, evidence=None, progress=False)
    adaptive = rs.tune(rs.KNNLM(memory), tune, adaptive=BUCKETS, evidence=None, progress=False)
    readers = (flat, adaptive)
    found = [[rs.evaluate(one, part, label_knn=False, progress=False) for part in (tune, score)] for one in readers]
    base, knnlm, by_distance = (
        [np.exp(one.per_row[of].astype(float)) for one in parts]
        for parts, of in ((found[0], "base_log_prob"), (found[0], "log_prob"), (found[1], "log_prob"))
    )
    said = {"base": (base[1], {})}
    for place, order in enumerate(ORDERS):
        said[f"order {order}"] = mixed(base, [part[place] for part in ngrams])
    best = max(range(len(ORDERS)), key=lambda place: likelihood(base[0], ngrams[0][place]).max())
    chosen = [part[best] for part in ngrams]
    said["ngrams_by_match"] = mixed(base, chosen, match)
    said["knnlm"] = (knnlm[1], {"k": flat.k, "sigma": flat.sigma, "temperature": flat.temperature, "lmbda": flat.lmbda})
    said["adaptive"] = (by_distance[1], {})
    said["both"] = mixed(knnlm, chosen)
    said["both_by_match"] = mixed(by_distance, chosen, match)
    logs = {who: np.log(probabilities) for who, (probabilities, _) in said.items()}
    documents, told = np.unique(joined[1].ids, return_inverse=True)[1], found[0][1].per_row
    values = {"remembered": told["remembered"], "distance": told["distance"], "longest": model.longest(*asked[1])}
    shown = {"base": logs["base"], "ngrams": logs[f"order {ORDERS[best]}"], "knnlm": logs["knnlm"]}
    return {
        "name": name,
        "rows": len(memory),
        "typical": memory.median_nn_distance(),
        "tokens": len(documents),
        "documents": int(documents.max()) + 1,
        "order": ORDERS[best],
        "readers": {
            who: {
                "perplexity": float(np.exp(-logs[who].mean())),
                "change": where.change(logs[who] - logs[NAMES[who][1]], documents) if who in NAMES else None,
                "settings": chosen,
            }
            for who, (_, chosen) in said.items()
        },
        "ngrams_over_knnlm": where.change(shown["ngrams"] - shown["knnlm"], documents),
        "groups": where.measured(shown, documents, values),
        "examples": where.examples(memory, joined[1], shown, told["remembered"], language.tokenizer.decode),
    }


def likelihood(base: np.ndarray, other: np.ndarray) -> np.ndarray:
    """log(λ other + (1 - λ) base) summed over tokens (n,), of every λ in SHARES."""
    return np.log(SHARES[:, None] * other + (1 - SHARES[:, None]) * base).sum(axis=1)


def mixed(
    base: list[np.ndarray], other: list[np.ndarray], by: list[np.ndarray] | None = None
) -> tuple[np.ndarray, dict]:
    """λ other + (1 - λ) base on the tokens scored, and ``lmbda``: the λ of the highest likelihood on the tokens tuned
    on, of all or of each value of `by`.

    Probabilities of the true tokens come as [of the tokens tuned on, of those scored].
    """
    share = float(SHARES[likelihood(base[0], other[0]).argmax()])
    if by is None:
        return share * other[1] + (1 - share) * base[1], {"lmbda": share}
    own = {}
    for value in np.unique(by[0]).tolist():
        those = by[0] == value
        own[value] = float(SHARES[likelihood(base[0][those], other[0][those]).argmax()])
    shares = np.array([own.get(value, share) for value in by[1].tolist()])
    return shares * other[1] + (1 - shares) * base[1], {"lmbda": {str(value): one for value, one in own.items()}}


def _joined(batches: list[Encoded]) -> Encoded:
    """All rows of batches, without logits."""
    names = ("keys", "labels", "ids")
    keys, labels, ids = (np.concatenate([getattr(batch, name) for batch in batches]) for name in names)
    columns = {"offset": np.concatenate([batch.columns["offset"] for batch in batches])}
    absent = AbsentLogits(len(keys), batches[0].n_outputs)
    return Encoded(keys, absent, labels, ids, columns=columns, task="classification")


def tables(results: dict) -> dict[str, Table]:
    """Of each corpus: ``readers``, the groups, ``examples`` and ``metrics``, with its name after it."""
    out = {}
    for one in results["corpora"]:
        name = one["name"]
        out[f"readers {name}"] = table(one)
        out |= {f"{by} {name}": where.table(by, found) for by, found in one["groups"].items()}
        out |= {f"{kind} {name}": where.examples_table(found) for kind, found in one["examples"].items()}
    for one in results["metrics"]:
        out[f"metrics {one['name']}"] = metrics.table(one)
    return out


def table(one: dict) -> Table:
    """Each reader, and what it is compared with."""
    rows = [["the model alone", f"{one['readers']['base']['perplexity']:.2f}", "", "", ""]]
    for who, (label, other) in NAMES.items():
        found = one["readers"][who]
        against = "the model alone" if other == "base" else NAMES[other][0]
        rows.append([label, f"{found['perplexity']:.2f}", interval(found["change"]), against, told(found["settings"])])
    best = NAMES[f"order {one['order']}"][0]
    rows.append([f"{best}, the best order", "", interval(one["ngrams_over_knnlm"]), NAMES["knnlm"][0], ""])
    return Table(("", "perplexity", "change, %", "against", "chosen"), rows)


def told(found: dict) -> str:
    """Settings of a reader, where they are few."""
    if isinstance(found.get("lmbda"), dict):
        shares = found["lmbda"].values()
        return f"λ {min(shares):.2f} to {max(shares):.2f}"
    if "k" in found:
        return settings(found)
    return f"λ {found['lmbda']:.2f}" if found else ""


def draw(results: dict) -> Figure:
    """The readers, and the change of perplexity by group, of each corpus."""
    corpora = results["corpora"]
    figure, axes = panels(2, len(corpora), (7.5 * len(corpora), 11), height_ratios=[1, 1.6])
    for (readers, parts), one in zip(axes.T, corpora):
        rows = []
        for who, (label, other) in NAMES.items():
            if other == "base":
                found = one["readers"][who]
                colour = DARK if who in ("knnlm", "adaptive") else KNN
                rows.append((label, found["change"], colour, f"{found['perplexity']:.2f}", None))
        dot_rows(readers, rows)
        readers.set(title=f"{one['name']}: perplexity against the base's, %")
        rows = [
            (f"{by}: {group['name']}" if first else group["name"], group["change"], MIXED, words(group), None)
            for by, found in one["groups"].items()
            for first, group in ((group is found[0], group) for group in found)
        ]
        dot_rows(parts, rows)
        parts.set(title="kNN-LM against the base, %, by token")
    return figure


def words(group: dict) -> str:
    """A group's share of the tokens, and of the gain."""
    return f"{group['share']:.0f} % of tokens, {group['of_gain']:.0f} % of the gain"
