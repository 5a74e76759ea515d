"""Which memories moved this prediction, and how far, exactly."""

from residua.explanation.explain import explain
from residua.explanation.explanation import Explanation
from residua.explanation.token_explanation import TokenExplanation

__all__ = ["Explanation", "TokenExplanation", "explain"]
