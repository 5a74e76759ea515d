"""An option that every way of encoding takes: ``like=``."""

from typing import NamedTuple

from residua.core import Source
from residua.errors import ParameterError


class Like(NamedTuple):
    """Whose keys are wanted, for which task, and how texts were cut (empty where that is not known)."""

    source: Source
    task: str | None
    windowing: dict


def known_by(like) -> Like | None:
    """What an Encoded, a memory, a reader's memory, a ``TextStream`` or a Source knows; None for None."""
    if like is None:
        return None
    holder = like if hasattr(like, "source") or isinstance(like, Source) else getattr(like, "memory", None)
    source = holder if isinstance(holder, Source) else getattr(holder, "source", None)
    if not isinstance(source, Source):
        what = f"like= is a {type(like).__name__} that does not know its model"
        raise ParameterError(f"{what}; expected what rs.encode returned, or a memory of it")
    return Like(source, getattr(holder, "task", None), getattr(holder, "about", {}).get("windowing", {}))
