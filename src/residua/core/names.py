"""What ids are called: documents by their paths, examples by theirs. Files of one text share an id, and keep their
names."""

from __future__ import annotations

from collections.abc import Mapping
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
    >>> names.set(7, "b/LICENSE"), names.set(9), names
    (None, None, {7: 'b/LICENSE'})
    """

    also: dict[int, list[str]]

    def __init__(self, given: Mapping[int, str] | None = None):
        super().__init__()
        self.also = {}
        self |= given or {}

    def copy(self) -> Names:
        """Another, with the same names."""
        more = Names()
        dict.update(more, self)
        more.also = {id: list(names) for id, names in self.also.items()}
        return more

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
        self.set(id, *dict.fromkeys((*self.all(id), *names)))

    def set(self, id: int, *names: str) -> None:
        """An id bears these names, and no others."""
        if not names:
            self.pop(id, None)
            return
        first, *others = names
        self[id] = first
        self.also.pop(id, None)
        if others:
            self.also[id] = others

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
            names.set(int(id), *([given] if isinstance(given, str) else given))
        return names
