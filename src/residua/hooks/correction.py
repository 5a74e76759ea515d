"""Forward hooks on a model: one catches the keys, another replaces the logits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from residua.core import DenseLogits, Prediction, Task
from residua.core.logits import grown
from residua.core.outputs import as_logits, as_spoken
from residua.encoding.capture import Capture, at_least_float32
from residua.errors import EncodeError, InputError, NonFiniteError, ParameterError, ShapeError
from residua.hooks.followed import open_text, text_of
from residua.hooks.forward import at_positions, find_logits, loss_of, padding_name, tokens_read, with_logits
from residua.readers import Reader

EDGE = 2**-24  # the least probability of one of several labels whose log-odds are finite in float32
# Of this thread, or of this asyncio task: whose ``disabled`` blocks are open.
_PAUSED: ContextVar[tuple[Correction, ...]] = ContextVar("paused", default=())
ROWS = 2048  # rows read at a time
ENTRIES = 2**22  # and logits
# What takes the place of the model's numbers.
ANSWERS: dict[Task, Callable[[Prediction], Tensor]] = {
    # A repetition or length penalty looks at more than differences: it means the same with a memory as without.
    "classification": Prediction.in_gauge,
    "multi-label": lambda now: torch.logit(now.probabilities, EDGE),
    "regression": lambda now: now.scores,
}


class Correction:
    """The model's own logits go in, what the reader makes of them comes out.

    Where the model returns (n, L), each example is a row, and its key is pooled; where it returns (b, t, L), each
    position is one. Nothing is kept between forward passes, so that greedy decoding, sampling, beams and teacher
    forcing are one and the same; for a reader that looks back (``ContinuousCache``) the model's cache keeps the text.
    """

    reader: Reader  # of the same layer's keys
    key: str  # as ``Capture`` names it

    def __init__(self, model: nn.Module, reader: Reader, key: str):
        self.key, self._model, self._mask_name = key, model, padding_name(model)
        self._capture = Capture(model, key, pool=False)
        self.read_with(reader)
        self._capture.__enter__()
        # After the capture's hooks, which may be on this very module.
        self._hooks = (
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self, with_kwargs=True),
        )

    @classmethod
    def of(cls, model: nn.Module) -> Correction | None:
        """The correction attached to this very model, if any."""
        return next((h for h in model._forward_hooks.values() if isinstance(h, cls) and h._model is model), None)

    def read_with(self, reader: Reader) -> None:
        """Use a reader of the same layer's keys from the next forward pass on."""
        source = reader.memory.source
        self.reader, self._capture.position = reader, source and source.position

    def remove(self) -> None:
        """Take the hooks off the model; twice is once."""
        for hook in self._hooks:
            hook.remove()
        self._capture.__exit__()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block the model is its plain self, to whoever is in it."""
        token = _PAUSED.set((*_PAUSED.get(), self))
        try:
            yield
        finally:
            _PAUSED.reset(token)

    def _is_silent(self, model: nn.Module) -> bool:
        # A copy of an attached model carries these hooks too, and has no memory of its own.
        return self in _PAUSED.get() or model.training or model is not self._model or self.reader.is_base

    def _before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the model is called with instead; None leaves it."""
        if self.reader.start() is None or self._is_silent(model):
            return None
        open_text(self._given(args, kwargs), self.key)
        # At the head itself there are keys only where logits are asked for, and the text has more positions.
        kept, head = kwargs.get("logits_to_keep"), getattr(model, "get_output_embeddings", lambda: None)()
        if isinstance(kept, int) and self._capture.module is head:
            return args, kwargs | {"logits_to_keep": _Every(kept)}
        return None

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(self._parameters, args)) | kwargs

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """What replaces `output`; None leaves it."""
        if self._is_silent(model):
            return None
        source = self.reader.memory.source
        kind, item = (None, None) if source is None else (source.output, source.item)
        logits = find_logits(output, item)
        if not len(logits):
            return None
        keys = self._capture.take().to(logits.device)
        if logits.ndim < 3:
            keys = at_least_float32(keys) if keys.ndim == 2 else self._capture.pooled(keys)
            if keys.shape[0] != logits.shape[0]:
                raise EncodeError(
                    f"the model's output has shape {tuple(logits.shape)} for {len(keys)} examples; expected "
                    f"({len(keys)}, L), one row of logits (or predictions) per example"
                )
        try:
            with inference_scope(self.reader.memory.device.type):
                if logits.ndim < 3:
                    several = self.reader.memory.task == "multi-label"
                    changed = self.corrected(keys, as_logits(logits.view(keys.shape[0], -1), kind, several))
                    spoken = as_spoken(changed, kind, several).to(logits.dtype)
                    spoken = spoken[:, 0] if logits.ndim == 1 and spoken.shape[1] == 1 else spoken
                    return with_logits(output, spoken, item=item)
                given = self._given(args, kwargs)
                changed = self._at_positions(keys, logits, given, output)
                kept = given.get("logits_to_keep")
                changed = changed[:, -kept.asked :] if isinstance(kept, _Every) else changed
                # In float32, whatever the model's dtype: half precision would blur the probabilities of a vocabulary.
                return with_logits(output, changed, loss_of(model, changed, given))
        except NonFiniteError as error:
            raise NonFiniteError(
                f"the key module {self.key!r} gave NaN or infinity ({error}); look at the inputs, or at the model's "
                "precision"
            ) from error

    def corrected(self, keys: Tensor, logits: Tensor, mask: Tensor | None = None) -> Tensor:
        """``answer`` in blocks. Rows that are not set in `mask` (n,) keep their logits.

        A lone logit s is the two columns [0, s], and comes back as their log-odds. Where the memory has more classes
        than the model, so have the answers.
        """
        memory, outputs = self.reader.memory, logits.shape[1]
        dtype = torch.float64 if memory.task == "regression" else torch.float32
        lone = outputs == 1 and memory.task == "classification"
        if lone:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        if memory.schema.lacks_classes(logits.shape[1]):
            logits, lone = grown(DenseLogits(logits), memory.n_outputs).table[:], False
        if logits.shape[1] != memory.n_outputs:
            raise ShapeError(f"the model gave {outputs} outputs; its memory has {memory.n_outputs}")
        rows = None if mask is None or bool(mask.all()) else mask.nonzero()[:, 0]
        count, step = len(logits if rows is None else rows), min(ROWS, max(1, ENTRIES // logits.shape[1]))
        if rows is None and count <= step:
            out = self.answer(keys, logits.to(dtype))
        else:
            # One contiguous copy is the answer's own room: each block of it is read, and overwritten.
            out = logits.to(dtype, copy=True, memory_format=torch.contiguous_format)
            for start in range(0, count, step):
                some = slice(start, start + step) if rows is None else rows[start : start + step]
                out[some] = self.answer(keys[some], out[some])
        return out[:, 1:] - out[:, :1] if lone else out

    def answer(self, keys: Tensor, logits: Tensor, **text: Any) -> Tensor:
        """What the reader makes of keys (n, d) and logits (n, L): logits float32 (of several labels their log-odds), or
        predictions float64, (n, L); `text` is what ``Reader.read`` takes for a reader that looks back."""
        make, out = ANSWERS[self.reader.memory.task], None
        with self.reader.memory.reading():  # all that is asked for is asked here
            at_once = None if text else self.reader.at_once(keys, logits)
            if at_once is not None:
                return at_once
            for rows, prediction in self.reader.read(keys, DenseLogits(logits), **text):
                part = make(prediction)
                if len(part) == len(logits):
                    return part.to(logits.device)
                out = torch.empty_like(logits) if out is None else out
                out[rows] = part
        return torch.empty_like(logits) if out is None else out  # None where there are no rows

    @cached_property
    def _parameters(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self._model.forward).parameters)

    def _at_positions(self, keys: Tensor, logits: Tensor, given: dict[str, Any], output: Any) -> Tensor:
        keys, mask = at_positions(self._mask_name, keys, logits, given)
        fresh = self.reader.start()
        if fresh is None:
            last = slice(-logits.shape[1], None)
            rows = (part.flatten(0, 1) for part in (keys[:, last], logits, mask[:, last]))
            return self.corrected(*rows).view(logits.shape)
        tokens = tokens_read(self._model, given)
        if tokens is None:
            raise ParameterError(
                f"a {type(self.reader).__name__} needs the tokens, and the model was called with inputs_embeds (or "
                "decoder_inputs_embeds): pass input_ids (or decoder_input_ids)"
            )
        if isinstance(given.get("logits_to_keep"), Tensor):
            raise ParameterError(
                f"a {type(self.reader).__name__} reads every position in order; let logits_to_keep be a number, how "
                "many of the last"
            )
        if tokens.shape != mask.shape:
            raise ParameterError(
                f"a {type(self.reader).__name__} needs the key of every token, and the key module {self.key!r} ran at "
                f"{mask.shape[1]} of {tokens.shape[1]} positions: make the memory of an earlier layer's keys"
            )
        text = text_of(self._mask_name, given, output, self.key, *tokens.shape)
        return text.corrected(self.reader, fresh, self.answer, keys, logits, mask, tokens)

    def __deepcopy__(self, memo: object) -> Correction:
        return self

    def __reduce__(self) -> NoReturn:
        raise InputError("the model is attached to a memory; detach it before pickling it, or save its state_dict")


def inference_scope(device: str) -> AbstractContextManager[Any]:
    """A ``with`` block without gradients, in float32. One that changes nothing would cost as much as the hooks."""
    changes = torch.is_grad_enabled() or torch.is_autocast_enabled(device)
    return _inference(device) if changes else nullcontext()


@contextmanager
def _inference(device: str) -> Iterator[None]:
    # Half-precision products would order neighbours by noise: the memory reads in float32, whatever the model does.
    autocast = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
    with torch.no_grad(), autocast:
        yield


class _Every(int):
    """0, which asks for the logits of every position; and of how many of the last the caller did."""

    asked: int

    def __new__(cls, asked: int) -> _Every:
        every = super().__new__(cls, 0)
        every.asked = asked
        return every
