"""Names for implementations: readers, index engines and kernels are known everywhere once registered."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from residua.errors import ParameterError

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of a kind (``"reader"``) by name, registered by a decorator (``"@rs.register_reader"``)."""

    kind: str
    decorator: str

    def __init__(self, kind: str, decorator: str):
        self.kind, self.decorator = kind, decorator
        self._known: dict[str, T] = {}

    def register(self, name: str, thing: T) -> None:
        """Give `thing` a name. The same definition may be registered again (a reloaded module)."""
        there = self._known.get(name, thing)
        if there is not thing and _definition(there) != _definition(thing):
            raise ParameterError(
                f"{self.kind} {name!r} is registered already, by {_definition(there)}; choose another name"
            )
        self._known[name] = thing

    def get(self, name: str) -> T:
        """What is called `name`; an error lists the names."""
        if name not in self._known:
            raise ParameterError(
                f"there is no {self.kind} {name!r}; expected one of {tuple(self._known)}, or register it with "
                f"{self.decorator} (import the module that does, before loading what was saved with it)"
            )
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)


def _definition(thing: object) -> str:
    """Module and name of a class or function; of another object, of its class and the functions it holds."""
    held = filter(callable, getattr(thing, "__dict__", {}).values())
    parts = [thing] if hasattr(thing, "__qualname__") else [type(thing), *held]
    return ", ".join(f"{part.__module__}.{getattr(part, '__qualname__', type(part).__qualname__)}" for part in parts)
