"""Memory and model put back together: the trained model itself answers with what its memory knows."""

from residua.hooks.handle import Handle, attach

__all__ = ["Handle", "attach"]
