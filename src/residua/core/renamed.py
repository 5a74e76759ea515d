"""Attributes that an earlier version had under another name: asking for one names the new."""

from collections.abc import Callable


def renamed(names: dict[str, str]) -> Callable:
    """A ``__getattr__`` for a class, whose error says what to write now: ``renamed({"old_name": "new_name"})``."""

    def __getattr__(self, name: str):
        hint = f"; it is {names[name]!r} now" if name in names else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    return __getattr__
