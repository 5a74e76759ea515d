"""What a model says of a few made-up inputs: the same function answers alike, however its parameters are kept."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from residua.core.source import Probe
from residua.encoding.capture import Capture
from residua.encoding.fingerprint import scrambled, weights

ROWS = 4


def probe_like(inputs: Tensor) -> Probe:
    """A probe, not answered yet, of the shape and kind of a batch: noise, or whole numbers within the range seen."""
    whole = not inputs.is_floating_point()
    low, high = (int(inputs.min()), int(inputs.max())) if whole and inputs.numel() else (0, 0)
    return Probe(list(inputs.shape[1:]), low, high, whole)


def answered(probe: Probe, model: nn.Module, key: str) -> Probe | None:
    """The probe with this model's answers; None where it has none, or none that it repeats.

    For a model in evaluation and inference mode.
    """
    tensor = next((tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()), None)
    device, dtype = (torch.device("cpu"), torch.float32) if tensor is None else (tensor.device, tensor.dtype)
    inputs = _inputs(probe).to(device)
    inputs = inputs if probe.whole else inputs.to(dtype)
    try:
        first, second = _answers(model, key, inputs), _answers(model, key, inputs)
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
    size = ROWS * math.prod(probe.shape)
    if probe.whole:
        numbers = torch.from_numpy((scrambled(0, size) >> 33).astype("int64"))
        return (numbers % (probe.high - probe.low + 1) + probe.low).reshape(ROWS, *probe.shape)
    return torch.from_numpy(weights(0, size)).reshape(ROWS, *probe.shape)


def _answers(model: nn.Module, key: str, inputs: Tensor) -> tuple[float, ...]:
    with Capture(model, key) as capture:
        said = _first_tensor(model(inputs))
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
    return _first_tensor(next(iter(output.values() if isinstance(output, dict) else output)))
