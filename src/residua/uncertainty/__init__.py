"""How sure an answer is: sets and intervals that hold the truth at a promised rate, and answers withheld."""

from residua.uncertainty.conformal import Conformal, conformal
from residua.uncertainty.result import Coverage

__all__ = ["Conformal", "Coverage", "conformal"]
