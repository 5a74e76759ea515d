"""Keys as an index holds them: its codes, decoded where they are read."""

from __future__ import annotations

import torch
from torch import Tensor

from residua.index.index import Index


class DecodedKeys:
    """The keys (n, d) of the first rows of an index that keeps codes of them, read like a float32 tensor.

    Nothing is decoded before it is read, and nothing of it is kept.

    Examples
    --------
    >>> from residua.index import make_index
    >>> index = make_index("SQ8", n=3, dim=2, device="cpu")
    >>> index.build(torch.tensor([[0.0, 4.0], [1.0, 2.0], [2.0, 0.0]]))
    >>> DecodedKeys(index, 3)[torch.tensor([2, 0])].round().tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """

    dtype: torch.dtype = torch.float32
    device: torch.device
    shape: tuple[int, int]

    def __init__(self, index: Index, n: int):
        self._index, self.device, self.shape = index, index.device, (n, index.dim)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        """The keys at `rows`: int64 row numbers of any shape, a mask (n,), or a slice."""
        if isinstance(rows, slice):
            rows = torch.arange(len(self))[rows]
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
        return self.index_select(0, rows.reshape(-1)).view(*rows.shape, self.shape[1])

    def index_select(self, dim: int, rows: Tensor, /) -> Tensor:
        """The keys at `rows`, int64 row numbers (m,); `dim` is 0."""
        return self._index.decode(rows)
