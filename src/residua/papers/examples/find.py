"""Which test images the memory corrected or broke, which classes were confused, and which memories decided."""

from collections import Counter

import numpy as np

import residua as rs
from residua.errors import ParameterError
from residua.papers.cifar100.compare import PAPER
from residua.papers.cifar100.data import CLASS_NAMES
from residua.papers.cifar100.networks import device_of, encoded, split
from residua.papers.examples.tiles import pack
from residua.papers.published import CIFAR100_EXAMPLES
from residua.papers.work import Work


def run(
    work: Work, *, weights: str, data: str, download: str, shown: int, memories: int, pairs: int, device: str
) -> dict:
    """Answer the test set at the paper's settings and look at what changed.

    Raises
    ------
    ParameterError
        Without weights, or with a number below 1.
    """
    if not weights:
        raise ParameterError("weights is empty; expected a trained network's file, such as reproduce cifar100 leaves")
    if min(shown, memories, pairs) < 1 or memories > PAPER["k"]:
        raise ParameterError(
            f"shown={shown}, memories={memories}, pairs={pairs}; expected at least 1, and at most {PAPER['k']} memories"
        )
    split(data, "train", download == "yes")
    return work.map(find, [(weights, data, shown, memories, pairs, device)], desc="examples")[0]


def find(weights: str, data: str, shown: int, memories: int, pairs: int, device: str) -> dict:
    """Everything that is told and drawn.

    Returns
    -------
    dict
        ``n``, ``corrected``, ``introduced`` (test images), ``confusions`` (see ``confusions``) and ``examples`` (see
        ``explained``).
    """
    remembered, test = encoded(weights, data, 1.0, 0, device)
    reader = rs.ResMem(rs.Memory(remembered, device=device_of(device)), **PAPER)
    scores = reader.scores(test)
    before, after, truth = test.logits.argmax().numpy(), scores.argmax(axis=1), test.labels
    chosen = choose(before, after, truth, scores, shown)
    images = split(data, "train")[0], split(data, "test")[0]
    return {
        "n": len(test),
        "corrected": int(((before != truth) & (after == truth)).sum()),
        "introduced": int(((before == truth) & (after != truth)).sum()),
        "confusions": confusions(before, after, truth, pairs),
        "examples": [explained(reader, test, int(i), remembered, images, memories) for i in chosen],
    }


def confusions(before: np.ndarray, after: np.ndarray, truth: np.ndarray, most: int) -> list[dict]:
    """Pairs of classes taken for each other, in either direction: the most often corrected, the most often introduced,
    and the paper's.

    Returns
    -------
    list of dict
        ``pair`` (two names), ``errors`` (of the base, one class for the other), ``corrected`` (of them), ``introduced``
        (right before, the other class now), ``paper`` (bool), most often corrected first.
    """
    wrong, right, now = before != truth, before == truth, after == truth
    errors = _counted(truth[wrong], before[wrong])
    corrected = _counted(truth[wrong & now], before[wrong & now])
    introduced = _counted(truth[right & ~now], after[right & ~now])
    named = [tuple(sorted(CLASS_NAMES.index(name) for name in pair)) for pair in CIFAR100_EXAMPLES["confusions"]]
    top = [pair for counted in (corrected, introduced) for pair, _ in _ranked(counted)[:most]]
    rows = [
        {
            "pair": [CLASS_NAMES[a], CLASS_NAMES[b]],
            "errors": errors[a, b],
            "corrected": corrected[a, b],
            "introduced": introduced[a, b],
            "paper": (a, b) in named,
        }
        for a, b in dict.fromkeys([*named, *top])
    ]
    return sorted(rows, key=lambda row: (-row["corrected"], row["introduced"], row["pair"]))


def _counted(one: np.ndarray, other: np.ndarray) -> Counter:
    return Counter(zip(np.minimum(one, other).tolist(), np.maximum(one, other).tolist()))


def _ranked(counted: Counter) -> list:
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


def choose(before: np.ndarray, after: np.ndarray, truth: np.ndarray, scores: np.ndarray, shown: int) -> np.ndarray:
    """Corrected test rows: for each pair of classes the one corrected most clearly (by ResMem's score of the truth over
    that of the base's answer), the paper's pairs first, then the pairs corrected most often."""
    rows = np.flatnonzero((before != truth) & (after == truth))
    clear = scores[rows, truth[rows]] - scores[rows, before[rows]]
    pair_of = {row: tuple(sorted((int(truth[row]), int(before[row])))) for row in rows.tolist()}
    often = Counter(pair_of.values())
    named = [tuple(sorted(CLASS_NAMES.index(name) for name in pair)) for pair in CIFAR100_EXAMPLES["confusions"]]
    best: dict[tuple, int] = {}
    for row in rows[np.argsort(-clear, kind="stable")].tolist():
        best.setdefault(pair_of[row], row)
    order = sorted(best, key=lambda pair: (pair not in named, -often[pair], pair))
    return np.array([best[pair] for pair in order[:shown]], dtype=np.int64)


def explained(reader, test, row: int, remembered, images, memories: int) -> dict:
    """One test image, and the memories that moved it most from the base's answer to the truth.

    Returns
    -------
    dict
        ``row``, ``truth``, ``base``, ``scores`` ([truth before, after, base's answer before, after]), ``memories``
        (``id``, ``label``, ``base``, ``distance``, ``moved``: what each adds to the truth's lead) and ``tiles`` (the
        images side by side, the test image first).
    """
    why = rs.explain(reader, test[row])
    truth, said = int(why.label), int(test[row].logits.argmax()[0])
    moved = why.contributions[:, truth] - why.contributions[:, said]
    most = np.argsort(-moved, kind="stable")[:memories]
    before = remembered[why.rows[most]].logits.argmax().numpy()
    return {
        "row": row,
        "truth": CLASS_NAMES[truth],
        "base": CLASS_NAMES[said],
        "scores": [float(values[c]) for c in (truth, said) for values in (why.base, why.scores)],
        "memories": [
            {
                "id": int(why.ids[i]),
                "label": CLASS_NAMES[why.labels[i]],
                "base": CLASS_NAMES[b],
                "distance": float(why.distances[i]),
                "moved": float(moved[i]),
            }
            for i, b in zip(most, before)
        ],
        "share": float(moved[most].sum() / moved.sum()),
        "tiles": pack(np.stack([images[1][row], *images[0][why.rows[most]]])),
    }
