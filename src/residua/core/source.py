"""Whose keys these are: the fingerprint that keeps one model's memory from correcting another."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from residua.errors import SourceMismatchError

# A norm is computed in float64, so equal parameters give equal norms on any device; a 16-bit copy of the same
# parameters moves each norm by less than its rounding error.
TOLERANCE = {"float64": 1e-6, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


@dataclass(frozen=True)
class Source:
    """The model and layer that made some keys."""

    name: str  # what to call the model in messages, such as its class
    key: str  # the module or step whose data are the keys
    dtype: str = "float32"  # the parameters' dtype, which decides how closely norms must agree
    parameters: dict[str, tuple[list[int], float]] = field(default_factory=dict)  # shape and Euclidean norm of each
    extra: dict[str, str] = field(default_factory=dict)  # what else must be equal, such as a tokenizer's hash
    # {"mean": ..., "scale": ...} that the keys were standardised with, a number per dimension; empty when they were not
    statistics: dict[str, list[float]] = field(default_factory=dict)

    def difference(self, other: Source) -> str | None:
        """The first thing that differs, in words; None for the same model and layer."""
        if self == other:  # nearly always, and the quickest to see
            return None
        if self.key != other.key:
            return f"keys come from {self.key!r} here and from {other.key!r} there"
        if self.extra != other.extra:
            return f"{self.extra} here and {other.extra} there"
        if self.parameters.keys() != other.parameters.keys():
            names = sorted(self.parameters.keys() ^ other.parameters.keys())
            return f"parameter {names[0]!r} exists on one side only ({len(names)} such)"
        tolerance = max(TOLERANCE.get(self.dtype, 1e-6), TOLERANCE.get(other.dtype, 1e-6))
        for name, (shape, norm) in self.parameters.items():
            shape_there, norm_there = other.parameters[name]
            if list(shape) != list(shape_there):
                return f"parameter {name!r} has shape {list(shape)} here and {list(shape_there)} there"
            if not math.isclose(norm, norm_there, rel_tol=tolerance, abs_tol=1e-12):
                return f"parameter {name!r} has norm {norm:.7g} here and {norm_there:.7g} there"
        if self.statistics != other.statistics:
            return (
                "the keys were standardised by different statistics; pass like= (the memory, or the Encoded "
                "it was built from) to encode, so that both are scaled alike"
            )
        return None

    def require(self, other: Source | None) -> None:
        """``SourceMismatchError`` when `other` is known and is another model or layer."""
        if other is not None and (difference := self.difference(other)) is not None:
            raise SourceMismatchError(
                f"this memory was made by {self.name} (key {self.key!r}), the data by {other.name} "
                f"(key {other.key!r}): {difference}. Encode with the model that made the memory, or build a new one"
            )

    def to_json(self) -> dict[str, Any]:
        """In JSON types."""
        parameters = {name: [list(shape), norm] for name, (shape, norm) in self.parameters.items()}
        return vars(self) | {"parameters": parameters}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Source:
        """The inverse of ``to_json``."""
        parameters = {name: (list(shape), float(norm)) for name, (shape, norm) in data["parameters"].items()}
        extra, statistics = dict(data["extra"]), dict(data.get("statistics", {}))
        return cls(data["name"], data["key"], data["dtype"], parameters, extra, statistics)
