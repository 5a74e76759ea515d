"""Interpolated Kneser-Ney n-grams over the memory's own tokens (Chen and Goodman 1998, with one discount an order).

The n-gram of a token is it and the n - 1 before it in its document, told apart by a hash of 64 bits. The highest order
counts occurrences; a lower one counts in how many different places, one token further back, its n-gram occurs.
"""

import numpy as np

ORDERS = (1, 2, 3, 4, 5, 6)
_TIMES, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD)
_HALF = np.uint64(33)


class NGrams:
    """Counts of all orders over tokens int (n,), row by row the same document's where `documents` (n,) are equal.

    >>> model = NGrams(np.array([1, 2, 1, 2, 3]), np.zeros(5), vocabulary=4, orders=(1, 2))
    >>> model.probabilities(np.array([1, 2]), np.zeros(2)).round(3).tolist()
    [[0.39, 0.39], [0.681, 0.766]]
    """

    def __init__(self, tokens: np.ndarray, documents: np.ndarray, vocabulary: int, orders: tuple[int, ...] = ORDERS):
        self.vocabulary, self.orders = vocabulary, orders
        hashed = hashes(tokens, documents, max(orders) + 1)
        counted = [Counts(grams, contexts) for grams, contexts in hashed]
        self.counted = counted[:-1]
        self.continued = [
            Counts(grams[longer.first], contexts[longer.first])
            for (grams, contexts), longer in zip(hashed, counted[1:])
        ]

    def probabilities(self, tokens: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """What the model of each order says of each token, float64 (orders, n)."""
        lower, out = np.full(len(tokens), 1 / self.vocabulary), []
        hashed = hashes(tokens, documents, max(self.orders))
        for order, ((grams, contexts), counted, continued) in enumerate(zip(hashed, self.counted, self.continued), 1):
            if order in self.orders:
                out.append(counted.said(grams, contexts, lower))
            lower = continued.said(grams, contexts, lower)
        return np.array(out)

    def longest(self, tokens: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """The order of the longest n-gram ending in each token that was counted, int (n,); 0: not even the token."""
        hashed = hashes(tokens, documents, max(self.orders))
        return np.sum([counted.of(grams) > 0 for (grams, _), counted in zip(hashed, self.counted)], axis=0)

    def match(self, tokens: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """How many tokens before each, up to the highest order's, were counted in a row, int (n,): known before the
        token is."""
        hashed = hashes(tokens, documents, max(self.orders))
        known = [counted.after(contexts) > 0 for (_, contexts), counted in zip(hashed, self.counted)]
        return np.sum(known, axis=0) - 1


class Counts:
    """Of n-grams and the contexts that they begin with, uint64 (n,), one entry each time: how often each occurs, and of
    each context how often, and before how many tokens. ``first`` is an entry of each n-gram."""

    def __init__(self, grams: np.ndarray, contexts: np.ndarray):
        self.grams, self.first, self.counts = np.unique(grams, return_index=True, return_counts=True)
        self.contexts, place = np.unique(contexts[self.first], return_inverse=True)
        self.types, self.totals = np.bincount(place), np.bincount(place, self.counts)
        once, twice = ((self.counts == times).sum() for times in (1, 2))
        self.discount = once / (once + 2 * twice) if once else 0.5  # else a token that is new would be impossible

    def of(self, grams: np.ndarray) -> np.ndarray:
        """How often each occurs, 0 of those that do not."""
        return _found(self.grams, self.counts, grams)

    def after(self, contexts: np.ndarray) -> np.ndarray:
        """How often tokens followed each, 0 of those that nothing did."""
        return _found(self.contexts, self.totals, contexts)

    def said(self, grams: np.ndarray, contexts: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Probabilities of tokens after their contexts, of which the lower order says `lower`."""
        totals, types = self.after(contexts), _found(self.contexts, self.types, contexts)
        own = np.maximum(self.of(grams) - self.discount, 0) + self.discount * types * lower
        return np.where(totals > 0, own / np.maximum(totals, 1), lower)


def hashes(tokens: np.ndarray, documents: np.ndarray, most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(n-grams, their contexts), uint64 (n,) each, of the orders from 1 to `most`; before a document's first token
    there are as many marks of its beginning as are asked for."""
    values, every = tokens.astype(np.uint64) + np.uint64(1), np.arange(len(tokens))
    begins = np.r_[True, documents[1:] != documents[:-1]]
    place = every - np.maximum.accumulate(np.where(begins, every, 0))
    context, out = np.zeros(len(tokens), np.uint64), []
    for back in range(most):
        if back:
            before = np.r_[np.zeros(back, np.uint64), values[:-back]] if back < len(values) else np.zeros_like(values)
            context = _mixed(context * _TIMES + np.where(place >= back, before, np.uint64(0)))
        out.append((_mixed(_mixed(context + _MIX) * _TIMES + values), context))
    return out


def _mixed(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> _HALF)) * _MIX
    return x ^ (x >> _HALF)


def _found(known: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The value of each that is among the sorted `known`, 0 of the others."""
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(known[at] == asked, values[at], 0)
