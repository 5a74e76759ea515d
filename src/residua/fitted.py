"""The reader of an estimator that was just fitted: settings that are given, and the others from its own rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any

import numpy as np

from residua.core import ArrayLike, Encoded
from residua.encoding.estimator import as_new_rows
from residua.encoding.sklearn import import_sklearn
from residua.memory import Memory
from residua.readers import NeighbourReader, Pooled, ResMem
from residua.readers.judged import check_evidence
from residua.readers.pooled_fit import pooled_by_folds
from residua.tuning.simulate import simulated

log: logging.Logger = logging.getLogger(__name__)

FOLDS = 5
LEAST_ROWS = 200
LEAST_GROUPS = 10
LEAST_OF_CLASS = 10  # in a fold
MOST_ROWS = 8000  # that are answered: more cost time and change no setting
PENALTY = 10.0  # over the rows: of the squared distance of a pooled reader's coefficients from the model alone
OWN = ("k", "sigma", "temperature", "space")  # whoever gives one of these asks for ResMem
BOTH = ("kernel", "class_weight")


def fitted_reader(
    estimator: Any,
    memory: Memory,
    enc: Encoded,
    X: Any,
    y: np.ndarray,
    *,
    params: Mapping[str, Any],
    evidence: float | None,
    key: Any,
    cv: Any,
    fit_params: Mapping[str, Any],
    groups: ArrayLike | None,
) -> NeighbourReader:
    """The reader of the `memory` of `enc`, the rows (X, y) that `estimator` was fitted on, or that it was frozen for.

    `params` are ResMem's; where all of ``OWN`` are None the reader is ``Pooled``, with coefficients fitted to rows that
    are answered as new ones: by clones that are fitted on the other folds; or, of a torch module and of what holds a
    ``FrozenEstimator``, without each row itself. So are those of ResMem chosen that are None. Of too few rows nothing
    is learned: the model alone, unless k or sigma is given. Rows of a group never answer for each other.
    """
    check_evidence(evidence)
    given: dict[str, Any] = {name: value for name, value in params.items() if value is not None}
    if memory.storage.name == "top-m":  # which was made for one temperature
        given.setdefault("temperature", 1.0)
    pools = all(params.get(name) is None for name in OWN)
    alone: dict[str, Any] = {} if "sigma" in given else {"k": 0}
    reader = (Pooled if pools else ResMem)(memory, **alone | {n: v for n, v in given.items() if not pools or n in BOTH})
    settled = {"k", "sigma"} <= set(given) and (memory.task == "regression" or "temperature" in given)
    if given.get("k") == 0 or (settled and evidence is None):
        return reader
    if few := _too_few(enc, groups):
        log.info("%s to choose settings by: %s", few, "as given" if reader.k else "the model alone is used")
        return reader
    refitted = _is_refitted(estimator)
    weights = memory.source.class_weight if reader.class_weight is None and memory.source else reader.class_weight
    about: dict[str, Any] = {"kernel": reader.kernel, "class_weight": weights}
    if refitted:
        fresh: dict[str, Any] = {"fit_params": fit_params, "groups": groups}
        parts = as_new_rows(estimator, X, y, enc, _folds(enc, groups), key=key, cv=cv, **fresh)
        folds = [(Memory(seen, normalise=memory.schema.normalise), new) for seen, new in parts]
    else:
        own = copy(enc)
        own.ids = memory.ids if groups is None else np.unique(groups, return_inverse=True)[1]
        alike = memory if groups is None else Memory(own, normalise=memory.schema.normalise)
        folds = [(alike, own[new]) for _, new in _folds(enc, groups)]
    if isinstance(reader, Pooled):
        asked = [(Pooled(there, **about), rows) for there, rows in folds]
        return pooled_by_folds(reader, asked, evidence, PENALTY / len(enc))
    about |= {"k": 1, "sigma": 1.0, "space": reader.space}
    chosen = {name: given[name] for name in ("k", "sigma", "temperature") if name in given}
    asked = [(ResMem(there, **about), rows) for there, rows in folds]
    return simulated(reader, asked, chosen, evidence, in_sample=not refitted)


def _is_refitted(estimator: Any) -> bool:
    """Whether a clone of it learns anew: no torch module, and nothing frozen inside."""
    if not hasattr(estimator, "get_params"):
        return False
    inside = [estimator, *estimator.get_params().values()]
    return all(type(one).__name__ != "FrozenEstimator" for one in inside)


def _too_few(enc: Encoded, groups: ArrayLike | None) -> str | None:
    """What there is too little of; None where it is enough."""
    if len(enc) < LEAST_ROWS:
        return f"{len(enc)} rows are too few (under {LEAST_ROWS})"
    if groups is not None and (count := len(np.unique(groups))) < LEAST_GROUPS:
        return f"{count} groups are too few (under {LEAST_GROUPS})"
    if (enc.keys != enc.keys[0]).any(axis=1).sum() < LEAST_OF_CLASS:
        return "rows with another key than the first are too few"
    if enc.task == "regression" or enc.labels is None:
        return None
    classes, counts = np.unique(enc.labels, return_counts=True)
    if counts.min() < FOLDS * LEAST_OF_CLASS:
        rarest = classes[counts.argmin()]
        return f"class {rarest} has {counts.min()} rows, too few (under {FOLDS * LEAST_OF_CLASS})"
    return None


def _folds(enc: Encoded, groups: ArrayLike | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers, of each fold those that are remembered and (a sample of) those that are asked."""
    model_selection = import_sklearn().model_selection
    kind = ("" if enc.task == "regression" else "Stratified") + ("KFold" if groups is None else "GroupKFold")
    splitter = getattr(model_selection, kind)(FOLDS, shuffle=True, random_state=0)
    rng, most = np.random.default_rng(0), MOST_ROWS // FOLDS
    for seen, new in splitter.split(np.zeros(len(enc)), enc.labels, groups):
        yield seen, np.sort(rng.permutation(new)[:most])
