"""Whose keys these are: the fingerprint that keeps one model's memory from correcting another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from residua.caution import warn
from residua.errors import SourceMismatchError

# Of norms, which are compared where one side was written by 0.1 or 0.2: a 16-bit copy moves each by less than this.
TOLERANCE = {"float64": 1e-6, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}
# Of projections, beside the norm of what was projected. Adapters merged and taken out again leave rounding errors in
# float32; 16-bit numbers are equal or they are not, and only the order of the sum differs.
PROJECTED = {"float64": 1e-6, "float32": 1e-6}
SUMMED = 1e-9
# Of a probe's answers, beside their norms. Where all parameters agree, another processor or dtype may round each layer.
ANSWERED = 1e-3
ROUNDED = {"float64": 10.0, "float32": 10.0}
ROUNDED_16 = 100.0
ENTRIES = 65_536  # of each tensor, at most, are projected
ADAPTED = "base_layer"  # how adapters (PEFT) call the layer that they change
MERGED = 0.02  # of ANSWERED: how little answers move when adapters are added to the numbers of their layers, in float32
# How wrappers (DataParallel, torch.compile, FSDP, PEFT) call the model, or the layer, that they hold.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", ADAPTED)


def bare(name: str) -> str:
    """A module's or parameter's name without what wrappers add: ``"module.fc:input"`` is ``"fc:input"``."""
    path, colon, side = name.removeprefix("base_model.model.").partition(":")
    return ".".join(part for part in path.split(".") if part not in _WRAPPERS) + colon + side


class Probe(NamedTuple):
    """Made-up inputs, which hold nobody's data, and what a model answered: see ``residua.encoding.probe``."""

    shape: list[int]  # of one input
    low: int | list[float] = 0  # whole numbers are drawn from low to high; numbers of a table between those of a column
    high: int | list[float] = 0
    whole: bool = False
    rows: int = 4
    answers: tuple[float, ...] = ()  # of each row of keys, then of outputs: its norm and two signed projections

    def agrees(self, other: Probe, slack: float) -> bool:
        """Whether all answers are equal to float32's precision in a deep network, times `slack`."""
        if len(self.answers) != len(other.answers):
            return False
        rows = range(0, len(self.answers), 3)
        return all(
            abs(self.answers[i] - other.answers[i]) <= ANSWERED * slack * max(self.answers[row], 1e-12)
            for row in rows
            for i in range(row, row + 3)
        )


class Functions(NamedTuple):
    """A caller's functions, in this process alone: of an estimator's keys, and of a torch model's outputs."""

    key: Callable[[Any], Any] | None = None
    output: Callable[[Any], Any] | None = None


CALLABLE = "callable "  # begins the name of keys that a caller's function makes
# How much rows of a class weigh: "balanced" is n / (L * the rows of the class), as scikit-learn has it; a class that is
# not named weighs 1.
ClassWeight: TypeAlias = dict[int, float] | Literal["balanced"]
KEYS_ONLY = "none"  # the outputs of an embedder: it has keys, and says nothing of classes


@dataclass(frozen=True)
class Source:
    """The model and layer that made some keys."""

    name: str  # what to call the model in messages, such as its class
    key: str  # the module or step whose data are the keys
    dtype: str = "float32"  # the dtype of most parameters
    parameters: dict[str, tuple[list[int], float]] = field(default_factory=dict)  # shape and Euclidean norm of each
    extra: dict[str, str] = field(default_factory=dict)  # what else must be equal, such as a tokenizer's hash
    # {"mean": ..., "scale": ...} that the keys were standardised with, a number per dimension, and "categories" where a
    # table had some; empty when they were not
    statistics: dict[str, list[Any]] = field(default_factory=dict)
    output: str | None = None  # what the outputs are, as in ``Encoded``, or ``KEYS_ONLY``; None: unknown
    item: int | str | None = None  # which item of what the model returns they are; None for the usual one
    # {parameter: {dtype: signed projection}}: of the parameter as it is, and rounded to each coarser dtype; empty where
    # 0.1 or 0.2 wrote the source
    projections: dict[str, dict[str, float]] = field(default_factory=dict)
    # what a model is beside its parameters: classes and scalars of modules, digests of serialised models
    structure: dict[str, str | float] = field(default_factory=dict)
    position: str | None = None  # where keys are read of a sequence, as in ``residua.encoding.position``
    probe: Probe | None = None  # what the model says of made-up inputs, where it takes them
    # What a caller's functions are by name in `key` and `item`; not stored, and no part of what is compared.
    functions: Functions = field(default=Functions(), compare=False, repr=False)
    class_weight: ClassWeight | None = None  # by which the model was fitted, as far as is known

    @property
    def scale(self) -> str:
        """What is done to the outputs to make them logits: "logits" where nothing is."""
        return self.output if self.output in ("probabilities", "percentages", KEYS_ONLY) else "logits"

    def difference(self, other: Source) -> str | None:
        """The first thing that differs, in words; None for the same model and layer."""
        if self == other:  # nearly always, and the quickest to see
            return None
        if bare(self.key) != bare(other.key):
            again = "; pass the same key= again: functions are not stored" if self.key.startswith(CALLABLE) else ""
            return f"keys come from {self.key!r} here and from {other.key!r} there{again}"
        if self.position != other.position:
            return f"keys of sequences are read at {self.position!r} here and at {other.position!r} there"
        if self.scale != other.scale:
            return (
                f"the outputs are taken for {self.scale} here and for {other.scale} there: encode again where that is "
                "wrong, or say what they are with output="
            )
        if self.item != other.item:
            return f"the outputs are item {self.item!r} here and {other.item!r} there"
        if self.extra != other.extra:
            return f"{self.extra} here and {other.extra} there"
        # What 0.1 and 0.2 saw of a model that is known by what it saves had little to do with what it says.
        unlike = self._exact(other) or (self.parameters and other.parameters)
        probes = self._probes(other)
        if unlike and self.parameters.keys() != other.parameters.keys():
            # Adapters merged, layers quantised: the same function may be kept otherwise, and its answers decide.
            if probes is not None and probes[0].agrees(probes[1], 1.0):
                return self._statistics(other)
            names = sorted(self.parameters.keys() ^ other.parameters.keys())
            return f"parameter {names[0]!r} exists on one side only ({len(names)} such)"
        for name, (shape, _) in self.parameters.items() if unlike else ():
            if list(shape) != list(other.parameters[name][0]):
                return f"parameter {name!r} has shape {list(shape)} here and {list(other.parameters[name][0])} there"
        if (differs := self._projection(other) if self._exact(other) else self._norm(other)) is not None:
            adapted = ADAPTED in self.structure and ADAPTED in other.structure
            if adapted and probes is not None and probes[0].agrees(probes[1], MERGED):
                return self._statistics(other)  # merged in place: other numbers in the layers, and the same function
            return differs
        # What only one side has was added by another version of a library.
        for name in self.structure.keys() & other.structure.keys():
            if self.structure[name] != other.structure[name]:
                return f"{name!r} is {self.structure[name]} here and {other.structure[name]} there"
        slack = max(ROUNDED.get(self.dtype, ROUNDED_16), ROUNDED.get(other.dtype, ROUNDED_16))
        if probes is not None and not probes[0].agrees(probes[1], slack):
            return "the parameters are alike, and keys or outputs of the same made-up inputs are not"
        return self._statistics(other)

    def _probes(self, other: Source) -> tuple[Probe, Probe] | None:
        if self.probe is None or other.probe is None or self.probe[:-1] != other.probe[:-1]:
            return None
        return self.probe, other.probe

    def _statistics(self, other: Source) -> str | None:
        if self.statistics != other.statistics:
            return (
                "the keys were standardised by different statistics; pass like= (the memory, or the Encoded "
                "it was built from) to encode, so that both are scaled alike"
            )
        return None

    @property
    def _old(self) -> bool:
        """Whether norms are all there is, as 0.1 and 0.2 wrote them."""
        return bool(self.parameters) and not self.projections and not self.structure

    def _exact(self, other: Source) -> bool:
        return not self._old and not other._old

    def _projection(self, other: Source) -> str | None:
        """The first parameter with other numbers, each pair rounded to the coarser dtype of the two."""
        for name, here in self.projections.items():
            there, (shape, norm) = other.projections[name], self.parameters[name]
            # A mask that holds infinity has no norm, and a model that is attached to none measured.
            size = next((size for size in (norm, other.parameters[name][1]) if math.isfinite(size)), 1.0)
            size *= math.sqrt(min(1.0, ENTRIES / max(math.prod(shape), 1)))
            own = next(iter(here)), next(iter(there))  # each side's own dtype comes first
            shared = [dtype for dtype in dict.fromkeys(own) if dtype in here and dtype in there]
            gaps = [abs(here[dtype] - there[dtype]) / PROJECTED.get(dtype, SUMMED) for dtype in shared]
            if not any(gap <= size for gap in gaps):
                dtype = shared[-1] if shared else "neither dtype"
                seen = f"{here.get(dtype, math.nan):.7g} here and {there.get(dtype, math.nan):.7g} there"
                return f"parameter {name!r} has other numbers: their signed projection in {dtype} is {seen}"
        return None

    def _norm(self, other: Source) -> str | None:
        tolerance = max(TOLERANCE.get(self.dtype, 1e-6), TOLERANCE.get(other.dtype, 1e-6))
        for name in self.parameters.keys() & other.parameters.keys():
            norm, norm_there = self.parameters[name][1], other.parameters[name][1]
            if not math.isclose(norm, norm_there, rel_tol=tolerance, abs_tol=1e-12):
                return f"parameter {name!r} has norm {norm:.7g} here and {norm_there:.7g} there"
        return None

    def require(self, other: Source | None) -> None:
        """``SourceMismatchError`` when `other` is known and is another model or layer.

        ``UserWarning`` when the two agree in norms, and one side has no more: 0.1 and 0.2 wrote these.
        """
        if other is None:
            return
        if (difference := self.difference(other)) is not None:
            raise SourceMismatchError(
                f"this memory was made by {self.name} (key {self.key!r}), the data by {other.name} "
                f"(key {other.key!r}): {difference}. Encode with the model that made the memory, or build a new one"
            )
        if self._old != other._old:
            warn(
                "this memory holds only the norms of its model's parameters (residua 0.1 and 0.2 wrote these), which "
                "another model can share; they agree. Encode again to have the whole model compared"
            )

    def to_json(self) -> dict[str, Any]:
        """In JSON types."""
        parameters = {name: [list(shape), norm] for name, (shape, norm) in self.parameters.items()}
        probe = None if self.probe is None else self.probe._asdict()
        return self.__getstate__() | {"parameters": parameters, "probe": probe}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "functions"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, functions=Functions())

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Source:
        """The inverse of ``to_json``."""
        # Names of 0.1 and 0.2 may have a wrapper's prefix.
        parameters = {bare(name): (list(shape), float(norm)) for name, (shape, norm) in data["parameters"].items()}
        extra, statistics = dict(data["extra"]), dict(data.get("statistics", {}))
        found: dict[str, Any] = {name: data.get(name) for name in ("output", "item", "position")}
        found |= {name: dict(data.get(name, {})) for name in ("projections", "structure")}
        if data.get("probe"):
            found["probe"] = Probe(**data["probe"] | {"answers": tuple(data["probe"]["answers"])})
        weight = data.get("class_weight")
        found["class_weight"] = {int(c): w for c, w in weight.items()} if isinstance(weight, dict) else weight
        return cls(data["name"], data["key"], data["dtype"], parameters, extra, statistics, **found)
