"""Did the memory help: paired scores of base and memory, their difference's significance, calibration, label k-NN."""

from residua.evaluation.breakdown import Confusion, Group, Reliability
from residua.evaluation.classification import expected_calibration_error
from residua.evaluation.evaluate import evaluate
from residua.evaluation.label_knn import label_reader, tune_label_knn
from residua.evaluation.result import Evaluation
from residua.evaluation.significance import bootstrap_interval, mcnemar, sign_test_of_mean

__all__ = [
    "Confusion",
    "Evaluation",
    "Group",
    "Reliability",
    "bootstrap_interval",
    "evaluate",
    "expected_calibration_error",
    "label_reader",
    "mcnemar",
    "sign_test_of_mean",
    "tune_label_knn",
]
