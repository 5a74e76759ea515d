"""Which passages are read: those that the model's own states find, those that share rare words, or any."""

import numpy as np
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfTransformer

from residua.passages import Found, Passages

BLOCK = 256  # queries whose likeness to all passages is held at a time


class Ranking:
    """The first `k` passages of contexts, in three ways: by ``keys``, by ``words`` (TF-IDF of tokens), ``random``."""

    def __init__(self, passages: Passages, k: int):
        self.passages, self.k = passages, k
        memory = passages.memory
        tokens = memory.column("tokens")[:].numpy()
        self.vocabulary = memory.n_outputs
        self.tfidf = TfidfTransformer(sublinear_tf=True)
        self.words = self.tfidf.fit_transform(counted([row[row >= 0] for row in tokens], self.vocabulary))

    def find(self, way: str, contexts: list[np.ndarray], seed: int = 0) -> list[Found]:
        """What each context retrieves, the nearest first."""
        n = len(self.passages.memory)
        if way == "keys":
            return [self.passages.find(context) for context in contexts]
        if way == "random":
            rng = np.random.default_rng(seed)
            rows = np.stack([rng.choice(n, self.k, replace=False) for _ in contexts])
            return [self.passages.read(row, np.ones(self.k)) for row in rows]
        found = []
        for start in range(0, len(contexts), BLOCK):
            part = contexts[start : start + BLOCK]
            alike = (self.tfidf.transform(counted(part, self.vocabulary)) @ self.words.T).toarray()
            order = np.argsort(-alike, axis=1, kind="stable")[:, : self.k]
            far = np.sqrt(np.maximum(0, 2 - 2 * np.take_along_axis(alike, order, 1)))
            found += [self.passages.read(*one) for one in zip(order, far)]
        return found


def counted(texts: list[np.ndarray], vocabulary: int) -> csr_array:
    """How often each token is in each text, (n, V)."""
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    tokens = np.concatenate(texts) if texts else np.empty(0, np.int64)
    return csr_array((np.ones(len(rows)), (rows, tokens)), shape=(len(texts), vocabulary))
