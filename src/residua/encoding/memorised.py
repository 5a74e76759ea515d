"""A base that memorised its examples leaves nothing to remember: say so, with the number."""

import numpy as np
import torch

from residua.caution import warn
from residua.core import Encoded
from residua.core.logits import Sigmoid, Table

NEARLY_ZERO, NEARLY_ALL = 0.01, 0.99
_ROWS = 65_536


def share_of_zero_residuals(enc: Encoded) -> float:
    """The share of rows the base already explains: ``1 - p_y``, the largest entry of ``onehot(y) - p`` (ResMem, arXiv
    2302.01576, §4.1), is under 0.01; or a regression residual under 0.01 of the targets' standard deviation."""
    if enc.labels is None or len(enc) == 0:
        return 0.0
    if enc.task == "regression":
        targets = enc.labels.reshape(len(enc), -1).astype(np.float64)
        residuals = np.abs(targets - Table(enc.logits).table().cpu().numpy())
        return float((residuals < NEARLY_ZERO * targets.std(axis=0)).all(axis=1).mean())
    if enc.task == "multi-label":
        residuals = np.abs(enc.labels - Sigmoid(enc.logits).table().cpu().numpy())
        return float((residuals < NEARLY_ZERO).all(axis=1).mean())
    small = 0
    for rows in torch.arange(len(enc)).split(_ROWS):
        logits = enc.logits.dense(rows)
        log_p = logits.gather(1, torch.from_numpy(enc.labels)[rows, None])[:, 0] - logits.logsumexp(dim=1)
        small += int((log_p.exp() > 1 - NEARLY_ZERO).sum())
    return small / len(enc)


def warn_if_memorised(enc: Encoded, remedy: str) -> None:
    """``UserWarning`` when over 99 % of the residuals are nearly zero."""
    share = share_of_zero_residuals(enc)
    if share > NEARLY_ALL:
        what = f"{100 * share:.1f} % of the residuals are nearly zero: the base has memorised these {len(enc)} examples"
        warn(f"{what}, and a memory of them will change almost nothing; {remedy}")
