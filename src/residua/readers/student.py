"""A student: a small perceptron on the key that has learned what a memory's neighbours say (MLP Memory, arXiv
2508.01832).

Residual blocks with the normalisation first, ``h + W2 gelu(W1 norm(h))`` of widths w, e·w, w (w = d, but at least 64),
then a linear layer: s, L numbers for each key. How s is read is part of what was learned: as a vote of its own, or as
what the base lacks.
"""

from __future__ import annotations

from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from residua.errors import MemoryFileError, ParameterError

Readout: TypeAlias = Literal["mixture", "residual"]
READOUTS = ("mixture", "residual")
MOST = 64  # blocks, and how often a block's inside is as wide as the key
FAR = 50.0  # standard deviations; what is further away says no more, and breaks nothing
LEAST = 64  # width; shorter keys are followed by zeros, so that there is room


class Block(nn.Module):
    """``h + W2 gelu(W1 norm(h))``."""

    def __init__(self, width: int, expansion: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.narrow(gelu(self.wide(self.norm(h))))


class Student(nn.Module):
    """Logits s of keys.

    Parameters
    ----------
    dim, outputs : int
        d and L.
    readout : {"mixture", "residual"}
        What s is: logits of a vote, or what is added to the base's own.
    blocks, expansion : int
    rows : str
        Of which rows it learned, as ``rows_of`` says it.
    """

    shift: Tensor  # float32 (d,), or float64 where keys need it: the mean of the keys
    scale: Tensor  # float32 (d,): 1 / their standard deviation

    def __init__(self, dim: int, outputs: int, readout: Readout, blocks: int, expansion: int, rows: str):
        super().__init__()
        if readout not in READOUTS:
            raise ParameterError(f"readout={readout!r}; expected one of {READOUTS}")
        for name, value in (("blocks", blocks), ("expansion", expansion)):
            if type(value) is not int or not 1 <= value <= MOST:
                raise ParameterError(f"{name}={value!r}; expected a whole number from 1 to {MOST}")
        self.dim, self.outputs, self.readout, self.expansion, self.rows = dim, outputs, readout, expansion, rows
        self.register_buffer("shift", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        width = max(dim, LEAST)
        self.blocks = nn.ModuleList(Block(width, expansion) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, keys: Tensor) -> Tensor:
        """Float32 (q, L) of keys (q, d)."""
        h = ((keys - self.shift) * self.scale).float().clamp(-FAR, FAR)
        h = h if self.dim >= LEAST else pad(h, (0, LEAST - self.dim))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))

    @property
    def nbytes(self) -> int:
        """Bytes of all its numbers."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    def __repr__(self) -> str:
        what = f"{self.dim} to {self.outputs}, {len(self.blocks)} blocks, {self.nbytes / 1e6:.2f} MB"
        return f"Student({what}, {self.readout!r}, of {self.rows.partition(' ')[0]} rows)"

    def to_json(self) -> dict[str, Any]:
        """Its shape, and of which rows it learned, in JSON types; its numbers are ``state_dict``."""
        shape = {"dim": self.dim, "outputs": self.outputs, "readout": self.readout, "blocks": len(self.blocks)}
        return shape | {"expansion": self.expansion, "rows": self.rows}

    @classmethod
    def from_json(cls, data: dict[str, Any], numbers: dict[str, Tensor]) -> Self:
        """The inverse: a student of that shape and these numbers."""
        with torch.device("meta"):  # of whatever size: nothing is allocated
            student = cls(**data)
        wanted = student.state_dict()
        right = wanted.keys() == numbers.keys() and all(
            wanted[name].shape == given.shape and (given.dtype == torch.float32 or name == "shift")
            for name, given in numbers.items()
        )
        if not (right and numbers["shift"].is_floating_point() and all(n.isfinite().all() for n in numbers.values())):
            raise MemoryFileError(f"the saved numbers are not those of {student!r}: they are torn, or somebody's own")
        student.load_state_dict(numbers, assign=True)
        return student.requires_grad_(False).eval()
