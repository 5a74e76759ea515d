"""Did the memory help: paired scores of base and memory, their difference's significance, calibration, label k-NN."""

from residua.evaluation.evaluate import evaluate
from residua.evaluation.result import Evaluation
from residua.evaluation.token_result import TokenEvaluation
from residua.evaluation.tokens import evaluate_tokens

__all__ = ["Evaluation", "TokenEvaluation", "evaluate", "evaluate_tokens"]
