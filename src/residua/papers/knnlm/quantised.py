"""What exact distances of the retrieved keys are worth: kNN-LM, section 5, "16.5 → 16.06"."""

from residua.papers.knnlm.language import K, Language
from residua.papers.knnlm.swept import sweep
from residua.papers.knnlm.texts import pairs


def distances(settings: dict, exact: bool) -> dict | None:
    """The best readers over the distances to the index's own codes, or over exact ones of what those retrieve.

    Returns
    -------
    dict or None
        ``best``, and ``paper`` with σ = 1, as ``Swept.best`` gives them for all neighbours and T = 1; None where the
        index is exact.
    """
    language = Language(settings)
    texts = language.texts()
    memory = language.remember(pairs(texts.memory), "own")
    if memory.index.exact:
        return None
    most = min(K, len(memory))
    memory.index.index.rerank = memory.index.k if exact else False
    batches = (language.encoded(documents, memory) for documents in (texts.tune, texts.score))
    found = sweep(memory, *batches, k=[most])
    return {"best": found.best(), "paper": found.best(sigma=1.0)}
