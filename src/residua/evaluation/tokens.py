"""What is said of a text beside its perplexity: bits per byte, and where the memory helps.

Tokens are told apart by how often each is remembered, by how near its nearest neighbour is, and by whether they are
recited: text that is remembered too, where any memory looks good, and new text, where it must show what it is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from residua.memory import Memory

MATCH = 20  # tokens in a row before a token, in another text too: the same text, and no phrase
TIMES = (1, 10, 100, 1000)  # where the classes of rarity begin, after "never"
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: labels far back count in all bits
QUARTERS = ("nearest quarter", "second quarter", "third quarter", "farthest quarter")

Groups = dict[str, tuple[int, float, float]]  # tokens, perplexity of the base, of the reader


def columns_of(
    memory: Memory, rows: Mapping[str, np.ndarray], offsets: np.ndarray | None, same: np.ndarray
) -> dict[str, np.ndarray]:
    """Of each token, in the order of the text: ``remembered``, how often it is a label in the memory, int (n,); and
    ``recited``, bool (n,): whether it is the `same` (its very key or id is remembered), or comes after ``MATCH`` tokens
    that another text in the memory has in a row."""
    labels, recited = memory.labels, same.copy()
    counts = np.bincount(labels, minlength=memory.n_outputs)
    if offsets is not None and "id" in rows:
        ids, places = (memory.column(name)[memory.active_rows].cpu().numpy() for name in ("id", "offset"))
        seen, known = _before(labels, ids, places)
        seen = seen[known & ~np.isin(ids, np.unique(rows["id"]))]  # the texts' own rows are left out for them
        found, there = _before(rows["label"], rows["id"], offsets)
        recited |= there & np.isin(found, seen)
    return {"remembered": counts[rows["label"]], "recited": recited}


def _before(labels: np.ndarray, ids: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row a hash of the ``MATCH`` labels before it, uint64 (n,), and whether they are there without gaps."""
    every = np.arange(len(labels))
    begins = np.ones(len(labels), bool)
    begins[1:] = (ids[1:] != ids[:-1]) | (offsets[1:] != offsets[:-1] + 1)
    long = every - np.maximum.accumulate(np.where(begins, every, 0)) >= MATCH
    hashes, values = np.zeros(len(labels), np.uint64), labels.astype(np.uint64) + np.uint64(1)
    for back in range(1, MATCH + 1):
        hashes[back:] = hashes[back:] * _BASE + values[:-back]
    return hashes, long


def text_bytes(data: object, rows: Mapping[str, np.ndarray], offsets: np.ndarray | None) -> int | None:
    """UTF-8 bytes of the texts whose every token is a row; None where `data` do not know, or some text was cut."""
    sizes = getattr(data, "sizes", None)
    if not isinstance(sizes, dict) or offsets is None or "id" not in rows:
        return None
    begun = rows["id"][offsets == 0].tolist()  # each text once for each time that it was read
    return sum(sizes[id] for id in begun) if begun and all(id in sizes for id in begun) else None


def bits_per_byte(log_probs: np.ndarray, size: int | None) -> float | None:
    """Of log-probabilities (n,) in nats, and the bytes that the tokens make."""
    return None if size is None else -float(log_probs.sum(dtype=np.float64)) / math.log(2) / size


def by_rarity(rows: Mapping[str, np.ndarray]) -> Groups:
    """Tokens by how often each is remembered."""
    place = np.searchsorted(TIMES, rows["remembered"], side="right")
    ends = [*(f" to {end - 1:,}" for end in TIMES[1:]), " or more"]
    names = ["never remembered", *(f"{start:,}{end} times remembered" for start, end in zip(TIMES, ends))]
    return _groups(rows, {name: place == number for number, name in enumerate(names)})


def by_distance(rows: Mapping[str, np.ndarray]) -> Groups:
    """Tokens that a neighbour was searched and found for, in quarters by its distance."""
    order = np.argsort(rows["distance"], kind="stable")
    order = order[: np.isfinite(rows["distance"]).sum()]
    which = {}
    for name, quarter in zip(QUARTERS, np.array_split(order, len(QUARTERS))):
        which[name] = np.zeros(len(rows["distance"]), bool)
        which[name][quarter] = True
    return _groups(rows, which)


def by_recital(rows: Mapping[str, np.ndarray]) -> Groups:
    """Recited tokens and new ones; empty where none is recited."""
    recited = rows["recited"]
    return _groups(rows, {"recited": recited, "new": ~recited}) if recited.any() else {}


def _groups(rows: Mapping[str, np.ndarray], which: dict[str, np.ndarray]) -> Groups:
    found = {}
    for name, own in which.items():
        if own.any():
            base, now = (
                float(np.exp(-rows[said][own].mean(dtype=np.float64))) for said in ("base_log_prob", "log_prob")
            )
            found[name] = int(own.sum()), base, now
    return found
