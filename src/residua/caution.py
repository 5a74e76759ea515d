"""One ``UserWarning`` of what is doubtful, said of the caller's own line."""

from __future__ import annotations

import sys
import warnings

# Frames of these are not the caller's: decorators and ``with`` blocks put some of them between our own.
_NOT_CALLERS = ("residua", "contextlib", "torch.utils._contextlib")


def warn(message: str) -> None:
    """Warn at the first line outside of residua that led here, however many of our functions lie between."""
    frame, level = sys._getframe(1), 3
    while (frame := frame.f_back) is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level += 1
    warnings.warn(message, UserWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module in _NOT_CALLERS or module.startswith("residua.")
