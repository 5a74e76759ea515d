"""The key: what flows into or out of one module, caught by a hook while the model runs as it always does."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from residua.core.source import bare
from residua.encoding.position import at_position, mask_of
from residua.errors import EncodeError, KeyModuleError


class Capture:
    """A context manager that catches a module's output (``"layer4.1.bn2"``) or first input (``"fc:input"``) at each
    forward pass: one vector per example (see ``pooled``; of a sequence, that at `position`), or, without `pool`, a copy
    of the tensor as it is."""

    key: str
    module: nn.Module
    position: str | None

    def __init__(self, model: nn.Module, key: str, *, pool: bool = True, position: str | None = None):
        name, _, side = key.partition(":")
        if side not in ("", "input", "output"):
            raise KeyModuleError(f"key={key!r}; expected a module's name, or its name and ':input'")
        modules = dict(model.named_modules(remove_duplicate=False))
        if name not in modules:  # the model may have been wrapped, or unwrapped, since the key was named
            modules = {bare(path): module for path, module in modules.items()} | modules
            name = bare(name) if name else name
        if name not in modules:
            names = [other for other in modules if other]
            near = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or names[-5:]
            listed = f"{', '.join(map(repr, near)) or 'none'} (dict(model.named_modules()) has them all)"
            raise KeyModuleError(f"{type(model).__name__} has no module {name!r}; near names: {listed}")
        self.key, self.module = key, modules[name]
        self._model, self._pool, self._of_input = model, pool, side == "input"
        self.position = position
        self._caught = _Caught()
        self._handles: list[RemovableHandle] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(uncompiled(self._model))
        # A forward that failed half way leaves what it caught behind; the next one starts clean.
        self._handles = [self._model.register_forward_pre_hook(self._start, prepend=True, with_kwargs=True)]
        if self._of_input:
            self._handles.append(self.module.register_forward_pre_hook(self._before, with_kwargs=True))
        else:
            self._handles.append(self.module.register_forward_hook(self._after))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._stack.close()
        self._caught.values.clear()

    def take(self) -> Tensor:
        """What the last forward pass caught: (n, d), or the module's own tensor when not pooling."""
        if not self._caught.values and next(_compiled(self._model), None):
            raise KeyModuleError(
                f"the key module {self.key!r} did not run as it was written: the model was compiled after its memory "
                "was attached; compile first, then attach, and it runs uncompiled while it is attached"
            )
        if len(self._caught.values) != 1:
            what = f"the key module {self.key!r} ran {len(self._caught.values)} times in one forward pass"
            raise KeyModuleError(f"{what}; expected exactly once: pass key= with the name of a module that does")
        return self._caught.values.pop()

    def __deepcopy__(self, memo: object) -> Self:
        # A copy of a watched model takes its hooks along; what they catch is cleared by the same hook.
        return self

    @property
    def masked(self) -> bool:
        """Whether the last forward pass said which positions are padding."""
        return self._caught.mask is not None

    def pooled(self, values: Tensor) -> Tensor:
        """One vector per example (n, d) of what was caught in the last forward pass."""
        if self.position is None or values.ndim != 3:
            return pooled(values, self.module)
        return at_least_float32(at_position(values.detach(), self.position, self._caught.mask), copy=True)

    def _start(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        self._caught.values.clear()
        self._caught.mask = None if self.position is None else mask_of(model, args, kwargs or {})

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        if kwargs is not None:  # torch leaves them out while another thread is still registering this hook
            self._keep((*args, *kwargs.values()))

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        output = output.values() if isinstance(output, Mapping) else output
        self._keep((output,) if isinstance(output, Tensor) or not isinstance(output, Iterable) else tuple(output))

    def _keep(self, values: Sequence[Any]) -> None:
        tensor = next((value for value in values if isinstance(value, Tensor)), None)
        if tensor is None:
            kinds = [type(value).__name__ for value in values]
            raise KeyModuleError(f"the key module {self.key!r} gave {kinds}; expected a tensor: name another module")
        # Copied now: the next layer may work in place (`out += shortcut`) on the very tensor the hook was shown.
        self._caught.values.append(self.pooled(tensor) if self._pool else tensor.detach().clone())


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Within, what of a model was compiled, in place or not, runs as it was written: hooks that came after the first
    run are optimised away otherwise."""
    kept = [(module, name, getattr(module, name)) for module, name, _ in _compiled(model)]
    for module, name, written in [*_compiled(model)]:
        setattr(module, name, written)
    try:
        yield
    finally:
        for module, name, compiled in kept:
            setattr(module, name, compiled)


def _compiled(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """The attributes by which modules run compiled, and what stands there where they do not."""
    for module in model.modules():
        own = vars(module)
        if own.get("_compiled_call_impl") is not None:  # module.compile()
            yield module, "_compiled_call_impl", None
        # Of torch.compile(module), and of module.forward = torch.compile(module.forward).
        if (written := getattr(own.get("forward"), "_torchdynamo_orig_callable", None)) is not None:
            yield module, "forward", written


def device_of(model: nn.Module) -> torch.device:
    """Where a model takes its inputs. Of weights that were offloaded only a shell is left, and accelerate moves what
    the layers are given; a model of shells alone, which nobody fills, is an ``EncodeError``."""
    devices = [tensor.device for tensor in (*model.parameters(), *model.buffers())]
    if "meta" not in {device.type for device in devices[:1]}:
        return devices[0] if devices else torch.device("cpu")
    if not any(hasattr(module, "_hf_hook") for module in model.modules()):
        raise EncodeError(
            f"this {type(model).__name__} has no weights: they are on the meta device, and nothing puts them in place "
            "when it runs; load them, as from_pretrained does"
        )
    return next((device for device in devices if device.type != "meta"), torch.device("cpu"))


class _Caught(threading.local):
    """One list per thread: a served model runs in several at once, and each must read its own key."""

    def __init__(self):
        self.values: list[Tensor] = []
        self.mask: Tensor | None = None


def at_least_float32(values: Tensor, *, copy: bool = False) -> Tensor:
    """The same in float32, or as they are in float64: a memory subtracts before it rounds."""
    return values.to(torch.float64 if values.dtype == torch.float64 else torch.float32, copy=copy)


def pooled(values: Tensor, module: nn.Module) -> Tensor:
    """One vector per example (n, d), as a copy: maps and volumes are averaged over space, sequences over time.

    Where the channels are follows from the module: `Linear` and `LayerNorm` have them last at any rank, torch's
    ``...1d`` modules second, ``(n, c, t)``; other sequences are ``(n, t, c)``, other maps ``(n, c, h, w)``.
    """
    values = values.detach()
    if values.ndim == 0:
        raise KeyModuleError("the key module gave a single number; expected a tensor with one row per example")
    if values.ndim <= 2 or values.ndim > 5:
        values = at_least_float32(values, copy=True)
        return values.flatten(1) if values.ndim > 1 else values[:, None]
    last = isinstance(module, (nn.Linear, nn.LayerNorm))
    if values.ndim == 3:
        last = last or not type(module).__name__.endswith("1d")
    space = tuple(range(1, values.ndim - 1)) if last else tuple(range(2, values.ndim))
    return at_least_float32(values).mean(dim=space)
