"""A student: a small perceptron on the key that has learned what a memory's neighbours say (MLP Memory, arXiv
2508.01832).

Residual blocks with the normalisation first, ``h + W2 gelu(W1 norm(h))`` of widths w, e·w, w (w = d, but at least 64),
then a linear layer: s, L numbers for each key. How s is read is part of what was learned: as a vote of its own, or as
what the base lacks.
"""

from __future__ import annotations

from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import gelu, pad

from residua.errors import MemoryFileError, ParameterError

Readout: TypeAlias = Literal["mixture", "residual"]
READOUTS = ("mixture", "residual")
MOST = 64  # blocks, and how often a block's inside is as wide as the key
FAR = 50.0  # standard deviations; what is further away says no more, and breaks nothing
LEAST = 64  # width; shorter keys are followed by zeros, so that there is room


class Student:
    """Logits s of keys.

    One key is answered in some fifty microseconds, of which the arithmetic is the smaller part: so it is plain tensors
    in the order in which they are used, and no module of modules.

    Parameters
    ----------
    dim, outputs : int
        d and L.
    readout : {"mixture", "residual"}
        What s is: logits of a vote, or what is added to the base's own.
    blocks, expansion : int
    rows : str
        Of which rows it learned, as ``rows_of`` says it.
    numbers : dict of str to Tensor, optional
        What it has learned; None: chance.
    """

    readout: Readout
    numbers: dict[str, Tensor]

    def __init__(
        self,
        dim: int,
        outputs: int,
        readout: Readout,
        blocks: int,
        expansion: int,
        rows: str,
        numbers: dict[str, Tensor] | None = None,
    ):
        if readout not in READOUTS:
            raise ParameterError(f"readout={readout!r}; expected one of {READOUTS}")
        for name, value in (("blocks", blocks), ("expansion", expansion)):
            if type(value) is not int or not 1 <= value <= MOST:
                raise ParameterError(f"{name}={value!r}; expected a whole number from 1 to {MOST}")
        self.dim, self.outputs, self.readout, self.rows = dim, outputs, readout, rows
        self.blocks, self.expansion, self.width = blocks, expansion, max(dim, LEAST)
        self.numbers = (
            {name: _drawn(name, shape) for name, shape in self.shapes.items()} if numbers is None else numbers
        )
        inside = ("gain", "offset", "wide", "wide.bias", "narrow", "narrow.bias")
        self._blocks = [tuple(self.numbers[f"{block}.{name}"] for name in inside) for block in range(blocks)]
        self._ends = tuple(self.numbers[name] for name in ("shift", "scale", "gain", "offset", "head", "head.bias"))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all its numbers. A matrix W of ``x W + b`` lies as it is read, which for one key is three times as quick
        as the other way."""
        w, wide, one = self.width, self.expansion * self.width, dict[str, tuple[int, ...]]()
        for block in range(self.blocks):
            one |= {f"{block}.gain": (w,), f"{block}.offset": (w,)}
            one |= {f"{block}.wide": (w, wide), f"{block}.wide.bias": (wide,)}
            one |= {f"{block}.narrow": (wide, w), f"{block}.narrow.bias": (w,)}
        ends = {"gain": (w,), "offset": (w,), "head": (w, self.outputs), "head.bias": (self.outputs,)}
        return one | ends | {"shift": (self.dim,), "scale": (self.dim,)}

    @property
    def weights(self) -> list[Tensor]:
        """What is learned by gradients: all but the keys' mean (float64 where they need it) and 1 / their spread."""
        return [tensor for name, tensor in self.numbers.items() if name not in ("shift", "scale")]

    def __call__(self, keys: Tensor) -> Tensor:
        """Float32 (q, L) of keys (q, d)."""
        shift, scale, gain, offset, head, bias = self._ends
        h = ((keys - shift) * scale).float().clamp(-FAR, FAR)
        h, shape = h if self.dim == self.width else pad(h, (0, self.width - self.dim)), (self.width,)
        for own_gain, own_offset, wide, wide_bias, narrow, narrow_bias in self._blocks:
            inside = gelu(torch.addmm(wide_bias, torch.layer_norm(h, shape, own_gain, own_offset), wide))
            h = h + torch.addmm(narrow_bias, inside, narrow)
        return torch.addmm(bias, torch.layer_norm(h, shape, gain, offset), head)

    def with_numbers(self, rows: str, numbers: dict[str, Tensor]) -> Self:
        """A student of the same shape that has learned these, of these rows."""
        shape = self.dim, self.outputs, self.readout, self.blocks, self.expansion
        return type(self)(*shape, rows, numbers)

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        if self.numbers["head"].device == device:
            return self
        return self.with_numbers(self.rows, {name: tensor.to(device) for name, tensor in self.numbers.items()})

    @property
    def nbytes(self) -> int:
        """Bytes of all its numbers."""
        return sum(tensor.nbytes for tensor in self.numbers.values())

    def __repr__(self) -> str:
        what = f"{self.dim} to {self.outputs}, {self.blocks} blocks, {self.nbytes / 1e6:.2f} MB"
        return f"Student({what}, {self.readout!r}, of {self.rows.partition(' ')[0]} rows)"

    def to_json(self) -> dict[str, Any]:
        """Its shape, and of which rows it learned, in JSON types; its numbers are saved beside it."""
        shape = {"dim": self.dim, "outputs": self.outputs, "readout": self.readout}
        return shape | {"blocks": self.blocks, "expansion": self.expansion, "rows": self.rows}

    @classmethod
    def from_json(cls, data: dict[str, Any], numbers: dict[str, Tensor]) -> Self:
        """The inverse: a student of that shape and these numbers."""
        given = {name: tuple(tensor.shape) for name, tensor in numbers.items()}
        kinds = {name: (torch.float32, torch.float64) if name == "shift" else (torch.float32,) for name in numbers}
        fits = all(tensor.dtype in kinds[name] and bool(tensor.isfinite().all()) for name, tensor in numbers.items())
        try:
            student = cls(**data, numbers=numbers)
        except KeyError as error:
            raise MemoryFileError(f"{error} of the student's saved numbers is missing; {TORN}") from error
        if not fits or given != student.shapes:
            raise MemoryFileError(f"the saved numbers are not those of a student of this shape; {TORN}")
        return student


TORN = "they are torn, or somebody's own: restore them from a copy, or distil again"


def _drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """As torch's own layers begin: matrices by chance, as small as they are tall; biases 0."""
    if len(shape) == 2:
        return torch.empty(shape).uniform_(-(shape[0] ** -0.5), shape[0] ** -0.5)
    return torch.ones(shape) if name.endswith(("gain", "scale")) else torch.zeros(shape)
