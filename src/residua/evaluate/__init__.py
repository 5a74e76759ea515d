"""Did the memory help: paired scores of base and memory, their difference's significance, calibration, label k-NN."""

from residua.evaluate.evaluate import evaluate
from residua.evaluate.result import Evaluation
from residua.evaluate.token_result import TokenEvaluation
from residua.evaluate.tokens import evaluate_tokens

__all__ = ["Evaluation", "TokenEvaluation", "evaluate", "evaluate_tokens"]
