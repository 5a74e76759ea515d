"""What is remembered: rows that can be added, forgotten, relabelled, saved and loaded."""

from residua.memory.memory import Memory

__all__ = ["Memory"]
