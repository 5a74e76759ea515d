"""What every attached model carries: a hook that catches the key, and one that replaces the output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from residua.encoding.capture import Capture
from residua.errors import InputError, NonFiniteError
from residua.readers import Reader


class Hooked(ABC):
    """Two hooks on one model, for one reader at a time.

    Parameters
    ----------
    model : nn.Module
    reader : Reader
        May be replaced at any moment by another of the same layer's keys.
    key : str
        The key module, as ``Capture`` names it.

    Attributes
    ----------
    paused : int
        How many ``disabled`` blocks are open; the model is its plain self while there are any.
    """

    pool = True  # one key per example, or one per position

    def __init__(self, model: nn.Module, reader: Reader, key: str):
        self.reader, self.paused = reader, 0
        self.key = key
        self._model, self._capture = model, Capture(model, key, pool=self.pool)
        self._capture.__enter__()
        # After the capture's hooks, which may be on this very module.
        self._hook = model.register_forward_hook(self, with_kwargs=True)

    @classmethod
    def of(cls, model: nn.Module) -> Hooked | None:
        """The correction attached to this very model, if there is one."""
        hooks = (hook for hook in model._forward_hooks.values() if isinstance(hook, cls) and hook._model is model)
        return next(hooks, None)

    def remove(self) -> None:
        """Take both hooks off the model; twice is once."""
        self._hook.remove()
        self._capture.__exit__()

    def resting(self, model: nn.Module) -> bool:
        """Whether `model`, which just ran, is to answer by itself."""
        # A copy of an attached model carries this hook too, and has no memory of its own.
        if self.paused or model.training or model is not self._model:
            return True
        return self.reader.idle

    def caught(self) -> Tensor:
        """The keys of the forward pass that just ended."""
        return self._capture.take()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around what the memory does: no gradients, float32, and a key module's NaN told by its name."""
        device = self.reader.memory.device.type
        # Half-precision products would order neighbours by noise: the memory reads in float32, whatever the model does.
        autocast = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
        with torch.no_grad(), autocast:
            try:
                yield
            except NonFiniteError as error:
                raise NonFiniteError(
                    f"the key module {self.key!r} gave NaN or infinity ({error}); look at the inputs, or at the "
                    "model's precision"
                ) from error

    @abstractmethod
    def __call__(self, model: nn.Module, args, kwargs, output):
        """What the model returns instead of `output`; None leaves it."""

    def __deepcopy__(self, memo) -> Hooked:
        return self

    def __reduce__(self):
        raise InputError("the model is attached to a memory; detach it before pickling it, or save its state_dict")
