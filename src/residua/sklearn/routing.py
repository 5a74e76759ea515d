"""What fit is given beside rows and targets, and who gets it: the base, the splitter, the memory."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_array, has_fit_parameter

from residua.caution import warn
from residua.core import ArrayLike
from residua.errors import ParameterError, ShapeError


class Routed(NamedTuple):
    """Each one's share."""

    base: dict[str, Any]  # for the base's fit
    groups: ArrayLike | None  # (n,), for the splitter
    weight: np.ndarray | None  # (n,), of the remembered rows


def routed(
    owner: BaseEstimator,
    estimator: Any,
    rows: int,
    sample_weight: ArrayLike | None,
    groups: ArrayLike | None,
    fit_params: Mapping[str, Any],
    by_class: np.ndarray | None = None,
) -> Routed:
    """The shares of what the `owner` of a base `estimator` got: as the base asks for it, where scikit-learn's metadata
    routing is enabled; else a weight goes to the step that predicts, and all else to the base as it is.

    What rows weigh by their class, `by_class` (n,), multiplies the base's weights where it takes any; it is no part of
    the memory's, whose reader knows of classes.
    """
    weight = None if sample_weight is None else _weights(sample_weight, rows)
    if groups is not None and len(np.asarray(groups)) != rows:
        raise ShapeError(f"groups have {len(np.asarray(groups))} entries for {rows} rows; expected one per row")
    if isinstance(estimator, torch.nn.Module):
        if fit_params:
            raise ParameterError(
                f"fit got {sorted(fit_params)}, and a torch module is not fitted again; leave them out"
            )
        return Routed({}, groups, weight)
    if _routing_enabled():
        given = {"sample_weight": weight, "groups": groups, **fit_params}
        shares = process_routing(owner, "fit", **{name: value for name, value in given.items() if value is not None})
        base = dict(shares["estimator"]["fit"])
        return Routed(_times(base, _place_of_weight(estimator), by_class), groups, weight)
    base, place = dict(fit_params), _place_of_weight(estimator)
    if weight is None and place is not None and base.get(place) is not None:
        weight = _weights(base[place], rows)
    elif weight is not None and place is not None:
        base[place] = weight
    elif weight is not None and not _is_frozen(estimator):
        warn(
            f"{type(estimator).__name__} takes no sample_weight: it is fitted with all rows alike, and the weights are "
            "those of the remembered rows alone"
        )
    return Routed(_times(base, place, by_class), groups, weight)


def _times(base: dict[str, Any], place: str | None, by_class: np.ndarray | None) -> dict[str, Any]:
    return base if by_class is None or place is None else base | {place: by_class * np.asarray(base.get(place, 1.0))}


def router(owner: Any) -> MetadataRouter:
    """Who takes part in the `owner`'s fit, for scikit-learn's metadata routing."""
    fit = MethodMapping().add(caller="fit", callee="fit")
    found = MetadataRouter(owner=type(owner).__name__).add_self_request(owner)
    return (
        found
        if isinstance(owner.estimator, torch.nn.Module)
        else found.add(estimator=owner.estimator, method_mapping=fit)
    )


def _routing_enabled() -> bool:
    return bool(get_config()["enable_metadata_routing"])


def _weights(given: ArrayLike, rows: int) -> np.ndarray:
    weight = np.asarray(check_array(given, ensure_2d=False, input_name="sample_weight"), dtype=np.float64)
    if weight.shape != (rows,):
        raise ShapeError(f"sample_weight.shape == {weight.shape}, expected ({rows},): one weight per row")
    return weight


def _is_frozen(estimator: Any) -> bool:
    return type(estimator).__name__ == "FrozenEstimator"


def _place_of_weight(estimator: Any) -> str | None:
    """What the weight of rows is called in the base's ``fit``; None where it takes none."""
    if _is_frozen(estimator):
        return None
    if getattr(estimator, "steps", None):
        name, last = estimator.steps[-1]
        inner = None if last in (None, "passthrough") else _place_of_weight(last)
        return None if inner is None else f"{name}__{inner}"
    if has_fit_parameter(estimator, "sample_weight"):
        return "sample_weight"
    # A search, or a target's transformer, hands everything on to what it holds.
    held = getattr(estimator, "estimator", getattr(estimator, "regressor", None))
    takes = inspect.signature(estimator.fit).parameters.values()
    return _place_of_weight(held) if held is not None and any(p.kind is p.VAR_KEYWORD for p in takes) else None
