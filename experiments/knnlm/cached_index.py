"""An index that searches each query once: tables that read the same neighbours in many ways cost one search."""

import hashlib

import torch
from torch import Tensor

from residua.core import Neighbours
from residua.index import Index

SPARE = 16  # more than k, since a memory asks for a few more where it is to leave a document's own rows out


class CachedIndex:
    """In place of the index of a memory that does not change: `k` neighbours are searched, and kept, which takes about
    8 k bytes for each query.
    """

    def __init__(self, index: Index, k: int):
        self.index, self.k = index, min(k + SPARE, index.n)
        self._found: dict[bytes, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def __getattr__(self, name: str):
        return getattr(self.index, name)

    def search(self, queries: Tensor, k: int, keys: Tensor | None) -> Neighbours:
        """The `k` nearest rows of each query, as the index says; from its first search where there was one."""
        if k > self.k or not len(queries):
            return self.index.search(queries, k, keys)
        names = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in queries.cpu().numpy()]
        new = {name: place for place, name in enumerate(names) if name not in self._found}
        if new:
            found = self.index.search(queries[list(new.values())], self.k, keys)
            self._found.update(zip(new, zip(found.rows.int(), found.distances)))
        rows, distances = zip(*(self._found[name] for name in names))
        return Neighbours(torch.stack(rows)[:, :k].long(), torch.stack(distances)[:, :k])
