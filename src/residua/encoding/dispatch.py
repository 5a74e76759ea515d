"""Which kind of model it is, and so which way of encoding."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack, overload

from torch import nn

from residua.core import ArrayLike, Encoded, Task
from residua.encoding.data import read_examples
from residua.encoding.estimator import encode_estimator
from residua.encoding.item import OutputChoice, choice_of
from residua.encoding.names import with_names
from residua.encoding.options import Estimator, Items, Known, Splitter, StreamOptions, Texts, Tokenizer, known_by
from residua.encoding.position import checked_position
from residua.encoding.stream import TextStream
from residua.encoding.torch import encode_module
from residua.errors import EncodeError, InputError, ParameterError

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix
    from torch.utils.data import DataLoader, Dataset

_OF_TEXTS = "texts go with a language model and its tokenizer: rs.encode((model, tokenizer), texts)"


# Numbers: an X, several of them by place or by name, or a pair (X, y).
Numbers: TypeAlias = "ArrayLike | tuple[Any, ...] | Mapping[str, ArrayLike]"
# Those; items (x, y); a data frame or a sparse matrix.
Data: TypeAlias = "Numbers | Dataset[Any] | DataLoader[Any] | Items | sparray | spmatrix"


@overload
def encode(
    model: tuple[nn.Module, Tokenizer], data: Texts, labels: None = None, **options: Unpack[StreamOptions]
) -> TextStream: ...


@overload
def encode(
    model: nn.Module | Estimator,
    data: Data,
    labels: ArrayLike | None = None,
    *,
    key: str | Callable[[Any], Any] | None = None,
    batch_size: int | None = None,
    ids: ArrayLike | None = None,
    cv: int | Splitter | Iterable[Any] | None = None,
    task: Task | None = None,
    like: Known | None = None,
    progress: bool | None = None,
    output: OutputChoice = "auto",
    position: str | None = None,
    new_classes: bool = False,
) -> Encoded: ...


def encode(
    model: nn.Module | Estimator | tuple[nn.Module, Tokenizer],
    data: Any,
    labels: ArrayLike | None = None,
    *,
    key: Any = None,
    batch_size: int | None = None,
    ids: ArrayLike | None = None,
    cv: int | Splitter | Iterable[Any] | None = None,
    task: Task | None = None,
    like: Known | None = None,
    progress: bool | None = None,
    output: OutputChoice = "auto",
    position: str | None = None,
    new_classes: bool = False,
    **text_options: Any,
) -> Encoded | TextStream:
    """Run a trained model over data and keep what a memory needs: keys, logits, labels, and whose they are.

    Rows come in dataset order, so that a fresh memory's ids are dataset positions. The model is left exactly as it was,
    also when the call fails or is interrupted. Warns when two reads of the dataset's first item differ, and when nearly
    all residuals are zero (a base that memorised these examples leaves a memory nothing to correct; ResMem, arXiv
    2302.01576, §4.1).

    Parameters
    ----------
    model : torch.nn.Module, fitted scikit-learn estimator, or pair (language model, tokenizer)
        A torch model runs on its own device and under the caller's autocast; it returns (n, L) logits, probabilities
        or percentages (or (n,), (n, m) predictions) as a tensor, as ``.logits``, or in a tuple: the item that its last
        layer gives, else the first. With a transformers language model
        and its tokenizer, `data` are texts, and their tokens are the rows.
    data : Dataset, DataLoader, array X, dict of arrays, pair (X, y), or texts
        For torch: a Dataset, IterableDataset or DataLoader of items ``(x, y)`` (or x alone), a tensor or array. A
        loader is read again without its shuffling and without dropping the last batch. Items may hold as many x as
        ``model.forward`` requires, or be dicts, such as a transformers processor or collator makes: what
        ``model.forward`` has parameters for is given by name, ``labels`` or ``label`` are the labels, and the rest is
        left out. In items ``(x, y, number)`` the number, an integer of each row's own, is its id. For an estimator:
        arrays, sparse matrices or DataFrames. For a language model: a file or folder, or an iterable of texts, of
        (name, text), of paths, or of a dataset's rows; of (source, target) for an encoder-decoder.
    labels : array of shape (n,), optional
        Class indices (an estimator's class names), or targets. Needed only to remember, not to query.
    key : str or callable, optional
        For torch, a module's dotted name for its output (``"layer4.1.bn2"``) or with ``:input`` for its input
        (``"fc:input"``); by default the input of the layer (linear, convolution, or of your own) that gives the
        model's outputs. Spatial maps are averaged to one vector, and sequences read as `position` says. For an
        estimator, a callable from X to (n, d); by default the last hidden layer of an ``MLP*``, else the last step's
        input, standardised. For a language model, see ``TextStream``.
    batch_size : int, optional
        Rows per forward pass; by default the loader's, else 256. Estimators ignore it. Of texts: windows (or pairs),
        16 by default.
    ids : int array of shape (n,), optional
        The examples' names, when their positions will not do.
    cv : int or splitter, optional
        Estimators only: each row's logits come from a clone fitted on the other folds. Keys come from
        `model`, which should be fitted on all rows.
    task : {"classification", "regression", "multi-label"}, optional
        Inferred from the labels. A lone logit s with integer labels, or with ``task="classification"``, is
        the two columns [0, s].
    like : Encoded, TextStream, Memory, reader or Source, optional
        Encode as these were: same key, position, outputs, task, standardising statistics, windows (which an Encoded and
        a Source do not know), and the same model and tokenizer, or ``SourceMismatchError``. Queries of a standardised
        memory need it. Functions given as `key` or `output` are known until it is saved.
    progress : bool, optional
        A bar: always, or never; by default only on a terminal, after a second.
    output : str, int, callable, pair (item, kind) or None, default "auto"
        For torch, what the model's outputs are: "logits", "log-probabilities", "probabilities", "percentages" or
        "predictions"; or which item of what it returns they are (place, name, or a function that picks it); or both, as
        a pair. "auto" judges by all the numbers and the labels. Probabilities become their logarithms (a lone column
        of class 1: log-odds), and ``enc.source.output`` says what they were. None is for an embedder: its output is the
        key (unless `key` names another), and its base knows nothing, equal logits for all classes of the labels.
    position : {"first", "last", "mean", "last of all", "mean of all"}, optional
        For torch, where the key is read of a sequence (n, t, c): at its first or last position, or their mean, leaving
        out what the attention mask says is padding ("of all": not). By default where the model itself reads the
        sequence that its outputs are made of, else the mean over the attention mask.
    new_classes : bool, default False
        For torch: labels may name classes that the model has no output for, which ``memory.add(enc,
        new_classes=True)`` then remembers. ``enc.logits`` have a column for each: the model says 1/L of it.
    **text_options
        Of texts only: ``window``, ``stride``, ``min_context`` and ``logits``, and how texts are read
        (``text_column``, ``glob``, ``errors``; ``source_column``, ``target_column``). See ``TextStream``.

    Returns
    -------
    Encoded or TextStream
        Keys float32 (n, d), logits float32 (n, L), and ``head`` when the key's last layer reproduces the
        logits. Of texts, batches of them, encoded each time that they are iterated over.

    Raises
    ------
    EncodeError, KeyModuleError, DtypeError, InputError, ShapeError, LabelError, NonFiniteError, TaskError,
    ParameterError, SourceMismatchError

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
    if isinstance(model, tuple) and len(model) == 2:
        given = {
            "labels": labels,
            "ids": ids,
            "cv": cv,
            "task": task,
            "output": None if output == "auto" else repr(output),
            "position": position,
            "new_classes": new_classes or None,
        }
        for name, value in given.items():
            if value is not None:
                raise ParameterError(f"{name}= is not for texts: labels are the next tokens, ids the documents")
        return TextStream(*model, data, key=key, batch_size=batch_size, like=like, progress=progress, **text_options)
    if text_options:
        raise ParameterError(f"unexpected {', '.join(f'{name}=' for name in text_options)}; options of {_OF_TEXTS}")
    known = known_by(like)
    source, task = (known.source, task or known.task) if known else (None, task)
    if isinstance(model, nn.Module):
        if _are_texts(data):
            raise InputError(f"the data are texts, and a torch module takes tensors; {_OF_TEXTS}")
        if cv is not None:
            raise ParameterError(f"cv={cv!r} refits clones, and a torch module is not refitted; encode held-out data")
        if key is not None and not isinstance(key, str):
            raise ParameterError(f"key={key!r}; for a torch model, expected a module's dotted name")
        examples = read_examples(data, labels, batch_size)
        how: dict[str, Any] = {
            "ids": ids,
            "task": task,
            "like": source,
            "progress": progress,
            "outputs": known and known.n_outputs,
            "position": checked_position(position),
            "new_classes": new_classes,
        }
        return with_names(encode_module(model, examples, key=key, output=choice_of(output), **how), data)
    if not isinstance(model, type) and all(hasattr(model, name) for name in ("fit", "predict", "get_params")):
        if position is not None:
            raise ParameterError(f"position={position!r} is for torch models; an estimator's rows are no sequences")
        if output != "auto":
            raise ParameterError(f"output={output!r} is for torch models; an estimator says what it predicts")
        if new_classes:
            by_hand = "rs.Encoded(enc.keys, enc.logits, class_indices, source=enc.source, new_classes=True)"
            raise ParameterError(f"new_classes=True is for torch models; encode X without labels, then {by_hand}")
        return encode_estimator(model, data, labels, key=key, ids=ids, cv=cv, task=task, like=source)
    what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
    raise EncodeError(
        f"the model is {what}; expected a torch.nn.Module, a fitted scikit-learn estimator, or a pair (language model, "
        "tokenizer): for any other model, bring its arrays with rs.Encoded(keys, logits, labels)"
    )


def _are_texts(data: Any) -> bool:
    """Whether it is a text or a path, or a list that begins with one, with a pair, or with a row that holds nothing
    but them and numbers."""
    for _ in range(2):
        data = data[0] if isinstance(data, (list, tuple)) and data else data
    values = list(data.values()) if isinstance(data, dict) else [data]
    return any(isinstance(value, (str, os.PathLike)) for value in values) and not any(
        hasattr(value, "shape") or isinstance(value, list) for value in values
    )
