"""What ids are called: documents by their paths, examples by theirs. Files of one text share an id, and keep their
names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Self


class Names(dict[int, str]):
    """The name of each id; of an id that bears several (files of the same text), the first, and ``also`` the others.

    Attributes
    ----------
    also : dict of int to list of str
        The other names of an id, in the order that they were given; most ids have none.

    Examples
    --------
    >>> names = Names({7: "a/LICENSE", 9: "b.py"})
    >>> names.give(7, "b/LICENSE")
    >>> names[7], names.all(7), names.bearers("b/LICENSE"), str(names)
    ('a/LICENSE', ('a/LICENSE', 'b/LICENSE'), [7], "{7: 'a/LICENSE', 9: 'b.py'}")
    >>> names.take(7, "a/LICENSE"), names.take(9, "b.py"), names
    (('b/LICENSE',), (), {7: 'b/LICENSE'})
    """

    also: dict[int, list[str]]

    def __init__(self, given: Mapping[int, str] | None = None):
        super().__init__()
        self.also = {}
        self |= given or {}

    def all(self, id: int) -> tuple[str, ...]:
        """Every name of an id, none for an unknown one."""
        return (self[id], *self.also.get(id, ())) if id in self else ()

    def bearers(self, name: str) -> list[int]:
        """The ids that bear a name."""
        return [id for id in self if name == self[id] or name in self.also.get(id, ())]

    def by_name(self) -> dict[str, list[int]]:
        """The ids that bear each name."""
        found: dict[str, list[int]] = {}
        for id in self:
            for name in self.all(id):
                found.setdefault(name, []).append(id)
        return found

    def give(self, id: int, *names: str) -> None:
        """An id bears these names, too."""
        self._put(id, list(dict.fromkeys((*self.all(id), *names))))

    def take(self, id: int, name: str) -> tuple[str, ...]:
        """An id bears a name no longer; the names that are left to it."""
        self._put(id, [one for one in self.all(id) if one != name])
        return self.all(id)

    def pop(self, id: int, *default: Any) -> Any:
        """Forget all names of an id; the first of them."""
        self.also.pop(id, None)
        return super().pop(id, *default)

    def __ior__(self, other: Any) -> Self:
        """The names that `other` gives: instead of those here, or, of ``Names``, beside them."""
        for id, name in dict(other).items():
            if isinstance(other, Names):
                self.give(id, *other.all(id))
            else:
                self[int(id)] = name
        return self

    def to_json(self) -> dict[str, str | list[str]]:
        """A name, or a list of them, by the id in digits."""
        return {str(id): list(self.all(id)) if id in self.also else name for id, name in self.items()}

    @classmethod
    def from_json(cls, said: Mapping[str, str | list[str]]) -> Self:
        """What ``to_json`` wrote."""
        names = cls()
        for id, given in said.items():
            names._put(int(id), [given] if isinstance(given, str) else given)
        return names

    def _put(self, id: int, names: Collection[str]) -> None:
        if not names:
            self.pop(id, None)
            return
        first, *others = names
        self[id] = first
        self.also.pop(id, None)
        if others:
            self.also[id] = others
