"""Tables 1 and 4 of kNN-LM: the base, and what the cache, the memory, both, and shares by distance make of it.

Every setting is chosen on the documents tuned on; every number is of the scored ones.
"""

from collections.abc import Callable

import numpy as np

import residua as rs
from residua.papers.knnlm.language import K, Language, settings_of
from residua.papers.knnlm.swept import LMBDA, SIGMA, TEMPERATURE, Swept, sweep
from residua.papers.knnlm.texts import Texts, pairs

BUCKETS = 16
CACHE = {"window": (64, 256, 1024, 4096), "lmbda": (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)}


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
    reader = rs.tune(rs.KNNLM(other, k=1), language.encoded(texts.tune, other), progress=False)
    found["readers"]["other_memory"] = {"settings": settings_of(reader), **language.evaluate(texts.score, reader)}
    return found


def compared(language: Language, memory: rs.Memory, texts: Texts) -> dict:
    """Every reader's score on one corpus.

    Returns
    -------
    dict
        ``counts`` (documents and tokens), ``rows`` of the memory, ``index`` (its name, measured ``recall`` at
        ``recall_k``, and ``rerank``, how many neighbours have exact distances), ``typical`` (distance), ``base``,
        ``readers`` (name -> settings and what ``Language.evaluate`` gives), ``adaptive`` (perplexity with one share
        and with shares by distance, on the half of the tuning documents not fitted on), ``curves`` and ``edges``.
    """

    def tune() -> object:
        return language.encoded(texts.tune, memory)

    found = sweep(memory, tune(), language.encoded(texts.score, memory), temperature=TEMPERATURE)
    most = min(K, len(memory))
    readers: dict[str, rs.KNNLM | rs.ContinuousCache] = {}
    readers["base_tuned"] = rs.KNNLM(memory, k=0, temperature=found.best(k=0)["temperature"])
    readers["knnlm_paper"] = _reader(memory, found.best(k=most, sigma=1.0, temperature=1.0))
    readers["knnlm"] = tuned = _reader(memory, found.best())
    readers["cache"] = _cache(rs.KNNLM(memory, k=0), tune)
    readers["knnlm+cache"] = _cache(tuned, tune)
    alone = {name: [value] for name, value in settings_of(tuned).items()}
    adaptive = rs.tune(tuned, tune(), alone, adaptive=BUCKETS, progress=False)
    readers["adaptive"] = adaptive
    readers["adaptive+cache"] = _cache(adaptive, tune)
    scored = {
        name: {"settings": settings_of(reader), **language.evaluate(texts.score, reader)}
        for name, reader in readers.items()
    }
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


def curves(found: Swept, most: int) -> dict:
    """Figures 4 and 5: one setting given, the others the best there are; base at T = 1.

    Returns
    -------
    dict
        ``k`` and ``sigma`` (lists of what ``Swept.best`` gives, σ with all neighbours), ``lmbda`` (the same, at the k
        and σ that are best), ``lmbda_paper`` (with all neighbours and σ = 1), ``best`` (with nothing given).
    """
    best = found.best(temperature=1.0)
    same = {"temperature": 1.0, "k": best["k"], "sigma": best["sigma"]}
    paper = {"temperature": 1.0, "k": most, "sigma": 1.0}
    return {
        "k": [found.best(temperature=1.0, k=k) for k in found.values("k")],
        "sigma": [found.best(temperature=1.0, k=most, sigma=sigma) for sigma in found.values("sigma")],
        "lmbda": [found.best(**same, lmbda=share) for share in found.values("lmbda")],
        "lmbda_paper": [found.best(**paper, lmbda=share) for share in found.values("lmbda")],
        "best": best,
    }


def edges(found: Swept, memory: rs.Memory) -> list[str]:
    """Tuned settings that are the smallest or largest that competed: a wider grid may find better ones."""
    best = found.best()
    widths = SIGMA * memory.median_nn_distance() ** 2
    ends = {"sigma": (widths[0], widths[-1]), "temperature": (TEMPERATURE[0], TEMPERATURE[-1])}
    ends["lmbda"] = (LMBDA[0], LMBDA[-1])
    return [name for name, values in ends.items() if np.isclose(best[name], values).any()]


def _reader(memory: rs.Memory, found: dict) -> rs.KNNLM:
    return rs.KNNLM(memory, **{name: found[name] for name in ("k", "sigma", "temperature", "lmbda")})


def _cache(over, tune: Callable) -> rs.ContinuousCache:
    return rs.tune(rs.ContinuousCache(over), tune(), CACHE, progress=False)
