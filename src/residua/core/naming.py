"""What classes, outputs and rows are called: the one place where a class becomes words, and words a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from residua.errors import InputError, LabelError, ShapeError
from residua.printable import one_line


def checked_classes(classes: Sequence[str] | None, outputs: int) -> tuple[str, ...] | None:
    """The names of `outputs` classes (or of regression outputs), if they are one each; None for None."""
    if classes is None:
        return None
    names = list(classes) if not isinstance(classes, str) else [classes]
    if len(names) != outputs:
        raise ShapeError(f"{len(names)} names for {outputs} outputs; expected one each")
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise InputError(f"classes hold {wrong[0]!r}, a {type(wrong[0]).__name__}; expected a name, a str, of each")
    return tuple(str(name) for name in names)


def class_name(classes: Sequence[str] | None, index: int) -> str:
    r"""What a class is called, on one line; without names, its number.

    Examples
    --------
    >>> class_name(("cat", "dog\n"), 1), class_name(None, 1)
    ('dog\\n', '1')
    """
    return str(index) if classes is None else one_line(classes[index])


def named_classes(names: np.ndarray, classes: Sequence[str] | None) -> np.ndarray:
    """The indices of classes that are given by name; ``LabelError`` for a name that none, or several, have."""
    if classes is None:
        raise LabelError(
            f"the labels are names, such as {str(names.flat[0])!r}, and these classes have none; give their indices"
        )
    places: dict[str, list[int]] = {}
    for index, name in enumerate(classes):
        places.setdefault(name, []).append(index)
    for name in np.unique(names).tolist():
        found = places.get(name, [])
        if not found:
            known = ", ".join(map(repr, classes[:10])) + (", …" if len(classes) > 10 else "")
            raise LabelError(f"no class is called {name!r}; there are {known}")
        if len(found) > 1:
            raise LabelError(f"{len(found)} classes are called {name!r}; say which by its index: {found}")
    return np.array([places[name][0] for name in names.reshape(-1).tolist()], np.int64).reshape(names.shape)


def check_order(here: Sequence[str] | None, there: Sequence[str] | None) -> None:
    """``LabelError`` where one and the same name stands for different classes: two data sets in different orders."""
    if here is None or there is None or tuple(here) == tuple(there):
        return
    places = {name: index for index, name in enumerate(here)}
    for index, name in enumerate(there):
        if places.get(name, index) != index and here.count(name) == there.count(name) == 1:
            raise LabelError(
                f"{one_line(name)!r} is class {places[name]} of this memory and class {index} of these rows: their "
                "classes are numbered differently; give both the same order"
            )
