"""Which memories moved this prediction, and how far, exactly."""

from typing import TYPE_CHECKING

from residua.explanation.explain import explain
from residua.explanation.explanation import Explanation
from residua.explanation.picture import plot

__all__ = ["Explanation", "explain", "plot"]


if not TYPE_CHECKING:  # to a type checker any other name is unknown

    def __getattr__(name):
        now = "; it is Explanation now, for rows and tokens alike" if name == "TokenExplanation" else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{now}")
