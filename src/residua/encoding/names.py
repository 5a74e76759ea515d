"""What a dataset calls its classes and its examples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Subset

from residua.core import Encoded

_LABELS = ("label", "labels")


def with_names(enc: Encoded, data: Any) -> Encoded:
    """`enc`, which knows what `data` calls its classes and examples, where there are as many names as these.

    ``classes`` and ``samples`` (pairs that begin with a path) are torchvision's names for them, ``features`` that of
    Hugging Face's datasets.
    """
    rows: np.ndarray | None = None
    while isinstance(data, (DataLoader, Subset)):
        if isinstance(data, Subset):
            chosen = np.asarray(data.indices)
            rows = chosen if rows is None else chosen[rows]
        data = data.dataset
    classes = _classes(data)
    if classes is not None and len(classes) == enc.n_outputs:
        enc.classes = classes
    names = _names(data)
    if names is not None:
        names = names if rows is None else names[rows] if not len(rows) or rows.max() < len(names) else names[:0]
        enc.names = names if len(names) == len(enc) else None
    return enc


def _classes(data: Any) -> tuple[str, ...] | None:
    classes = getattr(data, "classes", None)
    if classes is None and isinstance(features := getattr(data, "features", None), Mapping):
        named = {name: feature.names for name, feature in features.items() if hasattr(feature, "names")}
        own = [name for name in _LABELS if name in named] or list(named)
        classes = named[own[0]] if own and (own[0] in _LABELS or len(own) == 1) else None
    ok = isinstance(classes, Sequence) and not isinstance(classes, str) and all(isinstance(one, str) for one in classes)
    return tuple(map(str, classes)) if ok and classes is not None else None


def _names(data: Any) -> np.ndarray | None:
    samples = getattr(data, "samples", None)
    if not isinstance(samples, (list, tuple)) or not samples:
        return None
    first = [one[0] for one in samples if isinstance(one, (tuple, list)) and one]
    paths = [os.fspath(path) for path in first if isinstance(path, (str, os.PathLike))]
    return np.array(paths) if len(paths) == len(samples) else None
