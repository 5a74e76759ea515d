"""Which memories moved this prediction, and how far, exactly."""

from residua.explain.explain import explain
from residua.explain.explanation import Explanation

__all__ = ["Explanation", "explain"]
