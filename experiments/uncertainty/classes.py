"""Sets of classes and withheld answers on CIFAR-100, of every reader and of the model alone."""

from functools import lru_cache

import numpy as np

import residua as rs
from experiments.cifar100 import networks
from experiments.knnlm.cached_index import CachedIndex
from experiments.uncertainty.rivals import set_sizes
from residua.core import Encoded
from residua.readers import Reader
from residua.uncertainty.selective import risk_coverage

NAMES = {
    "base": "the network alone",
    "temperature": "the network, T tuned",
    "resmem": "ResMem, tuned for log-loss",
    "interpolation": "k-NN interpolation, tuned for log-loss",
    "exponent": "ResMem in the exponent, tuned for log-loss",
    "pooled": "pooled reader, fitted",
}
CONFIDENCE = 0.9
K = 500  # the most neighbours that tune tries
RISKS = (0.1, 0.2, 0.3)
WAYS: dict = {"lac": {}, "aps": {"score": "aps"}, "distance": {"by": "distance"}, "class": {"by": "class"}}
POINTS = 200  # of a curve
FOLDS = [(0, (1, 3)), (0, (3, 1)), (1, (0, 2)), (1, (2, 0))]  # tuned on every second row; calibrated, judged: every 4th


def tuned(name: str, memory: rs.Memory, rows: Encoded) -> Reader:
    """The reader of that name, its settings chosen on `rows`."""
    if name == "base":
        return rs.ResMem(memory, k=0)
    if name == "temperature":
        grid = {"k": [0], "temperature": np.geomspace(0.5, 3, 40)}
        return rs.tune(rs.ResMem(memory), rows, grid, objective="log_loss", progress=False)
    if name == "pooled":
        return rs.Pooled(memory).fit(rows, progress=False)
    readers = {
        "resmem": lambda: rs.ResMem(memory),
        "interpolation": lambda: rs.KNNLM(memory, kernel="exponential"),
        "exponent": lambda: rs.ResMem(memory, space="exponent"),
    }
    return rs.tune(readers[name](), rows, objective="log_loss", progress=False)


@lru_cache(maxsize=1)
def searched(weights: str, data: str, device: str) -> tuple[rs.Memory, Encoded]:
    """The memory of the training images, which searches each query once, and the test rows."""
    remembered, test = networks.encoded(weights, data, 1.0, 0, device)
    memory = rs.Memory(remembered, device=networks.device_of(device))
    memory.index = CachedIndex(memory.index, K)
    return memory, test


def sets(weights: str, data: str, device: str, name: str) -> dict:
    """Of one reader ``lac``, ``aps``, and LAC by ``class`` and by ``distance``: see ``judged``; ``aurc``; the ``curve``
    of risk over coverage; ``withheld``: risk -> [share answered, share of these wrong]; and ``rivals``."""
    memory, test = searched(weights, data, device)
    readers = [tuned(name, memory, test[half::2]) for half in (0, 1)]
    out: dict = {}
    for how, options in {
        "lac": {},
        "aps": {"score": "aps"},
        "distance": {"by": "distance"},
        "class": {"by": "class"},
    }.items():
        rows, answered, rivals = [], {risk: [] for risk in RISKS}, []
        for half, (calibrating, judging) in FOLDS:
            calibration, judged_on = test[calibrating::4], test[judging::4]
            sure = rs.conformal(readers[half], calibration, **options)
            rows.append(sure.evaluate(judged_on, CONFIDENCE).rows)
            if how == "lac":
                for risk in RISKS:
                    said = sure.predict(judged_on, risk)
                    answered[risk].append(np.stack([said >= 0, said != judged_on.labels]))
                rivals.append(set_sizes(sure, calibration, judged_on, CONFIDENCE))
        together = {key: np.concatenate([part[key] for part in rows]) for key in rows[0]}
        out[how] = judged(together)
        if how == "lac":
            # Each half's own order: the two halves' readers are not equally sure.
            curves = [curve_of(rows[i], rows[i + 1]) for i in (0, 2)]
            out["aurc"] = float(np.mean([curve.mean() for curve in curves]))
            at = np.linspace(0, len(curves[0]) - 1, POINTS).astype(int)
            out["curve"] = np.mean([curve[at] for curve in curves], axis=0).tolist()
            out["withheld"] = {str(risk): withheld(np.concatenate(parts, axis=1)) for risk, parts in answered.items()}
            found = [rival for rival in rivals if rival is not None]
            keys = found[0] if found else ()
            out["rivals"] = {key: mean([rival[key] for rival in found]) for key in keys} or None
    return out


def curve_of(one: dict, other: dict) -> np.ndarray:
    """The risk-coverage curve of two parts together."""
    confidence, wrong = (np.concatenate([one[key], other[key]]) for key in ("confidence", "wrong"))
    return risk_coverage(confidence, wrong)


def withheld(rows: np.ndarray) -> list[float]:
    """[share answered, share of these wrong], of bool (2, n): answered, and wrong."""
    answered, wrong = rows
    return [float(answered.mean()), float(wrong[answered].mean()) if answered.any() else 0.0]


def mean(values: list) -> float | None:
    """None where a library is not installed."""
    return None if None in values else float(np.mean(values))


def judged(rows: dict) -> dict:
    """``size``, ``coverage``, ``far`` (coverage of the fifth furthest from the memory), ``worst`` (of one class)."""
    far = rows["distance"] >= np.quantile(rows["distance"], 0.8)
    by_class = [rows["in"][rows["label"] == label].mean() for label in np.unique(rows["label"])]
    means = {"size": rows["size"].mean(), "coverage": rows["in"].mean(), "far": rows["in"][far].mean()}
    return {key: float(value) for key, value in {**means, "worst": min(by_class)}.items()}
