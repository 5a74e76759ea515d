"""What a text says next: the places in it, sorted by the tokens before them, where its end was said before."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

from residua.memory.memory import Memory

DEPTH = 16  # tokens of a suffix that are looked up, at most: a power of two
MANY = 1000  # places that have a say in what comes next, at most
EDGE = -1  # in place of a token: a document begins or ends here, or what was here is forgotten


class Suffixes:
    """The tokens that a memory holds at one moment, document by document, and their suffix array, read backwards.

    It takes 8 bytes a token: the tokens, and the places that another one follows, in the order of the tokens that end
    there, the last first. A longest suffix is found by bisection, a token at a time.

    Attributes
    ----------
    text : int32 array of shape (m,)
        Tokens; -1 before, between and after documents, and where rows of a document are not remembered.
    """

    text: np.ndarray

    def __init__(self, memory: Memory):  # of text
        now = memory.now
        rows = now.active_rows
        tokens, ids, offsets = (now.column(name)[rows].cpu().numpy() for name in ("label", "id", "offset"))
        begins = np.ones(len(rows), dtype=bool)  # which rows do not go on from the one before
        begins[1:] = (ids[1:] != ids[:-1]) | (offsets[1:] != offsets[:-1] + 1)
        self.text = np.full(len(rows) + int(begins.sum()) + 1, EDGE, dtype=np.int32)
        self.text[np.arange(len(rows)) + begins.cumsum()] = tokens
        self._order = _sorted(self.text)

    def match(self, text: Sequence[int]) -> tuple[np.ndarray, int]:
        """Where in the memory's text the longest suffix of `text` ends, and of how many tokens it is, at most 16.

        All these places are followed by a token. The suffix of none is everywhere.
        """
        low, high, length = 0, len(self._order), 0
        for token in reversed(text[-DEPTH:]):
            # The places in hand end alike, and are sorted by the token before that.
            first = bisect_left(self._order, token, low, high, key=lambda place: self.text[place - length])
            last = bisect_right(self._order, token, first, high, key=lambda place: self.text[place - length])
            if first == last:
                break
            low, high, length = first, last, length + 1
        return self._order[low:high], length


def match_itself(text: np.ndarray) -> tuple[np.ndarray, int]:
    """Where earlier in a text (n,) its own longest suffix ends, and of how many tokens it is, at most 16.

    >>> match_itself(np.array([1, 2, 3, 9, 2, 3, 5, 2, 3]))
    (array([2, 5]), 2)
    """
    places, length = np.arange(len(text) - 1), 0
    while length < DEPTH:
        longer = places[places >= length]
        longer = longer[text[longer - length] == text[len(text) - 1 - length]]
        if not len(longer):
            break
        places, length = longer, length + 1
    return places, length


def goes_on(text: np.ndarray, places: np.ndarray, most: int) -> list[int]:
    """Up to `most` tokens that follow these places: each the one that follows most of those that went on alike so far.

    >>> goes_on(np.array([7, 1, 5, 7, 2, 6, 7, 1, 4, 4]), np.array([0, 3, 6]), 3)
    [1, 4, 4]
    """
    found: list[int] = []
    places = places[:: 1 + len(places) // MANY]
    while len(found) < most:
        places = places + 1
        places = places[places < len(text)]
        next_, counts = np.unique(text[places], return_counts=True)
        counts[next_ == EDGE] = 0
        if not counts.any():
            break
        found.append(int(next_[counts.argmax()]))
        places = places[text[places] == found[-1]]
    return found


def _sorted(text: np.ndarray) -> np.ndarray:
    """The places of a text that a token follows, in the order of the 16 tokens that end there, the last first.

    By prefix doubling (Manber and Myers, 1993): ranks by the last h tokens give those by the last 2h.
    """
    rank, length = text.astype(np.int64) - EDGE, 1
    while length < DEPTH:
        before = np.concatenate([np.zeros(min(length, len(text)), dtype=np.int64), rank[:-length]])
        rank, length = np.unique(rank * (rank.max() + 1) + before, return_inverse=True)[1], 2 * length
    order = rank.argsort(kind="stable")
    inside = text != EDGE
    inside[:-1] &= inside[1:]
    order = order[inside[order]]
    return order.astype(np.int32) if len(text) < 2**31 else order
