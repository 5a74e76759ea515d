"""How much an estimator was told to weigh each class when it was fitted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from residua.core.source import ClassWeight
from residua.encoding.sklearn import nested

_THRESHOLDS = ("FixedThresholdClassifier", "TunedThresholdClassifierCV")
_RESAMPLE = ("over-sampling", "under-sampling")  # imbalanced-learn's kinds that even out the classes


def class_weight_of(estimator: Any) -> ClassWeight | None:
    """``"balanced"``, or the weight of each class index, by which a fitted classifier's probabilities are those of
    other class shares than its rows had; None where it was told nothing.

    That of the step that predicts: a ``class_weight``, XGBoost's, LightGBM's and CatBoost's own, or a sampler of
    imbalanced-learn before it, which evens out the classes.
    """
    if not hasattr(estimator, "classes_"):
        return None
    steps = list(nested(estimator))
    if type(steps[-1]).__name__ in _THRESHOLDS:
        steps += nested(steps[-1].estimator_)
    classes = np.asarray(estimator.classes_).tolist()
    found = _told(steps[-1].get_params(deep=False), len(classes))
    if found is None and any(map(_evens_out, steps)):
        return "balanced"
    if not isinstance(found, Mapping):
        return found
    # scikit-learn's classes that are not named weigh 1.
    named = {classes.index(name): float(weight) for name, weight in found.items() if name in classes}
    return {at: weight for at, weight in named.items() if weight != 1} or None


def _told(params: Mapping[str, Any], classes: int) -> Any:
    """ "balanced", weights by class name, or None."""
    given = params.get("class_weight", params.get("class_weights"))
    if isinstance(given, str) and given.startswith("balanced"):  # "balanced_subsample" is so tree by tree
        return "balanced"
    if isinstance(given, Mapping):
        return given
    if isinstance(given, Iterable) and not isinstance(given, str):  # CatBoost's, in the order of its classes
        return dict(enumerate(given))
    if params.get("auto_class_weights") == "Balanced" or params.get("is_unbalance"):
        return "balanced"
    positive = params.get("scale_pos_weight")
    return {1: positive} if classes == 2 and positive and not math.isnan(positive) else None


def _evens_out(step: Any) -> bool:
    """Whether it is a pipeline with a sampler that leaves all classes equally many rows."""
    samplers = (inner for _, inner in getattr(step, "steps", ()) if getattr(inner, "_sampling_type", "") in _RESAMPLE)
    return any(isinstance(sampler.sampling_strategy, str) for sampler in samplers)
