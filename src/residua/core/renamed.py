"""Attributes that an earlier version had under another name: asking for one names the new."""

from collections.abc import Callable
from typing import NoReturn, TypeVar

C = TypeVar("C", bound=type)


def renamed(names: dict[str, str]) -> Callable[[C], C]:
    """A class whose errors say what to write now: ``@renamed({"old_name": "new_name"})``.

    By a decorator, which a type checker does not look into: to it the old names are unknown, as any other.
    """

    def __getattr__(self: object, name: str) -> NoReturn:
        hint = f"; it is {names[name]!r} now" if name in names else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def decorate(cls: C) -> C:
        cls.__getattr__ = __getattr__
        return cls

    return decorate
