"""Which memories moved this prediction, and how far, exactly."""

from residua.explain.explain import explain
from residua.explain.explanation import Explanation
from residua.explain.token_explanation import TokenExplanation

__all__ = ["Explanation", "TokenExplanation", "explain"]
