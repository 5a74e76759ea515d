"""Which tokens gain, and examples: perplexity by rarity, by distance and by the longest n-gram that is remembered."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

import residua as rs
from experiments.shown import interval
from experiments.table import Table
from residua.core import Encoded
from residua.evaluation.significance import paired

RARE = (1, 10, 100, 1000, 10_000)  # times that a token is remembered: where the groups begin, after "never"
FIFTHS = 5
BEFORE = 14  # tokens of context that an example shows
FEW = 200  # times remembered: a rare token, for the examples
SHOWN = 6


def change(losses: np.ndarray, documents: np.ndarray) -> list[float]:
    """By how many % perplexity changes, [it, low, high], where -log p falls by `losses` (n,): 95 %, over documents."""
    found = paired(losses, losses, documents, False, 0.95, 2000, np.random.default_rng(0))["perplexity_ratio_interval"]
    return [100 * (edge - 1) for edge in (np.exp(-losses.mean()), *(found or (np.nan, np.nan)))]


def groups(values: dict[str, np.ndarray]) -> dict[str, list[tuple[str, np.ndarray]]]:
    """By ``remembered``, ``distance`` and ``longest``, each int or float (n,): the groups' labels, and which tokens are
    theirs, bool (n,)."""
    count = values["remembered"]
    edges = (0, *RARE, np.inf)
    rare = [
        ("never" if not low else f"{low:,} to {high - 1:,}" if high < np.inf else f"{low:,} or more", low, high)
        for low, high in pairwise(edges)
    ]
    order = np.argsort(values["distance"], kind="stable")
    near = []
    for part in np.array_split(order, FIFTHS):
        own = np.zeros(len(order), bool)
        own[part] = True
        near.append((f"{values['distance'][part[0]]:.1f} to {values['distance'][part[-1]]:.1f}", own))
    longest = values["longest"]
    return {
        "times remembered": [(name, (count >= low) & (count < high)) for name, low, high in rare],
        "distance to the nearest": near,
        "longest n-gram remembered": [(str(n), longest == n) for n in range(longest.max() + 1)],
    }


def measured(log_probs: dict[str, np.ndarray], documents: np.ndarray, values: dict[str, np.ndarray]) -> dict:
    """Of each group ``name``, ``share`` of the tokens in %, perplexities by reader, ``change`` of kNN-LM against the
    base and ``over_ngrams`` against the base with n-grams, and ``of_gain``, its share of kNN-LM's whole gain, in %."""
    gain = log_probs["knnlm"] - log_probs["base"]
    over = log_probs["knnlm"] - log_probs["ngrams"]
    return {
        by: [
            {
                "name": name,
                "share": 100 * float(own.mean()),
                "perplexity": {who: float(np.exp(-said[own].mean())) for who, said in log_probs.items()},
                "change": change(gain[own], documents[own]),
                "over_ngrams": change(over[own], documents[own]),
                "of_gain": 100 * float(gain[own].sum() / gain.sum()),
            }
            for name, own in parts
            if own.any()
        ]
        for by, parts in groups(values).items()
    }


def table(by: str, found: list[dict]) -> Table:
    """One row for each group."""
    rows = []
    for one in found:
        perplexities = [f"{one['perplexity'][who]:.2f}" for who in ("base", "ngrams", "knnlm")]
        shown = [interval(one[name]) for name in ("change", "over_ngrams")]
        rows.append([one["name"], f"{one['share']:.1f}", *perplexities, *shown, f"{one['of_gain']:.1f}"])
    readers = ("base", "+ n-grams", "+ kNN-LM")
    return Table((by, "tokens, %", *readers, "kNN-LM: change, %", "against n-grams, %", "of the gain, %"), rows)


def examples(
    memory: rs.Memory, scored: Encoded, log_probs: dict[str, np.ndarray], count: np.ndarray, decode: Callable
) -> dict[str, list[dict]]:
    """``helped``: the rare tokens that kNN-LM helps most, and ``harmed``: the tokens that it harms most; of a document
    at most one each, with what the nearest neighbour is.

    ``context``, ``token``, probabilities in % by reader, ``distance``, ``neighbour`` (its document),
    ``neighbour_context`` and ``neighbour_token``.
    """
    gain = log_probs["knnlm"] - log_probs["base"]
    seen, labels = scored.labels, memory.labels
    helped = [row for row in np.argsort(-gain, kind="stable") if 0 < count[row] < FEW]
    out = {}
    for name, order in (("helped", helped), ("harmed", np.argsort(gain, kind="stable"))):
        chosen, documents = [], set()
        for row in order:
            own = scored.ids[row]
            if own in documents or row < BEFORE or scored.ids[row - BEFORE] != own:
                continue
            documents.add(own)
            chosen.append(int(row))
            if len(chosen) == SHOWN:
                break
        near = memory.search(scored.keys[chosen], 1)
        out[name] = []
        for row, place, distance in zip(chosen, near.rows[:, 0].tolist(), near.distances[:, 0].tolist()):
            start = max(0, place - BEFORE)
            out[name].append(
                {
                    "context": decode(seen[row - BEFORE : row]),
                    "token": decode(seen[row : row + 1]),
                    "probabilities": {who: 100 * float(np.exp(said[row])) for who, said in log_probs.items()},
                    "distance": distance,
                    "neighbour": memory.names[int(memory.column("id")[place])],
                    "neighbour_context": decode(labels[start:place]),
                    "neighbour_token": decode(labels[place : place + 1]),
                }
            )
    return out


def examples_table(found: list[dict]) -> Table:
    """One row for each example."""
    rows = []
    for one in found:
        said = [f"{one['probabilities'][who]:.2g}" for who in ("base", "ngrams", "knnlm")]
        near = f"{code(one['neighbour_context'])} → {code(one['neighbour_token'])} ({one['neighbour']})"
        rows.append([f"{code(one['context'])} → {code(one['token'])}", *said, f"{one['distance']:.1f}", near])
    return Table(("context → token", "base, %", "+ n-grams, %", "+ kNN-LM, %", "distance", "nearest neighbour"), rows)


def code(text: str) -> str:
    """Source on one line, as Markdown code: line ends as ⏎, runs of spaces as one."""
    text = " ".join(text.replace("\n", " ⏎ ").replace("`", "ˋ").split(" ")).strip()
    return f"`{' '.join(text.split()) or '␣'}`"
