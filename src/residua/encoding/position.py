"""At which of a sequence's positions a model reads its outputs, and so where a key of that sequence is read."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from residua.errors import ParameterError

# Of states (n, t, c) and a mask (n, t) of the positions that are no padding; "of all" counts padding too.
POSITIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "first": lambda states, mask: states[:, 0],
    "last": lambda states, mask: states[torch.arange(len(states), device=states.device), _last(mask)],
    "mean": lambda states, mask: (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1).clamp_min(1)[:, None],
    "last of all": lambda states, mask: states[:, -1],
    "mean of all": lambda states, mask: states.mean(dim=1),
}
TIME_FIRST = ", time first"  # states (t, n, c), as recurrent layers give them unless told otherwise
_RECENT = 16  # sequences that a vector is compared with


def checked_position(position: str | None) -> str | None:
    """`position`; ``ParameterError`` for no such one."""
    if position is None or position.removesuffix(TIME_FIRST) in POSITIONS:
        return position
    raise ParameterError(f"position={position!r}; expected one of {', '.join(map(repr, POSITIONS))}")


def mask_of(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Which positions (n, t) of what a model is called with are no padding: by its attention mask, else by the number
    of the padding token; None where nothing says so."""
    given = dict(zip(inspect.signature(model.forward).parameters, args)) | kwargs
    mask, tokens = given.get("attention_mask"), given.get("input_ids")
    padding = getattr(getattr(model, "config", None), "pad_token_id", None)
    if mask is None and isinstance(tokens, Tensor) and padding is not None:
        mask = tokens != padding
    return mask.bool() if isinstance(mask, Tensor) and mask.ndim == 2 else None


def at_position(states: Tensor, position: str, mask: Tensor | None) -> Tensor:
    """The vectors (n, c) of states (n, t, c), or (t, n, c) where that is said, at a position.

    Examples
    --------
    >>> states = torch.tensor([[[1.0], [2.0], [6.0]]])
    >>> mask = torch.tensor([[True, True, False]])
    >>> [at_position(states, position, mask).item() for position in ("first", "last", "mean", "mean of all")]
    [1.0, 2.0, 1.5, 3.0]
    """
    if position.endswith(TIME_FIRST):
        states, position = states.transpose(0, 1), position.removesuffix(TIME_FIRST)
    if mask is None or mask.shape != states.shape[:2]:  # not one for each position
        mask = states.new_ones(states.shape[:2], dtype=torch.bool)
    return POSITIONS[position](states, mask.to(states.device))


def vectors_of(states: Tensor, n: int, mask: Tensor | None) -> dict[str, Tensor]:
    """What states of n examples are at each position, (n, c), by its name."""
    names = [name for name in POSITIONS if len(states) == n]
    names += [name + TIME_FIRST for name in POSITIONS if states.shape[1] == n]
    # Copies: a layer behind may work in place.
    return {name: at_position(states, name, mask).clone() for name in names}


def position_read(model: nn.Module, run: Callable[[], Any], n: int) -> str | None:
    """How a model makes one vector per example of a sequence: the last time in a forward pass that it does.

    `run` makes a forward pass of n examples. Some vectors (n, c) that go into or come out of a module, or out of the
    model, equal a position, or the mean, of a sequence before; None where none do.
    """
    sequences: deque[dict[str, Tensor]] = deque(maxlen=_RECENT)
    found: list[str] = []
    masks: list[Tensor | None] = []

    def note(values: Any) -> None:
        for value in _tensors(values):
            if value.ndim == 3 and value.is_floating_point():
                sequences.append(vectors_of(value.detach(), n, masks[0]))
            elif value.ndim == 2 and len(value) == n:
                same = (
                    name for read in reversed(sequences) for name, vectors in read.items() if _equal(vectors, value)
                )
                found.extend(name for name in [next(same, None)] if name is not None)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is model:
            masks[:] = [mask_of(model, args, kwargs)]
        note((*args, *kwargs.values()))

    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in model.modules()]
    handles += [module.register_forward_hook(lambda _, args, output: note(output)) for module in model.modules()]
    try:
        note(run())
    finally:
        for handle in handles:
            handle.remove()
    return found[-1] if found else None


def _equal(vectors: Tensor, value: Tensor) -> bool:
    size = float(value.abs().max())
    return size > 0 and vectors.shape == value.shape and bool((vectors - value).abs().max() <= 1e-3 * size)


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    values = values.values() if hasattr(values, "values") else values
    return [value for value in values if isinstance(value, Tensor)] if isinstance(values, Iterable) else []


def _last(mask: Tensor) -> Tensor:
    """The last position (n,) that is set; the very last where none is."""
    length = mask.shape[1]
    return length - 1 - mask.flip(1).int().argmax(dim=1)
