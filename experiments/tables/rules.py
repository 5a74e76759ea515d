"""The rules that are compared: the base and what becomes of it, each with what it says of the test rows."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

import residua as rs
from experiments.tables.data import TABLES, split
from experiments.tabular.bases import bases_may_stop_early, fit
from residua.sklearn import ResMemClassifier, ResMemRegressor
from residua.tuning.evidence import paired_z

FOLDS = 5
RULES = {
    "base": "base",
    "scaled": "base with T out of fold",
    "refitted": "base on all rows",
    "tune": "tune",
    "accuracy": "tune for accuracy",
    "knn": "k-NN interpolation",
    "estimator": "estimator",
}
# What each is compared with. The first five are fitted on the training rows; tuned on the validation rows those whose
# memory is. Refitted base and estimator are fitted on both.
AGAINST = {
    "scaled": ("base",),
    "refitted": ("base",),
    "tune": ("base", "scaled", "refitted"),
    "accuracy": ("base", "scaled", "refitted"),
    "knn": ("base", "scaled", "refitted"),
    "estimator": ("refitted",),
}


def compared(name: str, base: str, seed: int) -> dict:
    """Every rule on one split; see ``measure``."""
    parts, by_class = split(name, seed), TABLES[name].task == "classification"
    both = tuple(np.concatenate(pair) for pair in zip(parts.train, parts.validation))
    model, refitted = (fit(base, TABLES[name].task, *rows, seed) for rows in (parts.train, both))
    X, y = parts.test
    with bases_may_stop_early():
        enc = rs.encode(model, parts.train)
        validation, test = (rs.encode(model, part, like=enc) for part in (parts.validation, parts.test))
        estimator = (ResMemClassifier if by_class else ResMemRegressor)(clone(refitted)).fit(*both)
    memory = rs.Memory(enc)
    readers = {
        "tune": rs.tune(rs.ResMem(memory), validation, progress=False),
        "knn": rs.tune(rs.KNNLM(memory), validation, progress=False),
    }
    used = {rule: reader.evidence_.used for rule, reader in readers.items()}
    used["estimator"] = estimator.evidence_ is not None and estimator.evidence_.used
    if not by_class:
        # The base by the same arithmetic as its readers, so that no memory is no difference.
        said = {"base": rs.ResMem(memory, k=0).predict(test)}
        said |= {"refitted": refitted.predict(X), "estimator": estimator.predict(X)}
        said |= {rule: reader.predict(test) for rule, reader in readers.items()}
        losses = {rule: np.square(numbers - y) / y.var() for rule, numbers in said.items()}
        return _numbers(losses, {rule: 1 - loss for rule, loss in losses.items()}, used)
    readers["accuracy"] = rs.tune(rs.ResMem(memory), validation, objective="accuracy", progress=False)
    used["accuracy"] = readers["accuracy"].evidence_.used
    logits = np.asarray(test.logits, dtype=float)
    proba = {"base": rs.ResMem(memory, k=0).predict_proba(test), "refitted": refitted.predict_proba(X)}
    proba |= {"scaled": np.exp(log_softmax(logits / _temperature(model, parts.train), axis=1))}
    proba |= {rule: reader.predict_proba(test) for rule, reader in readers.items()}
    proba["estimator"] = estimator.predict_proba(X)
    rows, classes = np.arange(len(y)), np.searchsorted(model.classes_, y)
    losses = {rule: -np.log(np.maximum(p[rows, classes].astype(float), 1e-12)) for rule, p in proba.items()}
    return _numbers(losses, {rule: (p.argmax(axis=1) == classes).astype(float) for rule, p in proba.items()}, used)


def used_by_chance(seed: int, n: int = 600, d: int = 5) -> dict:
    """Whether each rule uses the memory of a draw in which a linear base knows all there is to know."""

    def rows(n):
        X = rng.standard_normal((n, d))
        return X, (X[:, 0] + rng.logistic(size=n) > 0).astype(int)

    rng = np.random.default_rng(seed)
    train, validation = rows(n), rows(n // 3)
    model = LogisticRegression().fit(*train)
    reader = rs.ResMem(rs.Memory(enc := rs.encode(model, train)))
    validation = rs.encode(model, validation, like=enc)
    return {
        "tune": rs.tune(reader, validation, progress=False).k > 0,
        "accuracy": rs.tune(reader, validation, objective="accuracy", progress=False).k > 0,
        "knn": rs.tune(rs.KNNLM(reader.memory), validation, progress=False).k > 0,
        "estimator": ResMemClassifier(LogisticRegression()).fit(*train).reader_.k > 0,
    }


def _temperature(model, train) -> float:
    """The base's T: that of the least log-loss out of fold."""
    with bases_may_stop_early():
        enc = rs.encode(model, train, cv=FOLDS)
    logits, rows = np.asarray(enc.logits, dtype=float), np.arange(len(enc))
    return float(
        np.exp(
            minimize_scalar(
                lambda log: -log_softmax(logits / np.exp(log), axis=1)[rows, enc.labels].mean(),
                bounds=np.log([0.25, 20]),
                method="bounded",
            ).x
        )
    )


def _numbers(losses: dict[str, np.ndarray], scores: dict[str, np.ndarray], used: dict[str, bool]) -> dict:
    """In JSON types, from the losses and scores of each row."""
    out = {
        rule: {"score": 100 * float(scores[rule].mean()), "loss": 1000 * float(losses[rule].mean()), "over": {}}
        for rule in losses
    }
    for rule, was in used.items():
        out[rule]["used"] = bool(was)
    for rule, bases in AGAINST.items():
        for base in bases if rule in losses else ():
            if base not in losses:
                continue
            gain, z, _ = paired_z(losses[base] - losses[rule], None)
            more = scores[rule] - scores[base]
            over = {"score": 100 * float(more.mean()), "loss": 1000 * gain, "z": float(np.clip(z, -99, 99))}
            if "scaled" in losses:  # classes
                fixed, broken = int((more > 0).sum()), int((more < 0).sum())
                p = float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0
                over["p"] = p if fixed >= broken else -p
            out[rule]["over"][base] = over
    return out
