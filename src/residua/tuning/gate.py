"""How sure the base must be of a token before the memory need not be asked."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from residua.errors import ParameterError
from residua.tuning.likelihood import Targets

GATES = np.concatenate([np.arange(0.05, 0.951, 0.05).round(2), [0.98, 0.99, 0.995, 0.999]])


def lowest_gate(
    targets: Targets, setting: tuple[int, int, int], share: Tensor | float, tolerance: float
) -> tuple[float | None, float]:
    """The lowest gate that keeps the perplexity within ``1 + tolerance`` times what it is without one.

    Parameters
    ----------
    targets : Targets
    setting : (int, int, int)
        The chosen k, sigma and temperature, as indices.
    share : float, or Tensor of shape (n,)
        What the neighbours get of each token.
    tolerance : float
        Relative loss of perplexity allowed, such as 0.005; >= 0.

    Returns
    -------
    gate : float or None
        None when no gate stays within the tolerance.
    skipped : float
        The share of the tokens that are not searched at that gate.
    """
    if not (isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool) and 0 <= tolerance < np.inf):
        raise ParameterError(f"gate={tolerance!r}; expected the relative loss of perplexity allowed, such as 0.005")
    open_loss = -float(targets.per_token(setting, share).mean())
    for gate in GATES:
        loss = -float(targets.per_token(setting, share, gate).mean())
        if loss - open_loss <= np.log1p(tolerance):
            return float(gate), float((targets.sure[setting[2]] >= gate).float().mean())
    return None, 0.0
