"""What a model's last numbers are: logits, log-probabilities, probabilities, percentages or predictions.

A memory corrects logits. Probabilities look like logits to any code that only reads shapes, and everything that is
computed of them then is wrong: temperature, log-loss, calibration, residuals. So the numbers themselves decide.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, cast, get_args

import torch
from torch import Tensor

from residua.errors import InputError, ParameterError

OutputKind: TypeAlias = Literal["logits", "log-probabilities", "probabilities", "percentages", "predictions"]
OUTPUT_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)

# The least probability that has a logarithm of its own: a thousand classes of it add up to nothing in float32.
FLOOR = 1e-12
# How far from 1 a row of printed or rounded probabilities may add up to; of what bfloat16 rounded; of percentages.
_SUMS, _COARSE, _PERCENT = 1e-3, 5e-3, 1e-2
_ROWS = 65_536


def kind_of(table: Tensor, classes: bool | None = None, several: bool = False) -> OutputKind:
    """What the numbers (n, L) of a model are, judged by all of its rows.

    `classes`: whether the labels are classes; None where there are none. Several columns are probabilities where each
    row is in [0, 1] and adds up to 1; one column is where it is in [0, 1] and the labels are classes. Of labels of
    which a row may have `several`, columns are probabilities where they are in [0, 1].

    Examples
    --------
    >>> kind_of(torch.tensor([[0.9, 0.1], [0.3, 0.7]])), kind_of(torch.tensor([[90.0, 10.0], [30.0, 70.0]]))
    ('probabilities', 'percentages')
    >>> kind_of(torch.tensor([[2.0, -1.0]])), kind_of(torch.tensor([[0.9], [0.2]]), classes=True)
    ('logits', 'probabilities')
    """
    if classes is False:
        return "predictions"
    if not len(table) or not bool(table.any()):
        return "logits"
    low, high = float(table.min()), float(table.max())
    coarse = all(bool((rows == rows.bfloat16()).all()) for rows in table.split(_ROWS))
    sums = _COARSE if coarse else _SUMS
    if several:
        return "probabilities" if low >= -_SUMS and high <= 1 + _SUMS else "logits"
    if table.shape[1] == 1:
        return "probabilities" if classes and low >= -_SUMS and high <= 1 + _SUMS else "logits"
    if low >= -_SUMS and high <= 1 + _SUMS and _add_up_to(table, 1.0, sums):
        return "probabilities"
    if low >= -_PERCENT and high <= 100 + 100 * _PERCENT and _add_up_to(table, 100.0, _PERCENT):
        return "percentages"
    return "log-probabilities" if high <= _SUMS and _normalised(table, 4 * sums) else "logits"


def _add_up_to(table: Tensor, total: float, tolerance: float) -> bool:
    return all(
        bool(((rows.sum(dim=1, dtype=torch.float32) - total).abs() <= tolerance * total).all())
        for rows in table.split(_ROWS)
    )


def _normalised(table: Tensor, tolerance: float) -> bool:
    return all(bool((rows.float().logsumexp(dim=1).abs() <= tolerance).all()) for rows in table.split(_ROWS))


def checked_kind(kind: str) -> OutputKind:
    """`kind`; ``ParameterError`` for no such one."""
    if kind not in OUTPUT_KINDS:
        raise ParameterError(f"output={kind!r}; expected one of {', '.join(map(repr, OUTPUT_KINDS))}")
    return cast(OutputKind, kind)


def as_logits(table: Tensor, kind: str | None, several: bool = False) -> Tensor:
    """Outputs (n, L) of a `kind` as logits whose softmax are the model's probabilities; a lone column, and columns of
    labels of which a row may have `several`, as log-odds.

    Zero becomes 1e-12, so that nothing is infinite. ``InputError`` for what cannot be of the kind.

    Examples
    --------
    >>> as_logits(torch.tensor([[0.5, 0.5, 0.0]]), "probabilities").softmax(dim=1)
    tensor([[5.0000e-01, 5.0000e-01, 1.0000e-12]])
    >>> as_logits(torch.tensor([[0.5]]), "probabilities")
    tensor([[0.]])
    """
    if kind not in ("probabilities", "percentages"):
        return table
    wide = table if table.dtype == torch.float64 else table.float()
    p = wide / 100 if kind == "percentages" else wide
    if len(p) and not (float(p.min()) >= -_PERCENT and float(p.max()) <= 1 + _PERCENT):
        low, high = float(table.min()), float(table.max())
        expected = "[0, 100]" if kind == "percentages" else "[0, 1]"
        raise InputError(
            f"output={kind!r}, and the outputs lie between {low:.4g} and {high:.4g}; expected {expected}: "
            "say what they are with output="
        )
    log_p = p.clamp_min(FLOOR).log()
    return log_p if p.shape[1] > 1 and not several else log_p - (1 - p).clamp_min(FLOOR).log()


def as_spoken(logits: Tensor, kind: str | None, several: bool = False) -> Tensor:
    """The inverse: log-probabilities (n, L), or log-odds (of a lone column, or of labels of which a row may have
    `several`), in the `kind` that the model speaks.

    Examples
    --------
    >>> as_spoken(torch.tensor([[0.25, 0.75]]).log(), "percentages")
    tensor([[25., 75.]])
    """
    if kind not in ("probabilities", "percentages"):
        return logits
    p = logits.exp() if logits.shape[1] > 1 and not several else logits.sigmoid()
    return 100 * p if kind == "percentages" else p


def two_columns(table: Tensor) -> Tensor:
    """A lone logit s (n, 1) as the logits [0, s] of two classes; other tables as they are."""
    return torch.cat([torch.zeros_like(table), table], dim=1) if table.shape[1] == 1 else table


def shown_kind(kind: str) -> str:
    """What was seen of a table of that kind, in words."""
    if kind == "percentages":
        return "each row adds up to 100"
    if kind == "log-probabilities":
        return "each row is the logarithm of probabilities"
    return (
        "all lie between 0 and 1, and of several columns each row adds up to 1, but where a row may have several labels"
    )
