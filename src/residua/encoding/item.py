"""Which item of what a torch model returns its outputs are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

from torch import Tensor

from residua.core.outputs import OUTPUT_KINDS
from residua.core.source import KEYS_ONLY
from residua.errors import EncodeError, ParameterError

OutputChoice: TypeAlias = str | int | tuple[int | str, str] | Callable[[Any], Tensor] | None  # what ``output=`` takes
FUNCTION = "function"  # the item of outputs that a function of the caller's picks


class Choice(NamedTuple):
    """What ``output=`` says: a kind, or "auto", and an item: a place, a name, a function, or None for the usual one."""

    kind: str
    item: int | str | Callable[[Any], Tensor] | None

    @property
    def recorded(self) -> int | str | None:
        """The item, as a source keeps it."""
        return FUNCTION if callable(self.item) else self.item


def choice_of(output: OutputChoice) -> Choice:
    """A kind, an item, or the pair (item, kind); None for keys only.

    Examples
    --------
    >>> choice_of("probabilities"), choice_of(1), choice_of(("head", "logits"))
    (Choice(kind='probabilities', item=None), Choice(kind='auto', item=1), Choice(kind='logits', item='head'))
    """
    if output is None:
        return Choice(KEYS_ONLY, None)
    item, kind = output if isinstance(output, tuple) and len(output) == 2 else (None, output)
    if isinstance(kind, str) and kind in ("auto", *OUTPUT_KINDS):
        return Choice(kind, cast("int | str | None", item))
    if item is None and (callable(kind) or (isinstance(kind, (str, int)) and not isinstance(kind, bool))):
        return Choice("auto", cast("int | str | Callable[[Any], Tensor]", kind))
    kinds = ", ".join(map(repr, OUTPUT_KINDS))
    raise ParameterError(
        f"output={output!r}; expected one of {kinds}, an item of what the model returns (its place, its name or a "
        "function that picks it), a pair (item, kind), or None for an embedder"
    )


def item_of(output: Any, item: int | str | Callable[[Any], Any]) -> Any:
    """That item of what a model returned: by place, by name, or by a function."""
    if callable(item):
        return item(output)
    try:
        if isinstance(output, Tensor):
            raise TypeError("one tensor has no items")
        if isinstance(item, int) or isinstance(output, dict):
            return output[item]
        return getattr(output, item)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        has = (
            list(output) if isinstance(output, dict) else f"{len(output)}" if isinstance(output, (tuple, list)) else ""
        )
        raise EncodeError(
            f"the model returned {type(output).__name__}{f' of items {has}' if has else ''}, which has no item "
            f"{item!r}; name one that it has with output="
        ) from error
