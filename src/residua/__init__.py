"""residua: an explicit memory for models you have already trained.

>>> import residua as rs
>>> sorted(set(rs.__all__) & {"encode", "Memory", "ResMem", "KNNLM", "tune", "evaluate", "explain", "attach"})
['KNNLM', 'Memory', 'ResMem', 'attach', 'encode', 'evaluate', 'explain', 'tune']
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Public name -> where it lives. Resolved on first use, so that `import residua` loads no torch.
_HOME = {
    "Encoded": "residua.records",
    "Logits": "residua.records",
    "DenseLogits": "residua.records",
    "HeadLogits": "residua.records",
    "TopLogits": "residua.records",
    "Memory": "residua.memory",
    "ResMem": "residua.read",
    "KNNLM": "residua.read",
    "ContinuousCache": "residua.read",
    "AdaptiveLambda": "residua.read",
    "load": "residua.read",
    "encode": "residua.encode",
    "tune": "residua.tune",
    "evaluate": "residua.evaluate",
    "explain": "residua.explain",
    "attach": "residua.attach",
    "errors": "residua.errors",
    "lm": "residua.lm",
}

MODULES = ("errors", "lm")  # public names that are modules themselves

__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from residua import errors, lm
    from residua.attach import attach
    from residua.encode import encode
    from residua.evaluate import evaluate
    from residua.explain import explain
    from residua.memory import Memory
    from residua.read import KNNLM, AdaptiveLambda, ContinuousCache, ResMem, load
    from residua.records import DenseLogits, Encoded, HeadLogits, Logits, TopLogits
    from residua.tune import tune


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'residua' has no attribute {name!r}")
    module = import_module(_HOME[name])
    value = module if name in MODULES else getattr(module, name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """A room and its verb share a name (``residua.tune``); as an attribute of the package it is the verb."""

    def __setattr__(self, name: str, value) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME and name not in MODULES):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__():
    return sorted(__all__)
