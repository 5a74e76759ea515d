"""A torch module becomes keys and logits in one pass over the data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from residua.caution import warn
from residua.core import ArrayLike, DenseLogits, Encoded, Head, Source, Task
from residua.core.encoded import Understood, understood
from residua.core.outputs import shown_kind
from residua.core.source import KEYS_ONLY, Functions
from residua.core.targets import one_per_row
from residua.encoding.capture import Capture, at_least_float32, device_of, uncompiled
from residua.encoding.data import Examples, Inputs, main_input
from residua.encoding.fingerprint import is_made_of_parts, source_of_module, warn_if_unknown
from residua.encoding.item import FUNCTION, Choice, item_of
from residua.encoding.memorised import warn_if_memorised
from residua.encoding.output_layer import output_layer
from residua.encoding.position import TIME_FIRST, position_read
from residua.encoding.probe import answered, probe_like, watched
from residua.errors import DtypeError, EncodeError, InputError, KeyModuleError, LabelError, ParameterError
from residua.progress import progress_bar

log: logging.Logger = logging.getLogger(__name__)

_PROBE = 8  # rows that find the default key
_PENDING = 1 << 22  # numbers kept on an accelerator before one transfer, so that it rarely waits for the host


def encode_module(
    model: nn.Module,
    examples: Examples,
    *,
    key: str | None,
    ids: ArrayLike | None,
    task: Task | None,
    like: Source | None,
    progress: bool | None,
    output: Choice,
    outputs: int | None,
    position: str | None,
    new_classes: bool,
) -> Encoded:
    """Keys and logits of every example, in order. See ``residua.encode``, which reads its arguments for this.

    `outputs`: how many classes `like` has, for an embedder, which has none of its own.
    """
    model = getattr(model, "_orig_mod", model)  # a compiled module's hooks would be optimised away
    if isinstance(model, torch.jit.ScriptModule):
        raise EncodeError(
            f"this {type(model).__name__} is compiled to TorchScript, which shows no inner layers; expected the module "
            "that it was made of: encode that, or bring arrays with rs.Encoded(keys, logits, labels)"
        )
    tensors = [*model.parameters(), *model.buffers()]
    device = device_of(model)
    dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)
    name = key if key is not None or like is None else like.key
    output = output if like is None else _as_before(output, like)
    keys_only = output.kind == KEYS_ONLY
    if name is None and keys_only:
        name = ":output"
    labels: list[np.ndarray] | None = [] if examples.labels is None else None
    numbers: list[np.ndarray] = []
    keys, logits, head = _Rows(examples.n), _Rows(examples.n), None
    with progress_bar(progress, total=examples.n, desc="encode", unit="row") as bar, frozen(model):
        batches = examples.batches(dtype, model)
        if (first := next(batches, None)) is None:
            raise InputError("the data hold no examples; expected at least one")
        probe = first.x[:_PROBE].to(device)
        if name is None:
            key = output_layer(model, lambda: _tables(forward(model, probe), len(probe), output), len(probe))
        else:
            key = name
        if position is not None or like is None:
            position = _position(model, key, probe, position)
        elif like.position is not None:
            position = like.position
        asked = like.probe if like is not None and like.probe is not None else probe_like(main_input(first.x, model))
        source = replace(source_of_module(model, key), position=position)
        if not watched(model):
            source = replace(source, probe=answered(asked, model, key, position=position))
        warn_if_unknown(source)
        with Capture(model, key, position=position) as capture:
            if like is not None:
                like.require(replace(source, output=like.output, item=output.recorded))
            for x, y, named in chain([first], batches):
                returned = forward(model, x.to(device, non_blocking=True))
                caught = capture.take()
                if keys.count == 0 and output.item is None and len(caught) == len(x) and not keys_only:
                    output = output._replace(item=_place_of_head(capture.module, key, caught, returned))
                said = caught[:, :0] if keys_only else outputs_of(returned, len(x), output)
                if len(caught) != len(x):
                    what = f"the key module {key!r} gave {len(caught)} rows for {len(x)} examples"
                    raise EncodeError(f"{what}; expected one each: name a module whose first dimension is the batch")
                if keys.count == 0 and not keys_only:
                    head = linear_head(capture.module, key, caught, said)
                keys.extend(caught)
                logits.extend(said)
                if y is not None:
                    if labels is None:
                        raise ParameterError("labels= was given, and the items are pairs (x, y); pass one of the two")
                    labels.append(_label_array(y))
                if named is not None:
                    numbers.append(_label_array(named))
                bar.update(len(x))
    ids = _own_ids(numbers, ids)
    targets = _label_array(examples.labels) if labels is None else np.concatenate(labels) if labels else None
    if keys_only:
        found = _knowing_nothing(keys.count, targets, task, outputs)
    else:
        found = understood(logits.array(), targets, task, output.kind)
    functions = Functions(output=output.item if callable(output.item) else None)
    source = replace(source, output=KEYS_ONLY if keys_only else found.kind, item=output.recorded, functions=functions)
    _say(found, output)
    enc = _assemble(keys.array(), found, ids, source, head, new_classes)
    warn_if_memorised(enc, "encode held-out examples instead")
    return enc


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, uncompiled, without gradients; every submodule's own training flag is put back by every exit.

    Not inference mode: a tensor that the model keeps for its next call, such as a table of positions, could not be
    trained with afterwards.
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with uncompiled(model), torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


def _own_ids(numbers: list[np.ndarray], ids: ArrayLike | None) -> ArrayLike | None:
    """`ids`, or the third part of items (x, y, number)."""
    if not numbers:
        return ids
    if ids is not None:
        raise ParameterError("ids= was given, and the items are (x, y, number); pass one of the two")
    found = np.concatenate(numbers)
    if len(np.unique(found)) < len(found):
        raise InputError(
            "the dataset's items have 3 parts, and the numbers in the third repeat; expected (x, y), or a number of "
            "each row's own as the third part: give a collate_fn that makes pairs, and ids= where rows share one"
        )
    log.info("the third part of the items is taken for their ids")
    return found


def _position(model: nn.Module, key: str, probe: Tensor | Inputs, wanted: str | None) -> str | None:
    """Where the key is to be read when it is a sequence (n, t, c): as `wanted`, else as is found with a few rows."""
    n = len(probe)
    with Capture(model, key, pool=False, position=wanted or "mean") as capture:
        forward(model, probe)
        states = capture.take()
        masked, time_first = capture.masked, len(states) != n
        if states.ndim == 3 and states.shape[0] == states.shape[1] > 1:  # which of the two is the batch?
            forward(model, probe[: n - 1])
            time_first = len(capture.take()) == n
    convolved = type(capture.module).__name__.endswith("1d")
    if states.ndim != 3 or convolved:
        return None
    found = wanted or position_read(model, partial(forward, model, probe), n)
    if found is None and masked:
        log.info("keys of %r are the mean over the positions that the attention mask keeps", key)
        found = "mean"
    if found is None:
        raise KeyModuleError(
            f"the key module {key!r} gave sequences {tuple(states.shape)}, and it could not be seen at which position "
            "the outputs are read from them; say which is the key: position='first', 'last' or 'mean', or name another "
            "module with key="
        )
    return found.removesuffix(TIME_FIRST) + (TIME_FIRST if time_first else "")


def linear_head(module: nn.Module, key: str, keys: Tensor, logits: Tensor) -> Head | None:
    """The key's linear layer, if it reproduces the logits of a batch to their dtype's precision."""
    if not isinstance(module, nn.Linear) or not key.endswith(":input"):
        return None
    shape, weight = (logits.shape[1], keys.shape[1]), module.weight
    # Of quantised and offloaded layers the weight itself is no matrix to compute with.
    if weight.shape != shape or weight.is_meta or not weight.is_floating_point() or is_made_of_parts(weight):
        return None
    head = Head(module.weight.detach(), None if module.bias is None else module.bias.detach())
    with torch.autocast(keys.device.type, enabled=False):  # a memory recomputes logits in float32
        again = head(keys)
    size = float(logits.abs().max()) + 1e-6
    # Keys came through the same matrix product, at the precision the logits are rounded to.
    relative = max(4 * torch.finfo(logits.dtype).eps, 1e-4) if logits.is_floating_point() else 0.0
    if not torch.allclose(again, logits.float(), rtol=0.0, atol=relative * size):
        return None
    # Copies: the model may be trained on, and what was said must not change with it.
    bias = None if head.bias is None else head.bias.cpu().float().clone()
    return Head(head.weight.cpu().float().clone(), bias)


def _as_before(output: Choice, like: Source) -> Choice:
    """The outputs that `like` was made of, unless others are named."""
    item = output.item
    if item is None:
        item = like.item if like.functions.output is None else like.functions.output
    if item == FUNCTION and not callable(item):
        raise ParameterError("these outputs were picked by a function, which is not stored; pass output= with it again")
    return Choice(like.output or "logits" if output.kind == "auto" else output.kind, item)


def _place_of_head(module: nn.Module, key: str, keys: Tensor, returned: Any) -> int | None:
    """Which item of a tuple the key's linear layer gives, where that is not the first: (embedding, logits)."""
    if not isinstance(returned, (tuple, list)) or hasattr(returned, "logits"):
        return None
    tensors = [
        item if isinstance(item, Tensor) and item.ndim == 2 and len(item) == len(keys) else None for item in returned
    ]
    heads = [place for place, item in enumerate(tensors) if item is not None and linear_head(module, key, keys, item)]
    if heads and heads[0] > 0:
        log.info("item %d of what the model returns is what its last layer %r gives: its outputs", heads[0], key)
        return heads[0]
    if not heads and sum(item is not None for item in tensors) > 1:
        shapes = ", ".join(str(tuple(item.shape)) for item in tensors if item is not None)
        warn(
            f"the model returns several tables ({shapes}), and the first is taken for its outputs; say which is meant, "
            "such as output=1"
        )
    return None


def _tables(returned: Any, n: int, output: Choice) -> list[Tensor]:
    """What may be the outputs (n, L): the item that is meant, else each table of a tuple."""
    if output.item is None and isinstance(returned, (tuple, list)) and not hasattr(returned, "logits"):
        tables = [item for item in returned if isinstance(item, Tensor) and item.ndim in (1, 2) and len(item) == n]
        if tables:
            return tables
    return [outputs_of(returned, n, output)]


def outputs_of(returned: Any, n: int, output: Choice) -> Tensor:
    """The (n, L) tensor in what a model returned: the item that is meant, else itself, its ``.logits`` or
    ``["logits"]``, or a tuple's first."""
    if output.item is not None:
        found = item_of(returned, output.item)
    elif isinstance(returned, dict) and "logits" in returned:
        found = returned["logits"]
    elif isinstance(returned, (tuple, list)) and returned and not hasattr(returned, "logits"):
        found = returned[0]
    else:
        found = getattr(returned, "logits", returned)
    if not isinstance(found, Tensor):
        raise EncodeError(
            f"the model returned {type(found).__name__}; expected a tensor of logits, an object with .logits, or a "
            "tuple whose first item is the logits: say which item they are with output= (its place or name), or wrap "
            "the model in a module that returns them"
        )
    if found.ndim == 3 and len(found) == n:
        raise EncodeError(
            f"the model's output has shape {tuple(found.shape)} for {n} examples: outputs at each position, as of "
            "token classification, speech recognition or a language model; expected one row per example. Next tokens: "
            "rs.encode((model, tokenizer), texts). Classes of tokens: bring each position that counts as a row, "
            "rs.Encoded(states[kept], logits[kept], labels[kept])"
        )
    if found.ndim not in (1, 2) or len(found) != n:
        what = f"the model's output has shape {tuple(found.shape)} for {n} examples"
        raise EncodeError(f"{what}; expected ({n}, L), one row of logits (or predictions) per example")
    return found.reshape(n, -1)


def _knowing_nothing(n: int, labels: np.ndarray | None, task: Task | None, outputs: int | None) -> Understood:
    """Zeros, for as many classes as `outputs` says, or as the labels have."""
    if labels is not None:
        labels = one_per_row(labels, labels.shape[-1], task)
        whole = "classification" if labels.ndim == 1 else "multi-label"
        task = task or (whole if labels.dtype.kind in "iub" else "regression")
        if outputs is None:
            outputs = int(labels.max()) + 1 if task == "classification" else labels[0].size
    if outputs is None:
        raise ParameterError("an embedder does not know the classes, and there are no labels; pass like=memory")
    outputs = max(outputs, 2) if task == "classification" else outputs
    return Understood(torch.zeros(1, outputs).expand(n, -1), labels, task, "logits")


def _say(found: Understood, output: Choice) -> None:
    what = "" if output.item is None else f" (item {output.recorded!r} of what it returns)"
    if output.kind == KEYS_ONLY:
        log.info("the model is an embedder: its base knows nothing")
    elif output.kind != "auto" or found.kind in ("logits", "predictions"):
        log.info("the model's outputs%s are %s", what, found.kind)
    else:
        log.info("the model's outputs%s are %s: %s", what, found.kind, shown_kind(found.kind))


def forward(model: nn.Module, x: Tensor | Inputs) -> Any:
    """What the model returns for a batch; ``DtypeError`` where its dtype is not the batch's."""
    try:
        return model(*x.args, **x.named) if isinstance(x, Inputs) else model(x)
    except (RuntimeError, NotImplementedError) as error:
        x = main_input(x, model)
        dtypes = {tensor.dtype for tensor in model.parameters()}
        unfit = dtypes and x.dtype not in dtypes and not torch.is_autocast_enabled(x.device.type)
        if not unfit or "type" not in str(error).lower():
            raise
        names = "/".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise DtypeError(
            f"the model's parameters are {names} and the inputs {str(x.dtype).removeprefix('torch.')}; give "
            f"the inputs the model's dtype (x.to(torch.{names.split('/')[0]})), convert the model "
            f"(model.float()), or call encode inside torch.autocast({x.device.type!r})"
        ) from error


def _assemble(
    keys: np.ndarray, found: Understood, ids: ArrayLike | None, source: Source, head: Head | None, new_classes: bool
) -> Encoded:
    if head is not None and found.kind in ("probabilities", "percentages"):
        head = None
    elif head is not None and found.logits.shape[1] > len(head.weight):  # a lone logit s is the two columns [0, s]
        bias = None if head.bias is None else torch.cat([torch.zeros(1), head.bias])
        head = Head(torch.cat([torch.zeros_like(head.weight), head.weight]), bias)
    known: dict[str, Any] = {"source": source, "task": found.task, "head": head, "new_classes": new_classes}
    return Encoded(keys, DenseLogits(found.logits), found.labels, ids, **known)


def _label_array(labels: Any) -> np.ndarray:
    if isinstance(labels, Tensor):
        labels = at_least_float32(labels.detach()) if labels.is_floating_point() else labels
        return np.atleast_1d(labels.cpu().numpy())
    array = np.atleast_1d(np.asarray(labels))
    if array.dtype.kind not in "fiub":
        what = f"labels are {array.dtype} such as {array.flat[0]!r}"
        raise LabelError(
            f"{what}; expected class indices or numbers: map class names to "
            "indices in the order of the model's outputs (in a datasets.Dataset, a ClassLabel column has them)"
        )
    return array


class _Rows:
    """An array, float32 or of float64 rows, that is filled batch by batch; of the right size from the start when that
    is known."""

    def __init__(self, n: int | None):
        self.count, self._expected = 0, n
        self._buffer = np.empty((0, 0), dtype=np.float32)
        self._pending: list[Tensor] = []

    def extend(self, rows: Tensor) -> None:
        if not self.count:
            dtype = np.float64 if rows.dtype == torch.float64 else np.float32
            self._buffer = np.empty((self._expected or 4 * len(rows), rows.shape[1]), dtype)
        if rows.shape[1] != self._buffer.shape[1]:
            what = f"a batch has {rows.shape[1]} numbers per row after batches with {self._buffer.shape[1]}"
            raise EncodeError(f"{what}; expected one width: give every input the same size")
        self._pending.append(rows)
        self.count += len(rows)
        if rows.device.type == "cpu" or sum(part.numel() for part in self._pending) > _PENDING:
            self.array()

    def array(self) -> np.ndarray:
        """What was filled, (count, width); nothing is pending then."""
        if self._pending:
            start = self.count - sum(len(part) for part in self._pending)
            if self.count > len(self._buffer):
                grown = np.empty((max(self.count, 2 * len(self._buffer)), self._buffer.shape[1]), self._buffer.dtype)
                grown[:start] = self._buffer[:start]
                self._buffer = grown
            rows = self._pending[0] if len(self._pending) == 1 else torch.cat(self._pending)
            torch.from_numpy(self._buffer[start : self.count]).copy_(rows)
            self._pending = []
        return self._buffer[: self.count]
