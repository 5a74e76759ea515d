"""What ``module:name`` and ``.npz`` arguments stand for."""

import importlib
import importlib.util
import inspect
import os
import sys
import zipfile
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Any  # what a function of the caller's gives

from residua.errors import InputError, MemoryFileError, MissingDependencyError


def needed(package: str, use: str, extra: str) -> None:
    """``MissingDependencyError`` unless an optional package is installed, which is not imported for it."""
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(f'{package} is needed for {use}: pip install "residua[{extra}]"')


def check_npz(paths: Iterable[Path]) -> None:
    """Refuse what cannot be an ``.npz`` file, before anything that takes long."""
    for path in paths:
        try:
            with open(path, "rb") as file:
                whole = zipfile.is_zipfile(file)
        except FileNotFoundError as error:
            raise MemoryFileError(f"there is no file {path}; expected an .npz file") from error
        except OSError as error:
            raise MemoryFileError(f"cannot read {path}: {error.strerror or error}; expected an .npz file") from error
        if not whole:
            raise MemoryFileError(f"{path} is not a whole .npz file; expected what 'residua encode' or np.savez wrote")


def named(spec: str):
    """The object that `spec`, ``module:name`` (or a dotted name), names; a function or class is called."""
    module, _, name = spec.partition(":")
    if not (module and name):
        raise InputError(f"{spec!r} names nothing; expected module:factory, such as net:model for model() in net.py")
    try:
        found = reduce(getattr, name.split("."), imported(module))
    except AttributeError as error:
        raise InputError(f"{spec!r}: {error}; expected a function without arguments that gives it") from error
    return found() if callable(found) and (inspect.isroutine(found) or inspect.isclass(found)) else found


def imported(module: str):
    """The module of that dotted name, looked for in the current folder first."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        how = "run this in the folder that holds it, or install it"
        raise InputError(f"importing {module!r} failed: {error}; {how}") from error


def model_named(spec: str) -> tuple[Any, Any]:
    """The model that `spec` names, and its data when the factory gives a pair ``(model, data)``, else None."""
    made = named(spec)
    return made if isinstance(made, tuple) and len(made) == 2 else (made, None)


def data_named(spec: str) -> tuple[Any, Any, Any]:
    """Data, labels and ids: the arrays ``x``, ``y`` and ``ids`` of an ``.npz``, or whatever ``module:name`` gives."""
    if not spec.endswith(".npz"):
        return named(spec), None, None
    check_npz([Path(spec)])
    from residua.core.npz import read_npz

    arrays = read_npz(spec, "an .npz file of arrays")
    arrays = {name.lower(): array for name, array in arrays.items()}
    if "x" not in arrays:
        already = ": it is encoded already" if "keys" in arrays else ""
        raise InputError(f"{spec} holds {sorted(arrays)}{already}; expected x, and y when the labels are known")
    return arrays["x"], arrays.get("y"), arrays.get("ids")


def made_as(path: Path | None, trust: bool = False):
    """What ``like=`` takes: the memory in folder `path`, or the rows of an ``.npz`` file; None for None."""
    if path is None:
        return None
    from residua.core import Encoded
    from residua.memory import Memory

    return Memory.load(path, trust=trust) if path.is_dir() else Encoded.load(path)
