"""Attributes that had another name in an earlier version."""

from collections.abc import Callable
from typing import NoReturn, TypeVar

C = TypeVar("C", bound=type)


def renamed(names: dict[str, str]) -> Callable[[C], C]:
    """Asking for an old name says the new: ``@renamed({"old_name": "new_name"})``.

    By a decorator, which a type checker does not look into: to it old names are unknown.
    """

    def __getattr__(self: object, name: str) -> NoReturn:
        hint = f"; it is {names[name]!r} now" if name in names else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def decorate(cls: C) -> C:
        cls.__getattr__ = __getattr__
        return cls

    return decorate
