"""The same answers in the hands of MAPIE and crepes, where they are installed: ``pip install mapie crepes``."""

import importlib.util
import warnings

import numpy as np

from residua.core import Encoded
from residua.uncertainty import Conformal

LIBRARIES = ("MAPIE, LAC", "crepes", "MAPIE, APS")


def installed(name: str) -> bool:
    """Whether a library is there; one that is not is left out of the tables, and they say so."""
    return importlib.util.find_spec(name) is not None


def set_sizes(sure: Conformal, calibration: Encoded, test: Encoded, confidence: float) -> dict:
    """Classes in a set on average, by ``mapie``, ``mapie_aps`` and ``crepes``: None where not installed."""
    (first, told), (second, _), estimator = _estimators(sure, calibration, test)
    out: dict = {"mapie": None, "mapie_aps": None, "crepes": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their own dependencies
        if installed("mapie"):
            from mapie.classification import SplitConformalClassifier

            for name, score in (("mapie", "lac"), ("mapie_aps", "aps")):
                kind = SplitConformalClassifier(
                    estimator, confidence_level=confidence, prefit=True, conformity_score=score, random_state=0
                )
                _, found = kind.conformalize(first, told).predict_set(second)
                out[name] = float(found[..., 0].sum(axis=1).mean())
        if installed("crepes"):
            from crepes import WrapClassifier

            kind = WrapClassifier(estimator)
            kind.calibrate(first, told)
            found = kind.predict_set(second, confidence=confidence, smoothing=False)
            out["crepes"] = float(np.mean([len(one) for one in found]))
    return out


def widths(sure: Conformal, calibration: Encoded, test: Encoded, confidence: float, remembered: Encoded) -> dict:
    """Intervals (n, 2) of the reader's predictions by ``mapie`` (one width), and by ``crepes`` with residua's
    difficulty (``crepes_ours``) and with its own of the 25 nearest rows (``crepes_own``); None: not installed."""
    (first, told), (second, _), estimator = _estimators(sure, calibration, test)
    out: dict = {"mapie": None, "crepes_ours": None, "crepes_own": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if installed("mapie"):
            from mapie.regression import SplitConformalRegressor

            kind = SplitConformalRegressor(estimator, confidence_level=confidence, prefit=True).conformalize(
                first, told
            )
            out["mapie"] = kind.predict_interval(second)[1][..., 0]
        if installed("crepes"):
            from crepes import ConformalRegressor
            from crepes.extras import DifficultyEstimator

            residuals = remembered.labels - remembered.logits.dense().numpy().reshape(remembered.labels.shape)
            own = DifficultyEstimator()
            own.fit(X=remembered.keys, residuals=residuals, k=25, scaler=True)
            sigmas = {
                "crepes_ours": (sure.difficulty(calibration), sure.difficulty(test)),
                "crepes_own": (own.apply(calibration.keys), own.apply(test.keys)),
            }
            for name, (there, here) in sigmas.items():
                kind = ConformalRegressor().fit(told - estimator.predict(first), sigmas=there)
                out[name] = kind.predict_int(estimator.predict(second), sigmas=here, confidence=confidence)
    return out


def _estimators(sure: Conformal, calibration: Encoded, test: Encoded) -> tuple:
    """(row numbers, labels) of both, and an estimator that answers these numbers."""
    numbers = np.arange(len(calibration) + len(test))[:, None]
    first, second = np.split(numbers, [len(calibration)])
    return (first, calibration.labels), (second, test.labels), sure.estimator([calibration, test])
