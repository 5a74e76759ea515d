"""L2 against inner product and cosine, over the same keys (kNN-LM, section 2: "L2 worked better than inner product").

Largest inner product is nearest L2 once every key has one number more, √(M² - ‖k‖²) with M the largest norm, and every
query a 0 there: ‖q - k‖² is then ‖q‖² + M² - 2 qᵀk, so that the kernel exp(-d²/σ) is exp(2 qᵀk/σ) up to what all
neighbours share. Cosine is L2 between keys of length 1.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

import residua as rs
from experiments.knnlm.language import Language, searched_once
from experiments.knnlm.sizes import beginning
from experiments.knnlm.sweep import sweep
from experiments.table import Table
from residua.core import Encoded

METRICS = ("L2", "inner product", "cosine")


def compared(language: Language, memory: rs.Memory, tokens: int, tune: list[Encoded], score: list[Encoded]) -> dict:
    """Of each metric what ``Swept.best`` gives with T = 1, over the first `tokens` of a memory: ``rows``, ``norms``
    (the least and the largest), and ``metrics`` by name, each with the ``recall`` of its index."""
    share = min(1.0, tokens / memory.n_rows)
    lengths = np.concatenate([np.linalg.norm(batch.keys, axis=1) for batch in beginning(memory, share)])
    least, most, found = float(lengths.min()), float(lengths.max()), {}
    for name in METRICS:
        grown = name == "inner product"
        keys = beginning(memory, share)
        if grown:
            keys = moved(keys, lambda keys: with_rest(keys, most))
        index = language.settings["index"]
        own = rs.Memory(keys, index=index, storage="none", normalise=name == "cosine", key_dtype="float32")
        asked = [list(moved(part, with_zero)) if grown else part for part in (tune, score)]
        best = sweep(searched_once(own), *asked).best(temperature=1.0)
        found[name] = {**best, "recall": own.recall and own.recall.value}
    return {"rows": len(own), "norms": [least, most], "metrics": found}


def with_rest(keys: np.ndarray, most: float) -> np.ndarray:
    """Keys (n, d) with one number more, by which all have the norm `most`.

    >>> with_rest(np.array([[3.0, 0.0], [0.0, 5.0]]), 5.0).tolist()
    [[3.0, 0.0, 4.0], [0.0, 5.0, 0.0]]
    """
    rest = np.sqrt(np.maximum(most**2 - (keys.astype(np.float64) ** 2).sum(axis=1), 0))
    return np.column_stack([keys, rest]).astype(keys.dtype)


def with_zero(keys: np.ndarray) -> np.ndarray:
    """Queries (n, d) that have a 0 there."""
    return np.column_stack([keys, np.zeros(len(keys), keys.dtype)])


def moved(batches: Iterable[Encoded], change: Callable[[np.ndarray], np.ndarray]) -> Iterator[Encoded]:
    """The batches with other keys, of no source: no encoder makes these."""
    for batch in batches:
        about = {"columns": batch.columns, "task": batch.task}
        yield Encoded(change(batch.keys), batch.logits, batch.labels, batch.ids, **about)


def table(found: dict) -> Table:
    """One row for each metric."""
    rows = []
    for name, one in found["metrics"].items():
        recall = "" if one["recall"] is None else f"{100 * one['recall']:.1f}"
        rows.append(
            [name, f"{one['perplexity']:.2f}", f"{one['lmbda']:.2f}", f"{one['k']}", f"{one['sigma']:.3g}", recall]
        )
    return Table(("metric", "perplexity", "best λ", "k", "σ", "index finds, %"), rows)
