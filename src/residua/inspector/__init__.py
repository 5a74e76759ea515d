"""A page to look at a memory in: what it does to each example, what its settings do, what is in it, and edits."""

from residua.inspector.serve import Inspector, inspect

__all__ = ["Inspector", "inspect"]
