"""Whose keys these are: a model boiled down to a few numbers of each tensor, and what its modules are."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from residua.caution import warn
from residua.core import Source
from residua.core.source import ADAPTED, ENTRIES, bare

# What a fitted estimator may hold beside what it learned.
_INCIDENTAL = ("time", "cv_results_", "loss_curve_", "random_state", "random_generator")


# Module classes that do nothing in evaluation mode, scalars that play no part there, and buffers that count steps.
_IDLE = (
    "Dropout",
    "DropPath",
    "StochasticDepth",
    "Container",
    "Sequential",
    "ModuleList",
    "ModuleDict",
    "DataParallel",
)
_IDLE_SCALARS = ("training", "inplace", "momentum", "track_running_stats")
_COUNTERS = ("num_batches_tracked", "n_averaged", "count", "counter", "step", "steps")
_COARSER = {
    torch.float64: (torch.float32, torch.float16, torch.bfloat16),
    torch.float32: (torch.float16, torch.bfloat16),
    torch.float16: (torch.bfloat16,),
    torch.bfloat16: (torch.float16,),
}


def source_of_module(model: nn.Module, key: str, extra: dict[str, str] | None = None, *, norms: bool = True) -> Source:
    """The fingerprint of a torch model: a signed projection of every parameter and floating buffer, and classes and
    scalars of its modules.

    `extra` is what else must be equal where two sources meet, such as a tokenizer's hash. Without `norms`, which only
    folders of 0.1 and 0.2 need, at most 65 536 entries of each tensor are read.
    """
    tensors = {bare(name): tensor.detach() for name, tensor in _told_apart_by(model)}
    projected = {name: _projections(tensor) for name, tensor in tensors.items()}
    found = dict.fromkeys(tensors, math.nan)
    if norms:
        measured = {name: _norm(tensor) for name, tensor in tensors.items()}
        found |= _numbers(measured)
    flat = {(name, dtype): number for name, by_dtype in projected.items() for dtype, number in by_dtype.items()}
    projections: dict[str, dict[str, float]] = {name: {} for name in tensors}
    for (name, dtype), number in _numbers(flat).items():
        projections[name][dtype] = number
    dtypes: Counter[str] = Counter()
    for tensor in tensors.values():
        dtypes[_name(tensor.dtype)] += tensor.numel()
    dtype = dtypes.most_common(1)[0][0] if dtypes else "float32"
    parameters = {name: (list(tensor.shape), found[name]) for name, tensor in tensors.items()}
    structure = _structure(model)
    return Source(
        type(model).__name__, key, dtype, parameters, dict(extra or {}), projections=projections, structure=structure
    )


def warn_if_unknown(source: Source, saved: bool = False) -> None:
    """``UserWarning`` when nothing of a model could be told from another's; `saved`: it is known by what it saves."""
    if source.probe is None and not source.parameters and not saved:
        warn(
            f"this {source.name} shows no numbers that it learned, and does not answer made-up inputs: a memory of it "
            "cannot tell it from another model; give them only to the one that made them"
        )


def _told_apart_by(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    named = (*model.named_parameters(), *model.named_buffers())
    for name, tensor in (part for one in named for part in _parts(*one)):
        if tensor.is_floating_point() and not tensor.is_meta and name.rpartition(".")[2] not in _COUNTERS:
            yield name, tensor


def is_made_of_parts(tensor: Tensor) -> bool:
    """Whether a tensor is quantised by torchao or such, and hardly anything can be computed of it."""
    return hasattr(tensor, "__tensor_flatten__")


def _parts(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A tensor, or those that a quantised one is made of, such as its scales."""
    if not is_made_of_parts(tensor):
        yield name, tensor
        return
    quantised: Any = tensor
    for part in quantised.__tensor_flatten__()[0]:
        yield from _parts(f"{name}.{part}", getattr(tensor, part))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _norm(tensor: Tensor) -> Tensor:
    # MPS has no float64.
    return torch.linalg.vector_norm(tensor.cpu() if tensor.device.type == "mps" else tensor, dtype=torch.float64)


def _projections(tensor: Tensor) -> dict[str, Tensor]:
    """What the tensor's entries, as they are and rounded to each coarser dtype, sum to with fixed random weights."""
    entries, directions = _entries(tensor.numel())
    flat = tensor.reshape(-1)
    if entries is not None:
        flat = flat[entries.to(flat.device)]
    if flat.device.type == "mps":
        flat = flat.cpu()
    directions = directions.to(flat.device)
    dtypes = (flat.dtype, *_COARSER.get(flat.dtype, ()))
    return {_name(dtype): flat.to(dtype).double().nan_to_num(0, 0, 0) @ directions for dtype in dtypes}


def _numbers(measured: dict[Any, Tensor]) -> dict[Any, float]:
    """Numbers stay where their tensors are until now: one transfer per device instead of one per tensor."""
    found: dict[Any, float] = {}
    for device in {value.device for value in measured.values()}:
        there = [name for name, value in measured.items() if value.device == device]
        found.update(zip(there, torch.stack([measured[name] for name in there]).tolist()))
    return found


@lru_cache(maxsize=32)
def _entries(size: int) -> tuple[Tensor | None, Tensor]:
    """Which entries of a tensor of `size` numbers are projected (None for all), and their weights."""
    if size <= ENTRIES:
        return None, torch.from_numpy(weights(0, size))
    entries = (scrambled(0, ENTRIES) % np.uint64(size)).astype(np.int64)
    entries.sort()
    return torch.from_numpy(entries), torch.from_numpy(weights(0, ENTRIES))


def weights(start: int, size: int) -> np.ndarray:
    """Numbers `start` to `start + size` of one fixed pseudo-random sequence, uniform over [-1.7, 1.7]: variance 1."""
    return (scrambled(start, size) * 2.0**-63 - 1.0) * math.sqrt(3)


def scrambled(start: int, size: int) -> np.ndarray:
    """SplitMix64 of `start` to `start + size`: the same bits on every platform and in every version."""
    x = (np.arange(start, start + size, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _structure(model: nn.Module) -> dict[str, str | float]:
    """Classes and scalars of torch's own modules, which state_dict does not hold: a ReLU or a Tanh, BatchNorm's eps.

    Of other modules only what has no tensor is named: a library renames its layers, and its activations hardly.
    """
    found: dict[str, str | float] = {}
    if any(ADAPTED in name.split(".") for name, _ in model.named_parameters()):
        found[ADAPTED] = "adapted"
    for path, module in model.named_modules():
        kind, own = type(module).__name__, type(module).__module__.startswith("torch.nn.")
        # Wrappers repeat what they wrap; a module that has children is known by these.
        if any(idle in kind for idle in _IDLE) or not (own or _empty(module)):
            continue
        name = bare(path)
        if not any(module.children()):
            found[name] = "BatchNorm" if "BatchNorm" in kind else kind  # SyncBatchNorm is the same in evaluation mode
        for scalar, value in vars(module).items():
            if not scalar.startswith("_") and scalar not in _IDLE_SCALARS and isinstance(value, (int, float, str)):
                found[f"{name}.{scalar}"] = value
    return found


def _empty(module: nn.Module) -> bool:
    return next(module.parameters(), next(module.buffers(), None)) is None and not any(module.children())


@dataclass
class _Found:
    """What a walk through an estimator came by, each by its path."""

    sums: dict[str, tuple[int, float, float]] = field(default_factory=dict)  # size, sum of squares, projection
    modules: dict[str, Source] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # of models that are known by what they save
    seen: dict[int, object] = field(default_factory=dict)


def source_of_estimator(estimator: Any, key: str, statistics: dict[str, list[Any]]) -> Source:
    """The fingerprint of a fitted scikit-learn estimator: the numbers in its learned attributes. What one attribute
    holds in all steps, members of ensembles and trees is one entry, so a forest's is as short as a tree's. XGBoost's,
    LightGBM's and CatBoost's are known by what they save, skorch's by their module."""
    found = _Found()
    _walk(estimator, "", found)
    extra = {"estimator": type(estimator).__name__}
    if hasattr(estimator, "n_features_in_"):
        # CatBoost forgets the number when it is pickled, and not the names.
        extra["features"] = str(estimator.n_features_in_ or len(getattr(estimator, "feature_names_", ())))
    if hasattr(estimator, "classes_"):
        classes = estimator.classes_
        # Of several targets a list, of each target's own.
        names = (
            [np.asarray(some).tolist() for some in classes]
            if isinstance(classes, list)
            else np.asarray(classes).tolist()
        )
        extra["classes"] = hashlib.sha256(repr(names).encode()).hexdigest()[:16]
    parameters = {name: ([int(count)], math.sqrt(total)) for name, (count, total, _) in found.sums.items()}
    projections = {name: {"float64": projection} for name, (_, _, projection) in found.sums.items()}
    structure: dict[str, str | float] = dict(found.digests)
    for path, source in found.modules.items():
        parameters |= {f"{path}.{name}": entry for name, entry in source.parameters.items()}
        projections |= {f"{path}.{name}": entry for name, entry in source.projections.items()}
        structure |= {f"{path}.{name}": entry for name, entry in source.structure.items()}
    known = {"projections": projections, "structure": structure}
    return Source(type(estimator).__name__, key, "float64", parameters, extra, statistics, **known)


def _saved(value: Any) -> bytes | None:
    """What a model saves of itself by its public method, without what its training was told; None for others."""
    fitted = getattr(value, "__sklearn_is_fitted__", getattr(value, "is_fitted", None))
    if callable(fitted) and not fitted():  # such as the one that a search was given
        return None
    if hasattr(value, "get_booster"):  # XGBoost's estimators
        value = value.get_booster()
    elif hasattr(value, "booster_"):  # LightGBM's
        value = value.booster_
    if hasattr(value, "save_raw"):  # xgboost.Booster
        return bytes(value.save_raw("json"))
    if hasattr(value, "model_to_string"):  # lightgbm.Booster
        trees, _, rest = value.model_to_string().partition("\nparameters:")
        return (trees + rest.partition("end of parameters")[2]).encode()
    if type(value).__module__.partition(".")[0] == "catboost" and hasattr(value, "save_model"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.json"
            value.save_model(str(path), format="json")
            saved = json.loads(path.read_text())
        saved.pop("model_info", None)  # when it was trained
        return json.dumps(saved, sort_keys=True).encode()
    return None


def _walk(value: Any, path: str, found: _Found) -> None:
    if isinstance(value, (int, float)):
        value = np.asarray([value], dtype=np.float64)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        count, total, projection = found.sums.get(path, (0, 0.0, 0.0))
        flat = value.astype(np.float64, copy=False).ravel()
        flat = np.where(np.isfinite(flat), flat, 0.0)  # a tree's bins end in infinity
        projection += float(flat @ weights(count, flat.size))
        found.sums[path] = (count + value.size, total + float(flat @ flat), projection)
        return
    if isinstance(value, np.ndarray) and value.dtype.names:
        for name in value.dtype.names:
            _walk(value[name], f"{path}.{name}", found)
        return
    if value is None or isinstance(value, (str, bytes, complex, type)) or id(value) in found.seen:
        return
    found.seen[id(value)] = value  # kept alive, or another object could come to have its id
    if isinstance(value, nn.Module):
        found.modules[path] = source_of_module(value, "")
        return
    module = getattr(value, "module_", None)
    if isinstance(module, nn.Module):  # skorch: the rest tells how it was trained
        _walk(module, f"{path}.module_" if path else "module_", found)
        return
    if (saved := _saved(value)) is not None:
        name = f"{path} as saved" if path else "the model as saved"
        found.digests[name] = hashlib.sha256(found.digests.get(name, "").encode() + saved).hexdigest()[:16]
        return
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if isinstance(value, (list, tuple)):
        for item in value:
            _walk(item, path, found)
    elif isinstance(value, dict):
        for name, item in value.items():
            _walk(item, f"{path}.{name}", found)
    elif hasattr(value, "tocsr"):
        _walk(value.tocsr().data, path, found)
    else:
        _walk_object(value, path, found)


def _walk_object(value: Any, path: str, found: _Found) -> None:
    if hasattr(value, "get_params"):
        # Learned attributes only; of the constructor's arguments, those that hold estimators.
        given = set(value.get_params(deep=False))
        state = {
            name: item
            for name, item in vars(value).items()
            if (name not in given and (name.endswith("_") or name.startswith("_")))
            or hasattr(item, "get_params")
            or name in ("steps", "transformers")
        }
    else:
        state = getattr(value, "__dict__", None)
        if not state:  # trees and other compiled objects show their arrays only through the copy protocol
            try:
                state = value.__getstate__()
            except TypeError:  # one that cannot be copied has nothing to show
                return
            if isinstance(state, tuple):  # a neighbours' tree counts in it how often it was asked
                state = [part for part in state if not isinstance(part, (int, float))]
            state = state if isinstance(state, dict) else {"state": state}
    for name, item in state.items():
        if not name.startswith("__") and not any(word in name for word in _INCIDENTAL):
            _walk(item, f"{path}.{name}" if path else name, found)
