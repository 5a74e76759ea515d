"""The forward hook of an attached model: key and logits in, what the memory makes of them out."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from residua.attach.output import with_logits
from residua.encode.capture import Capture
from residua.encode.torch import logits_of_output
from residua.errors import InputError, NonFiniteError, ShapeError
from residua.read import Reader
from residua.records import DenseLogits

TINY = torch.finfo(torch.float32).tiny  # a probability that underflowed still has a finite logarithm


class Correction:
    """Two hooks, one that catches the key and one that replaces the output, for one model and one reader.

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

    def __init__(self, model: nn.Module, reader: Reader, key: str):
        self.reader, self.paused = reader, 0
        self.key = key
        self._model, self._capture = model, Capture(model, key)
        self._capture.__enter__()
        # After the capture's hooks, which may be on this very module.
        self._hook = model.register_forward_hook(self)

    @classmethod
    def of(cls, model: nn.Module) -> Correction | None:
        """The correction attached to this very model, if there is one."""
        hooks = (hook for hook in model._forward_hooks.values() if isinstance(hook, cls) and hook._model is model)
        return next(hooks, None)

    def remove(self) -> None:
        """Take both hooks off the model; twice is once."""
        self._hook.remove()
        self._capture.__exit__()

    def __call__(self, model: nn.Module, args, output):
        # A copy of an attached model carries this hook too, and has no memory of its own.
        if self.paused or model.training or model is not self._model:
            return None
        reader = self.reader
        if reader.k == 0 or len(reader.memory) == 0:
            return None
        keys = self._capture.take()
        if not len(keys):
            return None
        said = logits_of_output(output, len(keys))
        device = reader.memory.device.type
        # Half-precision products would order neighbours by noise: the memory reads in float32, whatever the model does.
        autocast = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
        with torch.no_grad(), autocast:
            return with_logits(output, self.corrected(reader, keys, said))

    def corrected(self, reader: Reader, keys: Tensor, said: Tensor) -> Tensor:
        """Log-probabilities (or predictions) float32 of the width of `said` (n, L), on the memory's device."""
        memory = reader.memory
        classification = memory.task == "classification"
        logits = said.to(memory.device, torch.float32)
        lone = classification and said.shape[1] == 1
        if lone:  # a lone logit s is the two columns [0, s], and comes back as their log-odds
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        if logits.shape[1] != memory.n_outputs:
            raise ShapeError(f"the model gave {said.shape[1]} outputs; its memory has {memory.n_outputs}")
        try:
            neighbours = memory.search(keys, reader.k)
        except NonFiniteError as error:
            raise NonFiniteError(
                f"the key module {self._capture.key!r} gave NaN or infinity ({error}); look at the inputs, or at "
                "the model's precision"
            ) from error
        base = reader.base(DenseLogits(logits))
        scores = reader.change(neighbours).apply(base)
        if not classification:
            return scores
        log_p = reader.probabilities(scores, base).clamp_min_(TINY).log_()
        return log_p[:, 1:] - log_p[:, :1] if lone else log_p

    def __deepcopy__(self, memo) -> Correction:
        return self

    def __reduce__(self):
        raise InputError("the model is attached to a memory; detach it before pickling it, or save its state_dict")
