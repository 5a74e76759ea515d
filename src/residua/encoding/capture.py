"""The key: what flows into or out of one module, caught by a hook while the model runs as it always does."""

from __future__ import annotations

import difflib
import threading
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from residua.errors import KeyModuleError


class Capture:
    """Catch one module's output (``"layer4.1.bn2"``) or input (``"fc:input"``) at each forward pass.

    A context manager: hooks exist only inside the ``with`` block and leave by every exit.

    Parameters
    ----------
    model : nn.Module
        The model that will be run.
    key : str
        A module's dotted name, as in ``model.named_modules()``, alone for its output, followed by ``:input``
        for its first input.
    pool : bool, default True
        One float32 vector per example (see ``pooled``); False keeps a copy of the tensor as it is.

    Raises
    ------
    KeyModuleError
        When there is no such module (near names are listed); from ``take``, when it did not fire exactly
        once.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> with Capture(model, "2:input") as capture:
    ...     logits = model(torch.zeros(5, 4))
    ...     key = capture.take()
    >>> key.shape
    torch.Size([5, 8])
    """

    def __init__(self, model: nn.Module, key: str, *, pool: bool = True):
        name, _, side = key.partition(":")
        if side not in ("", "input", "output"):
            raise KeyModuleError(f"key={key!r}; expected a module's name, or its name and ':input'")
        self.key = key
        self.module = find_module(model, name)
        self._model, self._pool, self._of_input = model, pool, side == "input"
        self._caught = _Caught()
        self._handles = []

    def __enter__(self) -> Capture:
        # A forward that failed half way leaves what it caught behind; the next one starts clean.
        self._handles = [self._model.register_forward_pre_hook(lambda *_: self._caught.values.clear(), prepend=True)]
        if self._of_input:
            handle = self.module.register_forward_pre_hook(self._before, with_kwargs=True)
        else:
            handle = self.module.register_forward_hook(self._after)
        self._handles.append(handle)
        return self

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._caught.values.clear()

    def take(self) -> Tensor:
        """What the last forward pass caught: (n, d) float32, or the module's own tensor when not pooling."""
        if len(self._caught.values) != 1:
            raise KeyModuleError(
                f"the key module {self.key!r} ran {len(self._caught.values)} times in one forward pass; expected "
                "exactly once: pass key= with the name of a module that does"
            )
        return self._caught.values.pop()

    def __deepcopy__(self, memo) -> Capture:
        # A copy of a watched model takes its hooks along; what they catch is cleared by the same hook.
        return self

    def _before(self, module, args, kwargs) -> None:
        self._keep((*args, *kwargs.values()))

    def _after(self, module, args, output) -> None:
        self._keep(output if isinstance(output, (tuple, list)) else (output,))

    def _keep(self, values) -> None:
        tensor = next((value for value in values if isinstance(value, Tensor)), None)
        if tensor is None:
            kinds = [type(value).__name__ for value in values]
            raise KeyModuleError(f"the key module {self.key!r} gave {kinds}; expected a tensor: name another module")
        # Copied now: the next layer may work in place (`out += shortcut`) on the very tensor the hook was
        # shown.
        self._caught.values.append(pooled(tensor, self.module) if self._pool else tensor.detach().clone())


class _Caught(threading.local):
    """One list per thread: a served model runs in several at once, and each must read its own key."""

    def __init__(self):
        self.values: list[Tensor] = []


def find_module(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that dotted name; ``KeyModuleError`` lists near names when there is none."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if name not in modules:
        names = [other for other in modules if other]
        near = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or names[-5:]
        raise KeyModuleError(
            f"{type(model).__name__} has no module {name!r}; near names: "
            f"{', '.join(map(repr, near)) or 'none'} (dict(model.named_modules()) has them all)"
        )
    return modules[name]


def pooled(values: Tensor, module: nn.Module) -> Tensor:
    """One vector per example, float32 (n, d), as a copy.

    ``(n, d)`` stays. Maps ``(n, c, h, w)`` and volumes are averaged over space, sequences ``(n, t, c)`` over
    t, and anything else is flattened. Where the channels are follows from the module the values belong to:
    `Linear` and `LayerNorm` have them last at any rank, torch's ``...1d`` modules have them second, ``(n, c,
    t)``.
    """
    values = values.detach()
    if values.ndim == 0:
        raise KeyModuleError("the key module gave a single number; expected a tensor with one row per example")
    if values.ndim <= 2 or values.ndim > 5:
        values = values.to(torch.float32, copy=True)
        return values.flatten(1) if values.ndim > 1 else values[:, None]
    last = isinstance(module, (nn.Linear, nn.LayerNorm))
    if values.ndim == 3:
        last = last or not type(module).__name__.endswith("1d")
    space = tuple(range(1, values.ndim - 1)) if last else tuple(range(2, values.ndim))
    return values.mean(dim=space, dtype=torch.float32)


def last_linear(model: nn.Module, run: Callable[[], object]) -> str:
    """The key of the last ``nn.Linear`` that runs: ``"fc:input"``. `run` makes one forward pass.

    Raises
    ------
    KeyModuleError
        When no ``nn.Linear`` ran, or the last one ran more than once.
    """
    ran: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    if not ran:
        names = [name for name, _ in model.named_modules() if name][-5:]
        raise KeyModuleError(
            f"no nn.Linear ran in {type(model).__name__}; name the module whose output is the key, such as "
            f"key={names[-1] if names else 'features'!r} (its last modules: {', '.join(names) or 'none'})"
        )
    times = Counter(ran)[ran[-1]]
    if times > 1:
        raise KeyModuleError(
            f"the last nn.Linear, {ran[-1]!r}, ran {times} times in one forward pass; expected exactly once: "
            "pass key= with the name of another module"
        )
    return f"{ran[-1]}:input"
