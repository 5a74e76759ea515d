"""Table 3 of ResMem: the memory's residuals added, against its labels interpolated at every share, on one memory."""

from collections.abc import Iterable

import numpy as np

import residua as rs
from residua.core import Encoded
from residua.papers.knnlm.language import Language, settings_of
from residua.papers.knnlm.places import part
from residua.papers.published import C4_KNNLM, C4_T5

PAPER = C4_T5["settings"]
TUNE_TOKENS = 4000  # a dense sweep, of V numbers a setting
K = (4, 8, 16, 32, 50, 100)
SIGMA = 2.0 ** np.arange(-3, 3)  # multiples of the typical distance, squared for the gaussian kernel


def against(settings: dict, folder: str | None) -> dict:
    """Both on one memory, of the model's own domain or of another folder's text.

    The settings have the highest accuracy on the same tokens, among equally many.

    Returns
    -------
    dict
        ``rows``, ``tuned_on`` (tokens), ``base``, ``knnlm`` (one for each λ of the paper's), ``resmem`` (``paper``: its
        k and σ, ``accuracy`` and ``log_loss``: the settings best by these); each with its settings and what
        ``Language.evaluate`` gives.
    """
    language = Language(settings)
    texts = language.texts(folder)
    memory = part(language, texts, "ffn")
    tune = first(language.encoded(texts.tune, memory), TUNE_TOKENS)
    shares = [share for share in C4_KNNLM["lmbda"] if share > 0]
    found = rs.tune(
        rs.KNNLM(memory, k=1), tune, _grid(memory, 2) | {"lmbda": shares}, objective="accuracy", progress=False
    ).results_
    interpolated = [rs.KNNLM(memory, **_best(found, share)) for share in shares]
    residuals = {"paper": rs.ResMem(memory, k=min(PAPER["k"], len(memory)), sigma=PAPER["sigma"])}
    for objective in ("accuracy", "log_loss"):
        best = rs.tune(rs.ResMem(memory, k=1), tune, _grid(memory, 1), objective=objective, progress=False)
        residuals[objective] = best

    def scored(reader) -> dict:
        return {"settings": settings_of(reader), **language.evaluate(texts.score, reader)}

    rows = [scored(reader) for reader in interpolated]
    return {
        "rows": len(memory),
        "tuned_on": sum(map(len, tune)),
        "base": rows[0]["base"],
        "knnlm": rows,
        "resmem": {name: scored(reader) for name, reader in residuals.items()},
    }


def first(batches: Iterable[Encoded], tokens: int) -> list[Encoded]:
    """The first `tokens` rows of batches, or all there are."""
    out = []
    for batch in batches:
        out.append(batch[:tokens])
        tokens -= len(batch)
        if tokens <= 0:
            break
    return out


def _grid(memory: rs.Memory, power: int) -> dict:
    ks = np.unique(np.minimum(K, len(memory)))
    return {"k": ks, "sigma": SIGMA * memory.median_nn_distance() ** power, "temperature": [1.0]}


def _best(found: dict, share: float) -> dict:
    """The settings of the best score with one share."""
    fits = np.isclose(found["lmbda"], share) & (found["k"] > 0)
    at = int(np.flatnonzero(fits)[found["score"][fits].argmax()])
    return {name: found[name][at].item() for name in ("k", "sigma", "temperature", "lmbda")}
