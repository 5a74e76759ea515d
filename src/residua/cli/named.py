"""What ``module:name`` and ``.npz`` arguments stand for."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import zipfile
from functools import reduce
from pathlib import Path

from residua.errors import InputError, MemoryFileError


def named(spec: str):
    """The object that `spec`, ``module:name``, names; a function or class is called without arguments.

    The module is looked for in the current folder first. The name may be dotted.

    Raises
    ------
    InputError
        When `spec` has another form, or there is no such module or name.

    Examples
    --------
    >>> named("collections:OrderedDict")
    OrderedDict()
    >>> named("math:pi")
    3.141592653589793
    """
    module, _, name = spec.partition(":")
    if not (module and name):
        raise InputError(f"{spec!r} names nothing; expected module:factory, such as net:model for model() in net.py")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{spec!r}: importing {module!r} failed: {error}; run this in the folder that holds it, or install it"
        ) from error
    try:
        found = reduce(getattr, name.split("."), found)
    except AttributeError as error:
        raise InputError(f"{spec!r}: {error}; expected a function without arguments that gives it") from error
    return found() if inspect.isroutine(found) or inspect.isclass(found) else found


def model_named(spec: str) -> tuple[object, object | None]:
    """The model that `spec` names, and its data when the factory gives a pair ``(model, data)``, else None."""
    made = named(spec)
    return made if isinstance(made, tuple) and len(made) == 2 else (made, None)


def data_named(spec: str) -> tuple[object, object | None, object | None]:
    """Data, labels and ids: the arrays ``x``, ``y`` and ``ids`` of an ``.npz``, or whatever ``module:name`` gives.

    Raises
    ------
    MemoryFileError
        When the file is missing, torn or no ``.npz``.
    InputError
        When it holds no ``x``, or the name does not resolve.
    """
    if not spec.endswith(".npz"):
        return named(spec), None, None
    import numpy as np

    try:
        with open(spec, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = {"one unnamed array": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except FileNotFoundError as error:
        raise MemoryFileError(f"there is no file {spec}; expected an .npz with arrays x and y") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MemoryFileError(f"{spec} cannot be read as an .npz file of arrays: {error}") from error
    arrays = {name.lower(): array for name, array in arrays.items()}
    if "x" not in arrays:
        already = ": it is encoded already" if "keys" in arrays else ""
        raise InputError(f"{spec} holds {sorted(arrays)}{already}; expected x, and y when the labels are known")
    return arrays["x"], arrays.get("y"), arrays.get("ids")


def made_as(path: Path | None):
    """What ``like=`` takes: the memory in folder `path`, or the rows of an ``.npz`` file; None for None."""
    if path is None:
        return None
    from residua.core import Encoded
    from residua.memory import Memory

    return Memory.load(path) if path.is_dir() else Encoded.load(path)
