"""Which layer's input is the key of a classifier or regressor: that of the layer which says what the model says."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from residua.caution import warn
from residua.encoding.capture import at_least_float32, pooled
from residua.encoding.position import mask_of, vectors_of
from residua.errors import KeyModuleError

log: logging.Logger = logging.getLogger(__name__)

_SAME = 1 - 1e-4  # of a cosine: scaled, squashed or rounded on the way out
_RECENT = 64  # layers, the last to run, are looked at
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Ran(NamedTuple):
    """A layer's run: its name, kind, and one vector per example, if any, of what went in and of what came out."""

    name: str
    module: nn.Module
    given: Tensor | None
    said: list[Tensor]


def output_layer(model: nn.Module, run: Callable[[], list[Tensor]], n: int) -> str:
    """The key of the layer that gives the model's outputs, by its input: ``"fc:input"``.

    `run` makes one forward pass of n examples and gives the tables (n, L) that may be its outputs. That layer's own
    output is one of them, or is but for a scale, a softmax or a sigmoid; of several, the last to run. Where a model
    makes its outputs of several layers' (auxiliary heads), it is the layer whose output comes nearest; a
    ``UserWarning`` tells where none has the outputs' shape, and the last ``nn.Linear`` that ran is taken.

    Raises
    ------
    KeyModuleError
        When no layer has the outputs' shape and no ``nn.Linear`` ran, or the one to be taken ran several times.
    """
    ran, tables = _runs(model, run, n)
    best, score = None, -2.0
    for layer in ran:
        if not isinstance(layer.module, _LAYERS) and not _makes_outputs(layer, tables):
            continue
        alike = max((_alike(said, table) for said in layer.said for table in tables), default=-2.0)
        if layer.given is not None and alike >= score and alike > -2:
            best, score = layer, alike
    if best is None:
        best = next((layer for layer in reversed(ran) if isinstance(layer.module, nn.Linear)), None)
        hint = next((layer.name for layer in reversed(ran) if layer.said and not _is_output(layer, tables)), None)
        such = "name the module whose output is the key" + (f", such as key={hint!r}" if hint else ", with key=")
        if best is None:
            raise KeyModuleError(f"no layer of {type(model).__name__} gives its outputs, and no nn.Linear ran; {such}")
        warn(
            f"no layer gives the outputs of {type(model).__name__}: the key is what goes into the last nn.Linear that "
            f"ran, {best.name!r}, which may be far from them; {such}"
        )
    elif score < _SAME:
        log.warning("the outputs are not those of one layer alone; the key is the input of %r, the nearest", best.name)
    if (times := sum(layer.name == best.name for layer in ran)) > 1:
        what = f"the last layer, {best.name!r}, ran {times} times in one forward pass"
        raise KeyModuleError(f"{what}; expected exactly once: pass key= with the name of another module")
    return f"{best.name}:input"


def _runs(model: nn.Module, run: Callable[[], list[Tensor]], n: int) -> tuple[list[_Ran], list[Tensor]]:
    ran: deque[_Ran] = deque(maxlen=_RECENT)
    masks: list[Tensor | None] = [None]

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        said = _vectors(output, module, n, masks[0]) if isinstance(output, Tensor) else []
        into = [] if given is None else _vectors(given, module, n, None)
        ran.append(_Ran(name, module, into[0] if into else None, said))

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        masks[:] = [mask_of(model, args, kwargs)]

    handles = [model.register_forward_pre_hook(before, with_kwargs=True)]
    for name, module in model.named_modules():
        if isinstance(module, _LAYERS) or not any(module.children()):
            handles.append(
                module.register_forward_hook(
                    lambda module, args, kwargs, output, name=name: note(name, module, args, kwargs, output),
                    with_kwargs=True,
                )
            )
    try:
        tables = run()
    finally:
        for handle in handles:
            handle.remove()
    return list(ran), [table.detach().reshape(n, -1) for table in tables]


def _vectors(values: Tensor, module: nn.Module, n: int, mask: Tensor | None) -> list[Tensor]:
    """One vector per example (n, d): pooled, and at each position of a sequence that may be read."""
    if not 2 <= values.ndim <= 5 or n not in values.shape[:2] or not values.is_floating_point():
        return []
    own = [pooled(values, module)] if len(values) == n else []
    return own + (list(vectors_of(at_least_float32(values.detach()), n, mask).values()) if values.ndim == 3 else [])


def _makes_outputs(layer: _Ran, tables: list[Tensor]) -> bool:
    """Whether a layer of somebody's own kind has weights, and takes what is not the outputs but for scale."""
    if next(layer.module.parameters(recurse=False), None) is None or layer.given is None:
        return False
    given = layer.given
    return all(given.shape != said.shape for said in layer.said) and all(
        _alike(given, table) < _SAME for table in tables
    )


def _is_output(layer: _Ran, tables: list[Tensor]) -> bool:
    return any(said.shape == table.shape for said in layer.said for table in tables)


def _alike(said: Tensor, table: Tensor) -> float:
    """How near a layer's output is to the model's (n, L): 2 if equal, 1 if it is the same but for scale; −2 if it has
    another shape."""
    if said.shape != table.shape:
        return -2.0
    table = at_least_float32(table)
    kinds = [table]
    if bool((table >= 0).all()) and bool((table <= 1).all()):
        kinds = [table, table.logit(1e-7), table.clamp_min(1e-12).log()]
    if any(bool((said.to(kind) - kind).abs().max() <= 1e-3 * kind.abs().max()) for kind in kinds):
        return 2.0
    dim = 1 if table.shape[1] > 1 else 0
    return max(_cosine(said.to(kind), kind, dim) for kind in kinds)


def _cosine(one: Tensor, other: Tensor, dim: int) -> float:
    one, other = (part - part.mean(dim=dim, keepdim=True) for part in (one, other))
    return float((one * other).sum() / (one.norm() * other.norm()).clamp_min(1e-30))
