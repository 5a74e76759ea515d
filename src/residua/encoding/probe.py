"""What a model says of a few made-up inputs: the same function answers alike, however its parameters are kept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from residua.core.source import Probe
from residua.encoding.capture import Capture, device_of
from residua.encoding.decoder import has_decoder
from residua.encoding.fingerprint import scrambled, weights

COLUMNS = 4096  # of a table whose ranges are kept
TOKENS = 2  # a model of a billion parameters reads them in half a second, and the second sees the first


def probe_like(inputs: Tensor) -> Probe:
    """A probe, not answered yet, of the shape and kind of a batch: noise, or whole numbers within the range seen."""
    whole = not inputs.is_floating_point()
    low, high = (int(inputs.min()), int(inputs.max())) if whole and inputs.numel() else (0, 0)
    return Probe(list(inputs.shape[1:]), low, high, whole)


def probe_of_tokens(model: Any) -> Probe | None:
    """A probe of tokens that a language model knows, not answered yet; None where it does not show its embedding."""
    try:
        vocabulary = model.get_input_embeddings().weight.shape[0]
    except (AttributeError, NotImplementedError):
        return None
    return Probe([TOKENS], 0, vocabulary - 1, True, rows=1)


def probe_of_table(X: Any) -> Probe | None:
    """A probe of rows within the range of each column of X (n, d), not answered yet; None where these are no numbers,
    or too many."""
    if getattr(X, "ndim", 2) != 2 or X.shape[1] > COLUMNS:
        return None
    if hasattr(X, "tocsr"):
        ends = [np.asarray(end(axis=0).todense()).ravel() for end in (X.min, X.max)]
    else:
        table = np.asarray(X)
        if table.dtype.kind not in "fiub":
            return None
        known = np.isfinite(table)
        ends = [
            reduce(np.where(known, table, other), axis=0, initial=other)
            for reduce, other in ((np.min, math.inf), (np.max, -math.inf))
        ]
    low, high = (np.where(np.isfinite(end), end, 0.0).tolist() for end in ends)
    return Probe([X.shape[1]], low, high)


def answered_by(probe: Probe | None, estimator: Any, answers: Callable[[Any], list[np.ndarray]]) -> Probe | None:
    """The probe of a table with what `answers` gives of its rows, each (rows, m); None where that is nothing it
    repeats."""
    if probe is None:
        return None
    rows: Any = _inputs(probe).numpy()
    names = getattr(estimator, "feature_names_in_", None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rows without names, or far from those that were learned from
            if names is not None:
                from pandas import DataFrame  # which gave the names

                rows = DataFrame(rows, columns=names)
            first, second = (
                [number for part in answers(rows) for number in _numbers(torch.from_numpy(np.array(part, np.float64)))]
                for _ in range(2)
            )
    except Exception:  # noqa: BLE001 as above
        return None
    made = probe._replace(answers=tuple(first))
    finite = all(math.isfinite(number) for number in first)
    return made if finite and made.agrees(probe._replace(answers=tuple(second)), 1.0) else None


def answered(
    probe: Probe | None, model: nn.Module, key: str, *, position: str | None = None, twice: bool = True
) -> Probe | None:
    """The probe with this model's answers; None where it has none or, asked `twice`, none that it repeats.

    For a model in evaluation mode, without gradients.
    """
    if probe is None:
        return None
    tensor = next((tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()), None)
    try:
        inputs = _inputs(probe).to(device_of(model))
        inputs = inputs if probe.whole else inputs.to(torch.float32 if tensor is None else tensor.dtype)
        first = _answers(model, key, position, inputs)
        second = _answers(model, key, position, inputs) if twice else first
    except Exception:  # noqa: BLE001 whatever a model says of noise that it does not take
        return None
    answers = probe._replace(answers=first)
    finite = all(math.isfinite(number) for number in first)
    return answers if finite and answers.agrees(probe._replace(answers=second), 1.0) else None


def watched(model: nn.Module) -> bool:
    """Whether somebody's hooks look on: they may count, wait, or hold a memory to the model, and are called only where
    parameters cannot tell alone."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def _inputs(probe: Probe) -> Tensor:
    size = probe.rows * math.prod(probe.shape)
    if isinstance(probe.low, list):
        low, high = np.asarray(probe.low), np.asarray(probe.high)
        return torch.from_numpy(low + (scrambled(0, size) * 2.0**-64).reshape(probe.rows, -1) * (high - low))
    if probe.whole and isinstance(probe.high, int):
        numbers = torch.from_numpy((scrambled(0, size) >> 33).astype("int64"))
        return (numbers % (probe.high - probe.low + 1) + probe.low).reshape(probe.rows, *probe.shape)
    return torch.from_numpy(weights(0, size)).reshape(probe.rows, *probe.shape)


def _answers(model: nn.Module, key: str, position: str | None, inputs: Tensor) -> tuple[float, ...]:
    with Capture(model, key, position=position) as capture:
        said = _first_tensor(model(inputs, decoder_input_ids=inputs) if has_decoder(model) else model(inputs))
        keys = capture.take()
    return tuple(number for rows in (keys, said) for number in _numbers(rows))


def _numbers(rows: Tensor) -> list[float]:
    """Of each row its size, and its signed projections on two fixed directions."""
    flat = rows.detach().cpu().double().flatten(1)
    width = flat.shape[1]
    directions = torch.from_numpy(weights(0, 2 * width)).reshape(2, width)
    return torch.cat([flat.norm(dim=1, keepdim=True), flat @ directions.T], dim=1).flatten().tolist()


def _first_tensor(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    items = output.values() if isinstance(output, dict) else output
    return _first_tensor(next(item for item in items if item is not None))
