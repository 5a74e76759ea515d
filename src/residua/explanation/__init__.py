"""Which memories moved this prediction, and how far, exactly."""

from residua.explanation.explain import explain
from residua.explanation.explanation import Explanation

__all__ = ["Explanation", "explain"]


def __getattr__(name: str):
    now = "; it is Explanation now, for rows and tokens alike" if name == "TokenExplanation" else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{now}")
