"""MLflow's pyfunc flavour of a reader and its memory: a plain folder and this module's name, and nothing pickled.

What is served takes what a model said of new rows, its keys and logits, and gives the answers with the memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import residua
from residua.core import Encoded
from residua.errors import InputError, MemoryFileError, MissingDependencyError, ParameterError
from residua.readers import Reader, load

try:
    # Not by ``import mlflow``, which a type checker takes for this very file where MLflow is not installed.
    mlflow: Any = import_module("mlflow")
except ImportError as error:
    raise MissingDependencyError(
        'residua.integrations.mlflow needs mlflow; install it with: pip install "residua[mlflow]"'
    ) from error

FLAVOUR = "python_function"
METHODS = ("predict", "predict_proba", "scores")


def save_model(reader: Reader, path: str | os.PathLike[str], **options: Any) -> None:
    """Save a reader and its memory as an MLflow model, in a new folder.

    Parameters
    ----------
    reader : Reader
    path : path
    **options
        Of ``mlflow.pyfunc.save_model``, such as ``pip_requirements`` (by default this residua), ``metadata`` and
        ``signature`` (by default tensors ``keys`` and ``logits``, and the parameter ``method``).

    Raises
    ------
    ParameterError, StorageError

    Examples
    --------
    >>> import numpy as np, mlflow, residua as rs, residua.integrations.mlflow as flavour, tempfile
    >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    >>> folder = tempfile.mkdtemp() + "/model"
    >>> flavour.save_model(rs.ResMem(memory, k=1), folder)
    >>> served = mlflow.pyfunc.load_model(folder)
    >>> served.predict({"keys": np.eye(3, dtype="float32"), "logits": np.zeros((3, 2), "float32")}).tolist()
    [0, 1, 1]
    """
    with _saved(reader, options) as given:
        mlflow.pyfunc.save_model(os.fspath(path), **given)


def log_model(reader: Reader, *args: Any, **options: Any) -> Any:
    """Log a reader and its memory as a model of the current run; what ``mlflow.pyfunc.log_model`` returns.

    Arguments are those of ``mlflow.pyfunc.log_model``, such as ``name`` (``artifact_path`` before MLflow 3) and
    ``registered_model_name``; the others are as for ``save_model``. Measures are logged by
    ``mlflow.log_metrics(result.metrics())``.
    """
    with _saved(reader, options) as given:
        return mlflow.pyfunc.log_model(*args, **given)


def load_model(model_uri: str, device: str = "cpu", *, trust: bool = False, dst_path: str | None = None) -> Reader:
    """The reader that ``save_model`` or ``log_model`` wrote, with its memory, as ``rs.load`` gives it.

    ``MemoryFileError`` where the model is none of these. `trust` is as for ``rs.load``.
    """
    path = Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=dst_path))
    flavour = mlflow.models.Model.load(str(path)).flavors.get(FLAVOUR, {})
    if flavour.get("loader_module") != __name__:
        made = flavour.get("loader_module", "no pyfunc loader")
        raise MemoryFileError(f"{model_uri} is of {made}; expected what {__name__}.save_model wrote")
    folder = (path / flavour["data"]).resolve()
    if not folder.is_relative_to(path.resolve()):
        raise MemoryFileError(f"{model_uri} names a folder {flavour['data']!r} that is not its own")
    return load(folder, device, trust=trust)


def _load_pyfunc(path: str) -> _Served:
    """What MLflow calls to load a model of this flavour."""
    return _Served(load(path))


class _Served:
    """A reader as MLflow asks it."""

    def __init__(self, reader: Reader):
        self.reader = reader

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> np.ndarray:
        """Classes, or numbers, of rows of keys and logits; other methods of the reader by the parameter ``method``."""
        method = (params or {}).get("method", METHODS[0])
        if method not in METHODS:
            raise ParameterError(f"method={method!r}; expected one of {', '.join(METHODS)}")
        return getattr(self.reader, method)(Encoded(_rows(model_input, "keys"), _rows(model_input, "logits")))


def _rows(given: Any, name: str) -> np.ndarray:
    """A table by its name, in a dict of arrays or a data frame whose cells are lists."""
    try:
        found = given[name]
    except (KeyError, TypeError, IndexError) as error:
        there = list(given) if hasattr(given, "keys") else f"a {type(given).__name__}"
        raise InputError(f"the input has {there}; expected 'keys' (n, d) and 'logits' (n, L)") from error
    return np.stack([np.asarray(row) for row in found]) if len(found) else np.asarray(found)


@contextmanager
def _saved(reader: Reader, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The arguments of MLflow's own verbs, while the reader lies in a folder for them to copy."""
    for name in ("python_model", "loader_module", "data_path"):
        if name in options:
            raise ParameterError(f"{name}= is what this flavour decides itself: a reader is no Python model to pickle")
    tensors = {"keys": reader.memory.dim, "logits": reader.memory.n_outputs}
    inputs = mlflow.types.Schema(
        [mlflow.types.TensorSpec(np.dtype(np.float32), (-1, width), name) for name, width in tensors.items()]
    )
    params = mlflow.types.ParamSchema([mlflow.types.ParamSpec("method", "string", METHODS[0])])
    usual = {
        "signature": mlflow.models.ModelSignature(inputs=inputs, params=params),
        "pip_requirements": [f"residua=={residua.__version__}"],
    }
    with tempfile.TemporaryDirectory() as parent:
        folder = os.path.join(parent, "memory")
        reader.save(folder)
        yield {**usual, **options, "loader_module": __name__, "data_path": folder}
