"""What the numbers say, in sentences that are true of whatever was measured."""

from itertools import pairwise

from residua.papers.published import C4_KNNLM, WIKITEXT103, WIKITEXT103_LMBDA

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


def findings(results: dict) -> list[str]:
    """One sentence for each claim of the papers, and whether it holds here."""
    own, sizes = results["own"], results["sizes"]
    lines = [_claim(own)]
    for one in results["domains"]:
        readers, share, at_home = one["readers"], one["curves"]["best"]["lmbda"], own["curves"]["best"]["lmbda"]
        name, lowest = _lowest(one)
        lines.append(
            f"{one['name']}: its own memory takes the perplexity from {one['base']['perplexity']:.2f} to "
            f"{readers['knnlm']['perplexity']:.2f} (best of all, {name}: {lowest:.2f}); the memory of "
            f"the training text, to {readers['other_memory']['perplexity']:.2f}. The best λ at T = 1, {share:.2f}, is "
            f"{'larger than' if share > at_home else 'not larger than'} in the model's own domain, {at_home:.2f} "
            f"(paper: {WIKITEXT103_LMBDA['across domains']:g} and {WIKITEXT103_LMBDA['in domain']:g})."
        )
    falls = all(a["perplexity"] > b["perplexity"] for a, b in pairwise(sizes))
    grows = all(a["lmbda"] <= b["lmbda"] for a, b in pairwise(sizes))
    lines.append(
        f"Larger memories: the perplexity {'falls with every size' if falls else 'does not fall with every size'}, "
        f"the best λ {'never shrinks' if grows else 'does not always grow'} (paper: it falls without "
        "saturating, and λ grows)."
    )
    doublings = [point["perplexity"] for point in own["curves"]["k"]]
    better = sum(b < a for a, b in pairwise(doublings))
    lines.append(f"More neighbours: {better} of {len(doublings) - 1} doublings of k lower the perplexity (paper: all).")
    best, worst = (pick(results["places"], key=lambda one: one["perplexity"]) for pick in (min, max))
    spread = 100 * (worst["perplexity"] / best["perplexity"] - 1)
    lines.append(
        f"The best key is the {best['name']} (paper: the ffn input after layer norm); the worst has {spread:.1f} % "
        "more perplexity."
    )
    lines.append(_residuals("Own domain", results["against"]))
    lines += [_residuals(one["name"], one["against"]) for one in results["domains"]]
    if own["edges"]:
        lines.append(f"Own domain: the best {', '.join(own['edges'])} is at the end of what competed.")
    return lines


def _claim(own: dict) -> str:
    found = own["readers"]["knnlm"]
    low, high = found["change"][1:]
    paper = 100 * (WIKITEXT103["knnlm"][1] / WIKITEXT103["base"][1] - 1)
    certain = low is not None and (high < 0 or low > 0)
    name, best = _lowest(own)
    return (
        f"Own domain: kNN-LM changes the perplexity by {found['change'][0]:+.1f} % (paper: {paper:+.1f} %), "
        f"{'more than chance' if certain else 'which may be chance'} among documents; "
        f"the best of all is {name}, {best:.2f}."
    )


def _lowest(one: dict) -> tuple[str, float]:
    name = min(one["readers"], key=lambda reader: one["readers"][reader]["perplexity"])
    return NAMES[name].removeprefix("+ "), one["readers"][name]["perplexity"]


def _residuals(where: str, found: dict) -> str:
    mixed, added = max(found["knnlm"], key=lambda reader: reader["accuracy"]), found["resmem"]["accuracy"]
    said = f"{where}: ResMem, tuned for accuracy, "
    if added["settings"]["k"] == 0:
        said += f"leaves the base as it is ({found['base']['accuracy']:.2f} %)"
    else:
        word = "more" if added["accuracy"] > mixed["accuracy"] else "not more"
        said += f"has {added['accuracy']:.2f} % (base {found['base']['accuracy']:.2f} %), {word} than kNN-LM"
    ahead = C4_KNNLM["resmem"] - max(C4_KNNLM["knnlm"])
    return (
        f"{said}; kNN-LM at its best λ of those above, {mixed['settings']['lmbda']:g}, which the scored text chose, "
        f"has {mixed['accuracy']:.2f} % (paper: ResMem is ahead by {ahead:.2f} points)."
    )
