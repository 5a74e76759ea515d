"""residua: an explicit memory for models you have already trained.

>>> import residua as rs
>>> sorted(set(rs.__all__) & {"encode", "Memory", "ResMem", "KNNLM", "tune", "evaluate", "explain", "attach"})
['KNNLM', 'Memory', 'ResMem', 'attach', 'encode', 'evaluate', 'explain', 'tune']
"""

TYPE_CHECKING = False  # type checkers take it for typing's own, whose import would cost more than all of this module

__version__ = "0.2.0"

# Public name -> where it lives. Resolved on first use, so that `import residua` loads no torch.
_HOME = {
    "Encoded": "residua.core",
    "Logits": "residua.core",
    "DenseLogits": "residua.core",
    "HeadLogits": "residua.core",
    "TopLogits": "residua.core",
    "Memory": "residua.memory",
    "Pooled": "residua.readers",
    "RanPAC": "residua.readers",
    "ResMem": "residua.readers",
    "KNNLM": "residua.readers",
    "ContinuousCache": "residua.readers",
    "AdaptiveLambda": "residua.readers",
    "Gated": "residua.readers",
    "Distilled": "residua.readers",
    "Edited": "residua.readers",
    "edit": "residua.readers",
    "from_pretrained": "residua.readers",
    "load": "residua.readers",
    "encode": "residua.encoding",
    "distil": "residua.distillation",
    "tune": "residua.tuning",
    "evaluate": "residua.evaluation",
    "audit": "residua.review",
    "explain": "residua.explanation",
    "attach": "residua.hooks",
    "inspect": "residua.inspector",
    "conformal": "residua.uncertainty",
    "report": "residua.reporting",
    "errors": "residua.errors",
    "lm": "residua.lm",
    "Passages": "residua.passages",
}

MODULES = ("errors", "lm")  # public names that are modules themselves

# Rooms of version 0.1 -> what they are called now.
_GONE = {"records": "residua.core", "read": "residua.readers"}

__all__ = [
    "KNNLM",
    "AdaptiveLambda",
    "ContinuousCache",
    "DenseLogits",
    "Distilled",
    "Edited",
    "Encoded",
    "Gated",
    "HeadLogits",
    "Logits",
    "Memory",
    "Passages",
    "Pooled",
    "RanPAC",
    "ResMem",
    "TopLogits",
    "__version__",
    "attach",
    "audit",
    "conformal",
    "distil",
    "edit",
    "encode",
    "errors",
    "evaluate",
    "explain",
    "from_pretrained",
    "inspect",
    "lm",
    "load",
    "report",
    "tune",
]

if TYPE_CHECKING:
    from residua import errors, lm
    from residua.core import DenseLogits, Encoded, HeadLogits, Logits, TopLogits
    from residua.distillation import distil
    from residua.encoding import encode
    from residua.evaluation import evaluate
    from residua.explanation import explain
    from residua.hooks import attach
    from residua.inspector import inspect
    from residua.memory import Memory
    from residua.passages import Passages
    from residua.readers import (
        KNNLM,
        AdaptiveLambda,
        ContinuousCache,
        Distilled,
        Edited,
        Gated,
        Pooled,
        RanPAC,
        ResMem,
        edit,
        from_pretrained,
        load,
    )
    from residua.reporting import report
    from residua.review import audit
    from residua.tuning import tune
    from residua.uncertainty import conformal
else:

    def __getattr__(name):
        if name not in _HOME:
            now = f"; it is {_GONE[name]} now" if name in _GONE else ""
            raise AttributeError(f"module 'residua' has no attribute {name!r}{now}")
        from importlib import import_module

        module = import_module(_HOME[name])
        value = module if name in MODULES else getattr(module, name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted(__all__)
