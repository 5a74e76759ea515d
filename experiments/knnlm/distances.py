"""What exact distances of the retrieved keys are worth: kNN-LM, section 5, "16.5 → 16.06"."""

from experiments.knnlm.language import K, Language
from experiments.knnlm.sweep import sweep
from experiments.knnlm.texts import pairs
from experiments.published import WIKITEXT103_DISTANCES
from experiments.table import Table


def distances(settings: dict, exact: bool) -> dict | None:
    """The best readers over the distances to the index's own codes, or over exact ones of what those retrieve.

    ``best``, and ``paper`` with σ = 1, as ``Swept.best`` gives them for all neighbours and T = 1; None where the index
    is exact.
    """
    language = Language(settings)
    texts = language.texts()
    memory = language.remember(pairs(texts.memory), "own")
    if memory.index.exact:
        return None
    memory.index.index.rerank = memory.index.k if exact else False
    found = sweep(memory, *language.sets(texts, memory), k=[min(K, len(memory))])
    return {"best": found.best(), "paper": found.best(sigma=1.0)}


def table(found: dict, own: dict) -> Table:
    """Codes, as used elsewhere here, and exact."""
    paper, curves, depth = WIKITEXT103_DISTANCES, own["curves"], own["index"]["rerank"]
    ways = [("to the index's codes", f"{paper['codes']:.2f}", found["codes"])]
    if depth is not True and 0 < depth < curves["k"][-1]["k"]:
        used = {"best": curves["k"][-1], "paper": min(curves["lmbda_paper"], key=lambda point: point["tuned"])}
        ways.append((f"exact of the first {depth}, as elsewhere here", "", used))
    ways.append(("exact", f"{paper['exact']:.2f}", found["exact"]))
    rows = []
    for label, printed, one in ways:
        perplexities = [f"{one[kind]['perplexity']:.2f}" for kind in ("paper", "best")]
        rows.append([label, printed, *perplexities, f"{one['best']['sigma']:.3g}"])
    return Table(("distances", "paper", "ours, σ = 1", "ours, σ tuned", "σ"), rows)
