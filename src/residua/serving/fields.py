"""What a request's JSON may be, said once: a schema for those who read it, and a check of what comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from residua import strict
from residua.strict import Check

LARGEST = 1e15  # of a number: what it is squared and multiplied to still fits float32
DEEP = 8  # lists in lists of one example


@dataclass(frozen=True)
class Field:
    """A JSON schema (of the 2020-12 kind, as OpenAPI 3.1 has it) and the same as a check."""

    schema: dict[str, Any]
    check: Check

    def described(self, text: str, **more: Any) -> Field:
        """The same, with words (and a default, or an example) for those who read it."""
        return replace(self, schema={**self.schema, "description": text, **more})


def whole(least: int, most: int) -> Field:
    """A whole number, which JSON may also write as 3.0: whoever uses it makes an int of it."""
    inner = strict.whole(least, most)

    def check(value: Any, where: str) -> None:
        inner(int(value) if type(value) is float and value.is_integer() else value, where)

    return Field({"type": "integer", "minimum": least, "maximum": most}, check)


def real(least: float = -LARGEST, most: float = LARGEST) -> Field:
    """A number."""
    schema = {"type": "number", "minimum": least, "maximum": most}
    return Field(schema, strict.number(least=least, most=most))


def flag() -> Field:
    """True or false."""
    return Field({"type": "boolean"}, strict.flag)


def constant(*values: Any) -> Field:
    """One of a few values."""

    def check(value: Any, where: str) -> None:
        if not any(type(value) is type(one) and value == one for one in values):
            raise ValueError(f"{where} is {value!r:.80}; expected {' or '.join(map(repr, values))}")

    return Field({"enum": list(values)}, check)


def text(most: int, least: int = 0) -> Field:
    """Text of so many characters, all of which exist."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or not least <= len(value) <= most:
            given = f"text of {len(value):,} characters" if isinstance(value, str) else type(value).__name__
            raise ValueError(f"{where} is {given}; expected text of {least} to {most:,} characters")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{where} holds half a character (a lone surrogate)") from error

    return Field({"type": "string", "minLength": least, "maxLength": most}, check)


def numbers(shape: Sequence[int] | None) -> Field:
    """One example: a list of numbers, or lists in lists of them; of this shape, where it is known."""
    schema: dict[str, Any] = real().schema
    if shape is None:
        schema = {"type": "array", "minItems": 1, "items": {"type": ["number", "array"]}}
    else:
        for length in reversed(shape):
            schema = {"type": "array", "minItems": length, "maxItems": length, "items": schema}
    expected = "lists of numbers, all of one length" if shape is None else f"numbers of shape {tuple(shape)}"

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list):
            raise ValueError(f"{where} is {type(value).__name__}; expected {expected}")
        try:
            found = np.array(value)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{where} is ragged; expected {expected}") from error
        if found.dtype.kind not in "fi" or not found.size or not _plain(value, found.ndim):
            raise ValueError(f"{where} holds what is no number; expected {expected}")
        if shape is not None and found.shape != tuple(shape):
            raise ValueError(f"{where} has shape {found.shape}; expected {expected}")
        if not (np.abs(found) <= LARGEST).all():
            raise ValueError(f"{where} holds numbers that are no finite ones up to {LARGEST:g}")

    return Field(schema, check)


def _plain(values: list[Any], deep: int) -> bool:
    """Whether lists of this depth hold nothing but numbers: NumPy takes true for 1."""
    for _ in range(min(deep, DEEP) - 1):
        values = [one for some in values for one in some]
    return set(map(type, values)) <= {int, float}


def list_of(field: Field, least: int, most: int) -> Field:
    """A list of such values."""
    inner = strict.list_of(field.check, most)

    def check(value: Any, where: str) -> None:
        inner(value, where)
        if len(value) < least:
            raise ValueError(f"{where} has {len(value)} items; expected at least {least}")

    return Field({"type": "array", "items": field.schema, "minItems": least, "maxItems": most}, check)


def either(*fields: Field) -> Field:
    """What one of several allows."""
    return Field({"anyOf": [one.schema for one in fields]}, strict.either(*(one.check for one in fields)))


def nullable(field: Field) -> Field:
    """That, or null."""
    return either(constant(None), field)


def record(required: Mapping[str, Field], optional: Mapping[str, Field] | None = None) -> Field:
    """An object of these fields and no others."""
    optional = optional or {}
    check = strict.record(
        {name: one.check for name, one in required.items()},
        {name: one.check for name, one in optional.items()},
        closed=True,
    )
    properties = {name: one.schema for name, one in {**required, **optional}.items()}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return Field(schema | ({"required": list(required)} if required else {}), check)
