"""Which kind of model it is, told without importing a framework."""

from __future__ import annotations

import sys

from residua.core import Encoded, Source
from residua.errors import EncodeError, ParameterError


def encode(
    model,
    data,
    labels=None,
    *,
    key=None,
    batch_size: int | None = None,
    ids=None,
    cv=None,
    task: str | None = None,
    like=None,
    progress: bool = True,
) -> Encoded:
    """Run a trained model over data and keep what a memory needs: keys, logits, labels, and whose they are.

    Rows come in dataset order, so that a fresh memory's ids are dataset positions. The model is left exactly
    as it was: evaluation mode, inference mode and hooks end with the call, also when it fails or is
    interrupted.

    Parameters
    ----------
    model : torch.nn.Module or fitted scikit-learn estimator
        A torch model runs on the device its parameters are on and under the caller's autocast; it returns (n,
        L) logits (or (n,), (n, m) predictions) as a tensor, as ``.logits``, or as the first item of a tuple.
    data : Dataset, DataLoader, array X, or pair (X, y)
        For torch: a Dataset, IterableDataset or DataLoader of items ``(x, y)`` (or x alone), a tensor or
        array. A loader is read again without its shuffling and without dropping the last batch: same batch
        size, collate function and workers. For an estimator: arrays, sparse matrices or DataFrames.
    labels : array of shape (n,), optional
        Class indices (an estimator's class names), or targets. Needed only to remember, not to query.
    key : str or callable, optional
        For torch, a module's dotted name for its output (``"layer4.1.bn2"``) or with ``:input`` for its input
        (``"fc:input"``); by default the input of the last ``nn.Linear`` that runs. Spatial maps and sequences
        are averaged to one vector. For an estimator, a callable from X to (n, d); by default the last hidden
        layer of an ``MLP*``, else the last step's input, standardised.
    batch_size : int, optional
        Rows per forward pass; by default the loader's, else 256. Estimators ignore it.
    ids : int array of shape (n,), optional
        The examples' names, when their positions will not do.
    cv : int or splitter, optional
        Estimators only: each row's logits come from a clone fitted on the other folds. Keys come from
        `model`, which should be fitted on all rows.
    task : {"classification", "regression"}, optional
        Inferred from the labels. A lone logit s with integer labels, or with ``task="classification"``, is
        the two columns [0, s].
    like : Encoded, Memory, reader or Source, optional
        Encode as these were: same key, same task, same standardising statistics, and the same model, or
        ``SourceMismatchError``. Queries of a standardised memory need it.
    progress : bool, default True
        Show a bar when encoding takes longer than a second.

    Returns
    -------
    Encoded
        Keys float32 (n, d), logits float32 (n, L), and ``head`` when the key's last layer reproduces the
        logits.

    Raises
    ------
    EncodeError
        The model is not one of these kinds, is not fitted, or its output is not one row per example.
    KeyModuleError
        The key module does not exist, or does not run exactly once per forward pass.
    DtypeError
        Inputs whose dtype the model's parameters do not take.
    InputError, ShapeError, LabelError, NonFiniteError, TaskError, ParameterError
        Data, labels or options that do not fit.
    SourceMismatchError
        `like` was made by another model or layer.

    Warns
    -----
    UserWarning
        When two reads of the dataset's first item differ, and when nearly all residuals are zero (a base that
        memorised these examples leaves a memory nothing to correct; ResMem, arXiv 2302.01576, §4.1).

    Examples
    --------
    >>> import torch, residua as rs
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> enc = rs.encode(model, (torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])))
    >>> enc, enc.source.key
    (Encoded(6 rows, keys of 8, 3 outputs, classification), '2:input')
    >>> rs.encode(model, torch.randn(2, 4), key="1").keys.shape
    (2, 8)
    """
    source, task = _as_in(like, task)
    if _is_torch_module(model):
        if cv is not None:
            raise ParameterError(f"cv={cv!r} refits clones, and a torch module is not refitted; encode held-out data")
        if key is not None and not isinstance(key, str):
            raise ParameterError(f"key={key!r}; for a torch model, expected a module's dotted name")
        from residua.encoding.data import read_examples
        from residua.encoding.torch import encode_module

        examples = read_examples(data, labels, batch_size)
        return encode_module(model, examples, key=key, ids=ids, task=task, like=source, progress=progress)
    if not isinstance(model, type) and all(hasattr(model, name) for name in ("fit", "predict", "get_params")):
        from residua.encoding.estimator import encode_estimator

        return encode_estimator(model, data, labels, key=key, ids=ids, cv=cv, task=task, like=source)
    what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
    raise EncodeError(
        f"the model is {what}; expected a torch.nn.Module or a fitted scikit-learn estimator: for any other "
        "model, bring its arrays with rs.Encoded(keys, logits, labels)"
    )


def _is_torch_module(model) -> bool:
    torch = sys.modules.get("torch")  # a module cannot exist before torch was imported
    return torch is not None and isinstance(model, torch.nn.Module)


def _as_in(like, task: str | None) -> tuple[Source | None, str | None]:
    """The source and task that `like` has: an Encoded, a Memory, a reader's memory, or a Source."""
    if like is None:
        return None, task
    holder = like if hasattr(like, "source") or isinstance(like, Source) else getattr(like, "memory", None)
    source = holder if isinstance(holder, Source) else getattr(holder, "source", None)
    if not isinstance(source, Source):
        raise ParameterError(
            f"like= is a {type(like).__name__} that does not know its model; expected what rs.encode "
            "returned, or a memory of it"
        )
    return source, task or getattr(holder, "task", None)
