"""Did the memory help: paired scores of base and memory, their difference's significance, calibration, label k-NN."""

from residua.evaluate.evaluate import evaluate
from residua.evaluate.result import Evaluation

__all__ = ["Evaluation", "evaluate"]
