"""Readers that weigh a memory's neighbours, and the kernels that do so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor

from residua.core.arrays import Array
from residua.core.encoded import Encoded
from residua.core.logits import Base, DenseLogits, HeadLogits, Logits, Sigmoid, Softmax, Table, as_tensor, rows_at_once
from residua.core.neighbours import Neighbours
from residua.core.prediction import Change, Few, Prediction, Queries, Term, Values
from residua.core.registry import Registry
from residua.core.source import ClassWeight
from residua.errors import ParameterError
from residua.memory import Memory
from residua.native import Reading, kernels
from residua.readers.class_weight import checked_class_weight, class_weights
from residua.readers.few import LEAST, NOTICE, USUAL_KERNELS, Plain
from residua.readers.reader import Reader, TextState, misshapen

ENTRIES = 2**18  # sparse entries read at a time, so that what one step leaves is in the cache for the next
MUCH = 2**14  # neighbours; more than these, and than a memory has rows, no saved reader asks for
WIDE = 2**22  # scores made at a time where every output gets one
FEW = 64  # queries that are answered one after another, on one thread


KernelName: TypeAlias = Literal["exponential", "gaussian"]


@dataclass(frozen=True)
class Kernel:
    """A kernel by its name.

    ``log_weights(distances, sigma)`` gives log of the weights relative to the nearest neighbour's, from plain ascending
    distances float32 (..., k) and a width, or a tensor of widths that broadcasts.
    """

    name: str
    log_weights: Callable[[Tensor, float | Tensor], Tensor]
    squared: bool = False  # whether sigma is a squared distance

    def __reduce__(self) -> tuple[Callable[[str], Kernel], tuple[str]]:
        return _registered, (self.name,)  # a function of one's own may not be picklable; its name is

    def typical_sigma(self, distance: float) -> float:
        """The width that a distance (plain) stands for."""
        return distance**2 if self.squared else distance


KERNELS: Registry[Kernel] = Registry("kernel", "residua.readers.register_kernel")


def _registered(name: str) -> Kernel:
    return KERNELS.get(name)


def register_kernel(kernel: Kernel) -> Kernel:
    """Make a kernel known by its name."""
    KERNELS.register(kernel.name, kernel)
    return kernel


# Differences to the nearest are taken first, so that no sigma is too small and nothing too far.
register_kernel(Kernel("exponential", lambda d, sigma: (d - d[..., :1]) / -sigma))  # ResMem, eq. 7
register_kernel(
    Kernel("gaussian", lambda d, sigma: (d - d[..., :1]) * (d + d[..., :1]) / -sigma, squared=True)  # kNN-LM, eq. 2
)


def log_weights(distances: Tensor, sigma: float | Tensor, kernel: str | Kernel) -> Tensor:
    """``kernel.log_weights``, never NaN."""
    kernel = kernel if isinstance(kernel, Kernel) else KERNELS.get(kernel)
    return kernel.log_weights(distances, sigma).nan_to_num_(0.0, neginf=-torch.inf)  # 0/0: as near


def weigh(
    neighbours: Neighbours, sigma: float, kernel: str | Kernel = "exponential", row_weights: Tensor | None = None
) -> Tensor:
    """Kernel weights of neighbours, float32 (q, k): rows sum to 1, or to 0 without neighbours; never NaN.

    Parameters
    ----------
    neighbours : Neighbours
    sigma : float
        A distance for ``"exponential"``, a squared distance for ``"gaussian"``.
    kernel : str or Kernel
    row_weights : float Tensor of shape (q, k), optional
        Importance of each neighbour, >= 0; multiplies its kernel weight.

    Examples
    --------
    >>> near_and_far = Neighbours(torch.tensor([[4, 2]]), torch.tensor([[1000.0, 1000.7]]))
    >>> [round(weight, 3) for weight in weigh(near_and_far, sigma=1.0)[0].tolist()]
    [0.668, 0.332]
    """
    weights = unnormalised(log_weights(neighbours.distances, sigma, kernel), neighbours.found, row_weights)
    return weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-30)


def unnormalised(logs: Tensor, found: Tensor, row_weights: Tensor | None = None) -> Tensor:
    """exp of a kernel's logs (..., k), which are overwritten, times `row_weights`, the largest of each row 1; 0 where
    not found, and under NOTICE, which cannot change a float32 sum (products of such weights are slow denormal
    numbers)."""
    if not logs.shape[-1]:
        return logs
    if row_weights is None and bool(found[..., -1].all()):
        weights = logs.exp_()  # the nearest's is 1 already
    else:
        logs = logs if row_weights is None else logs + row_weights.log()
        logs = logs.masked_fill(~found, -torch.inf)
        top = logs.amax(dim=-1, keepdim=True)
        weights = (logs - top.masked_fill(top == -torch.inf, 0)).exp_()
    return torch.threshold_(weights, NOTICE, 0)


class NeighbourReader(Reader):
    """A reader that searches each query's neighbours, weighs them, and adds up what they say.

    A new one says what rows say (``values``), and may say otherwise how neighbours are weighed (``weights``), what
    share they have (``share``), or the whole change at once (``change``). Parameters are as for ``ResMem``; `k` None is
    the class's ``default_k``.
    """

    default_k: int = 50

    memory: Memory
    k: int
    temperature: float
    kernel: str  # its name
    sigma: float
    epsilon: float | None
    skip: float | None
    class_weight: ClassWeight | None

    def __init__(
        self,
        memory: Memory | None,
        k: int | None,
        sigma: float | None,
        temperature: float,
        kernel: KernelName | Kernel,
        epsilon: float | None = None,
        skip: float | None = None,
        class_weight: Mapping[int, float] | str | None = None,
    ):
        if not isinstance(memory, Memory):
            raise ParameterError(f"got a {type(memory).__name__} where a Memory is expected: rs.Memory(encoded)")
        k = min(self.default_k, len(memory)) if k is None else k
        k = whole("k", k, 0, "a whole number >= 0 (0 is no memory: the base itself)")
        if k > len(memory):
            raise ParameterError(f"k={k}, and the memory has {len(memory)} rows; choose k <= {len(memory)}")
        # A kernel of one's own is registered, so that what is said of the reader, its name, is enough to make it again.
        self._kernel = register_kernel(kernel) if isinstance(kernel, Kernel) else KERNELS.get(kernel)
        self.memory, self.k, self.kernel = memory, k, self._kernel.name
        if sigma is None:
            sigma = self._kernel.typical_sigma(memory.median_nn_distance()) if k else 1.0
        self.sigma = positive("sigma", sigma)
        self.temperature = positive("temperature", temperature)
        self.epsilon = _fraction("epsilon", epsilon, "a number in (0, 1], or None for 1/L")
        self.skip = _fraction("skip", skip, "a probability in (0, 1], or None to search every row")
        if skip is not None and memory.task != "classification":
            raise ParameterError(f"skip compares class probabilities; a {memory.task} memory has none, leave skip=None")
        self.class_weight = checked_class_weight(class_weight, memory)

    def values(self, queries: int) -> Values:
        """What the memory's rows say; `queries` neighbourhoods will be read with it."""
        raise ParameterError(f"{type(self).__name__} does not say what its rows say: define values(), or change()")

    def weights(self, neighbours: Neighbours, queries: Queries) -> Tensor:
        """Weights float32 (q, k), the kernel's times the rows' own; rows sum to 1, or to 0 without neighbours."""
        return weigh(neighbours, self.sigma, self._kernel, self.row_weights(neighbours))

    def row_weights(self, neighbours: Neighbours) -> Tensor | None:
        """The neighbours' own weights float32 (q, k), of the memory's column ``weight`` and their classes, if any."""
        rows, by_class = neighbours.rows.clamp_min(0), self.class_weights
        own = self.memory.column("weight")[rows] if self.memory.has_column("weight") else None
        if by_class is None:
            return own
        by_class = by_class[self.memory.column("label")[rows].long()]
        return by_class if own is None else own * by_class

    @property
    def class_weights(self) -> Tensor | None:
        """How much rows of each class weigh, float32 (L,), 1 in the mean over the remembered rows; None: all alike."""
        return self._kept("class_weights", (), lambda: class_weights(self.class_weight, self.memory))

    def loss_weights(self, part: Encoded, truth: Tensor) -> Tensor | None:
        """How much the loss of each labelled row weighs (n,), as the memory's rows do: by its own ``weight``, and its
        class; None: all alike."""
        own, by_class = part.columns.get("weight"), self.class_weights
        weight = None if by_class is None else by_class[truth].to(truth.device)
        if own is None:
            return weight
        own = torch.as_tensor(own, dtype=torch.float32, device=truth.device)
        return own if weight is None else own * weight

    def share(self, neighbours: Neighbours, queries: Queries) -> tuple[float | Tensor, float | Tensor]:
        """(what is left of the base, what multiplies the weights), where there are neighbours: numbers, or float32
        tensors (q, 1)."""
        return 1.0, 1.0

    def change(self, neighbours: Neighbours, queries: Queries, values: Values | None = None) -> Change:
        """How these neighbours change the base's answers; `values`: this reader's, where made before."""
        weights = self.weights(neighbours, queries)
        if self.memory.task == "regression":  # what float32 lacks of a sum of 1 is much of a large target
            weights = weights.double()
            weights = weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-30)
        left, given = self.share(neighbours, queries)
        heard = weights.sum(dim=1, keepdim=True) > 0
        scale = torch.where(heard, left, torch.ones((), dtype=weights.dtype, device=weights.device))  # else the base
        values = self.values(len(neighbours)) if values is None else values
        given = weights if isinstance(given, float) and given == 1 else weights * given
        return Change(scale, (Term(neighbours.rows, given, values),), self.score_space)

    def base(self, logits: Logits) -> Base:
        """Where this reader starts: softmax(f / T), sigmoid(f / T) of several labels, or a regressor's predictions."""
        if self.memory.task == "regression":
            return Table(logits)
        return (Softmax if self.memory.task == "classification" else Sigmoid)(logits, self.temperature)

    def few(self, plain: Plain) -> Few | None:
        """The answers that ``change`` leads to, by NumPy; None: not these. It is asked for where queries are few and
        plain, and a class without one of its own has none: it may weigh or read neighbours otherwise."""
        return None

    def native_reading(self) -> dict[str, Any] | None:
        """What ``native.Reading`` wants to know to give the answers that ``few`` does; None: it cannot. A class without
        one of its own has none, as for ``few``."""
        return None

    def at_once(self, keys: Tensor, logits: Tensor) -> Tensor | None:
        """``Prediction.in_gauge`` of a few queries of keys (q, d) and logits (q, L) by native kernels; None: ``read``.

        Nothing is said of the neighbours, so nothing is kept of them: one image or token is answered sooner.
        """
        reading = self._kept("native", (), self._native)
        if reading is None or not 0 < len(keys) == len(logits) <= FEW or logits.shape[1] != self.memory.n_outputs:
            return None
        if not (logits.dtype == keys.dtype == torch.float32 and logits.device.type == keys.device.type == "cpu"):
            return None
        return self.memory.read_at_once(reading, keys.contiguous(), logits.contiguous())

    @property
    def _weighs_by_distance(self) -> bool:
        """Whether neighbours weigh as a usual kernel of their distances has it, whichever rows they are."""
        usual = self.kernel in USUAL_KERNELS and self.sigma >= LEAST
        return usual and self.class_weights is None and not self.memory.has_column("weight")

    def _native(self) -> Reading | None:
        native, memory = kernels(), self.memory
        own = vars(type(self)).get("native_reading")
        if native is None or own is None or memory.task != "classification" or memory.device.type != "cpu":
            return None
        if self.skip is not None or self.is_noop or not self._weighs_by_distance:
            return None
        how, labels = own(self), memory.column("label")
        if how is None or self.k > len(memory) or not labels.is_contiguous():
            return None
        shape = dict(outputs=memory.n_outputs, k=self.k, floor=self.floor, gaussian=self.kernel == "gaussian")
        return Reading(native, labels, temperature=self.temperature, sigma=self.sigma, **shape, **how)

    @property
    def score_space(self) -> str:
        """``"probability"`` or ``"logit"``, as in ``Change``."""
        return "probability"

    @property
    def floor(self) -> float:
        """The share of the base's probability that no class goes below: epsilon, or 1/L; of several labels, each of
        which one has or has not, 1/2."""
        outputs = 2 if self.memory.task == "multi-label" else self.memory.n_outputs
        return 1 / outputs if self.epsilon is None else self.epsilon

    def skip_mask(self, base: Base) -> Tensor | None:
        """Bool (q,): the queries that are not searched; None where every one is."""
        if self.skip is None or not isinstance(base, Softmax):
            return None
        return base.confidence().exp() >= self.skip

    def searching_all(self) -> Self:
        """This reader, skipping no query."""
        return self if self.skip is None else self.with_params(skip=None)

    def read(
        self,
        keys: Tensor,
        logits: Logits,
        excluded: Array | None = None,
        *,
        depth: int = 0,
        state: TextState | None = None,
        documents: Array | None = None,
        tokens: Array | None = None,
    ) -> Iterator[tuple[slice, Prediction]]:
        memory = self.memory
        if logits.shape != (len(keys), memory.n_outputs):
            raise misshapen(memory, keys, logits)
        # What is recomputed is recomputed once.
        base = self.base(DenseLogits(logits.dense()) if isinstance(logits, HeadLogits) else logits)
        silent, asked, searched = self.is_noop, None, keys
        skipped = None if silent else self.skip_mask(base)
        if skipped is not None and bool(skipped.any()):
            asked = (~skipped).nonzero()[:, 0].to(memory.device)
            searched = keys[asked.to(keys.device)]
            excluded = None if excluded is None else as_tensor(excluded)[asked.cpu()]
        near = memory.search(searched, max(depth, 0 if silent else self.k), excluded)
        if silent:
            yield slice(0, len(base)), self._answered(base, near, keys, None, None)
            return
        values = self.values(len(near))
        for rows in self._blocks(len(base), values):
            if rows.stop - rows.start == len(base):  # all in one block: nothing is cut
                yield rows, self._answered(base, near, keys, asked, values)
                continue
            some, within = rows, None
            if asked is not None:  # where the ascending `asked` fall into these rows
                edges = torch.tensor([rows.start, rows.stop], device=asked.device)
                some = slice(*torch.searchsorted(asked, edges).tolist())
                within = asked[some] - rows.start
            yield rows, self._answered(base[rows], near[some], keys[rows], within, values)

    def reread(self, prediction: Prediction, keys: Tensor, logits: Logits | Base) -> Prediction:
        """What this reader makes of what another reader of the same memory searched; `logits` may be what ``base`` made
        of them, which knows already what it was asked before."""
        base, near, asked = logits if isinstance(logits, Base) else self.base(logits), prediction.near, prediction.asked
        skipped = None if self.is_noop else self.skip_mask(base)
        if skipped is not None:
            kept = ~skipped.to(near.rows.device)
            near = near[kept if asked is None else kept[asked]]
            asked = kept.nonzero()[:, 0] if asked is None else asked[kept[asked]]
        values = self.values(len(near)) if len(near) and not self.is_noop else None
        return self._answered(base, near, keys, asked, values)

    def _answered(
        self, base: Base, near: Neighbours, keys: Tensor, asked: Tensor | None, values: Values | None
    ) -> Prediction:
        """What `values`, None where the memory has no say, of these neighbours make of the base."""

        def weigh() -> Change:
            return self.change(near if near.k == self.k else near.first(self.k), Queries(keys, base, asked), values)

        if values is None or not len(near):
            return Prediction(base, near, None, self.floor, asked, self.score_space)
        # Not a parent's: a class that changes how neighbours are weighed or read has none, or its own.
        few = vars(type(self)).get("few")

        def by_numpy() -> Few | None:
            if few is None or not self._weighs_by_distance:
                return None
            plain = Plain.of(base, near, self.k, self.sigma, self.kernel == "gaussian")
            return None if plain is None else few(self, plain)

        return Prediction(base, near, weigh, self.floor, asked, self.score_space, by_numpy if asked is None else None)

    def _blocks(self, count: int, values: Values) -> Iterator[slice]:
        each, most = (self.memory.n_outputs, WIDE) if values.width is None else (self.k * values.width, ENTRIES)
        step = rows_at_once(each, self.memory.device, most)
        return (slice(start, min(start + step, count)) for start in range(0, count, step))

    def _made(self, params: dict[str, Any]) -> Self:
        return self._with_any_k(params, self.memory) if params.get("k") == self.k else super()._made(params)

    @classmethod
    def from_json(cls, params: dict[str, Any], memory: Memory) -> Self:
        if "k" not in cls.parameter_names():  # a reader whose k is its own business
            return super().from_json(params, memory)
        k = whole("k", params["k"], 0, "a whole number >= 0")
        if k > max(memory.n_rows, MUCH):
            raise ParameterError(f"k={k}, and the memory never had so many rows: it has {memory.n_rows}")
        return cls._with_any_k(params | {"k": k}, memory)

    @classmethod
    def _with_any_k(cls, params: dict[str, Any], memory: Memory) -> Self:
        reader = cls(memory, **params | {"k": min(params["k"], len(memory))})
        reader.k = int(
            params["k"]
        )  # forgetting may have left fewer than k rows: no error here, as it is none when reading
        return reader


def whole(name: str, value: float, least: int, expected: str) -> int:
    """`value` as an int, if it is one of at least `least`."""
    if not isinstance(value, Real) or isinstance(value, bool) or not float(value).is_integer() or value < least:
        raise ParameterError(f"{name}={value!r}; expected {expected}")
    return int(value)


def _fraction(name: str, value: float | None, expected: str) -> float | None:
    if value is None:
        return None
    if not (isinstance(value, Real) and 0 < value <= 1):
        raise ParameterError(f"{name}={value!r}; expected {expected}")
    return float(value)


def positive(name: str, value: float) -> float:
    """`value` as a float, if it is finite and > 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ParameterError(f"{name}={value!r}; expected a finite number > 0")
    return number
