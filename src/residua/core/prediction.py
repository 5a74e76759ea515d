"""Between readers and every verb: what the model said, who was asked, and what they changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from residua.core.logits import Base, DenseLogits, Sigmoid, Softmax, Table, TopLogits
from residua.core.neighbours import Neighbours
from residua.core.probabilities import TINY, SparseProbabilities
from residua.errors import TaskError


class Values(ABC):
    """What each remembered row says as a neighbour: a sparse or dense vector over the L outputs."""

    width: int | None = None  # how many outputs a row speaks of; None is all of them
    signed: bool = True  # whether what it says may be negative

    @abstractmethod
    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Output ids int64 (m, c) and values float32 (m, c) of rows (m,); repeated ids of a row add up."""

    def weighted(self, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The same of each query's neighbours rows (q, k), none of them -1, times their weights: (q, k * c)."""
        classes, values = self.entries(rows.reshape(-1))
        shape = len(rows), rows.shape[1] * classes.shape[1]
        return classes.reshape(shape), (values * weights.reshape(-1, 1)).reshape(shape)

    def add_to(self, scores: Tensor, rows: Tensor, weights: Tensor) -> None:
        """``scores[q] += sum_i weights[q, i] * value(rows[q, i])``, in place; rows (q, k) hold no -1."""
        classes, values = self.weighted(rows, weights)
        scores.scatter_add_(1, classes, values.to(scores.dtype))


class TableValues(Values):
    """Row i says ``table[i]``, a dense vector (n, L)."""

    def __init__(self, table: Tensor):
        self.table = table

    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        values = self.table.index_select(0, rows)  # several times faster than indexing, on a CPU
        return torch.arange(self.table.shape[1], device=rows.device).expand(values.shape), values

    def add_to(self, scores: Tensor, rows: Tensor, weights: Tensor) -> None:
        # One fused pass over the neighbours' rows: no (q, k, L) temporary.
        scores += embedding_bag(rows, self.table, mode="sum", per_sample_weights=weights.to(self.table.dtype))


class LabelValues(Values):
    """Row i says onehot(labels[i]) (kNN-LM's values; label k-NN)."""

    width: int | None = 1
    signed: bool = False

    def __init__(self, labels: Tensor):
        self.labels = labels

    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        classes = self.labels[rows].long()[:, None]
        return classes, torch.ones(classes.shape, device=rows.device)

    def weighted(self, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        # A gather reads in parallel, and twice as fast as take or indexing.
        return self.labels.expand(len(rows), -1).gather(1, rows).long(), weights

    def add_to(self, scores: Tensor, rows: Tensor, weights: Tensor) -> None:
        scores.scatter_add_(1, self.labels.take(rows).long(), weights.to(scores.dtype))


@dataclass(frozen=True)
class Term:
    """What one kernel's weights make of one source's neighbours: ``sum_i weights_i * value(rows_i)``."""

    rows: Tensor  # int64 (q, k); -1 is missing and has weight 0
    weights: Tensor  # float32 (q, k): normalised, times the source's share
    values: Values  # what each row says
    source: str = "memory"  # or "past", the text's own, or "edit"
    distances: Tensor | None = None  # float32 (q, k), plain: of a source that is not the memory, where it knows them

    shared: ClassVar[bool] = False  # whether neighbours have shares of a term that is no sum over them

    @property
    def signed(self) -> bool:
        """Whether it may take away."""
        return self.values.signed

    @property
    def width(self) -> int | None:
        """Entries of each query; None where it speaks of every output."""
        return None if self.values.width is None else self.values.width * self.rows.shape[1]

    def called(self, row: int) -> str:
        """What an explanation calls the source of one row."""
        return self.source

    def add_to(self, scores: Tensor) -> None:
        """Add it to scores (q, L), in place."""
        if self.rows.shape[1]:
            self.values.add_to(scores, self.rows.clamp_min(0), self.weights)

    def entries(self) -> tuple[Tensor, Tensor]:
        """What is added: ids int64 (q, c), repeated ones add up, and values float32 (q, c)."""
        return self.values.weighted(self.rows.clamp_min(0), self.weights)

    def contributions(self, query: int) -> tuple[Tensor, Tensor]:
        """Output ids and values (k, c) of each neighbour of one query; a missing one gives 0."""
        classes, values = self.values.entries(self.rows[query].clamp_min(0))
        return classes, values * self.weights[query][:, None]


@dataclass(frozen=True)
class Change:
    """How neighbours change a base, exactly.

    In the probability space ``scores = scale * base + sum of the terms``. In the logit space
    ``scores = scale * logits / T + sum of the terms``, and probabilities are their softmax (of several labels their
    sigmoid): `scale` is then a factor on the base's log-probability, from which logits / T differ by a constant of each
    query.
    """

    scale: Tensor  # float32 (q, 1): what is left of the base
    terms: tuple[Term, ...]  # one for each kernel and source
    space: str = "probability"  # or "logit"

    @cached_property
    def power(self) -> float | None:
        """`scale`, where it is one positive number for all queries."""
        power = float(self.scale[0, 0]) if len(self.scale) else 1.0
        return power if power > 0 and bool((self.scale == power).all()) else None

    @property
    def signed(self) -> bool:
        """Whether any term may take away."""
        return any(term.signed for term in self.terms)

    @property
    def width(self) -> int | None:
        """Entries of each query, over all terms; None where a term speaks of every output."""
        total = 0
        for term in self.terms:
            if term.width is None:
                return None
            total += term.width
        return total

    def apply(self, start: Tensor) -> Tensor:
        """The changed scores (q, L), from the base's probabilities, predictions or logits (q, L)."""
        scores = start * self.scale
        for term in self.terms:
            term.add_to(scores)
        return scores

    def entries(self) -> tuple[Tensor, Tensor]:
        """What is added: ids int64 (q, c), repeated ones add up, and values float32 (q, c)."""
        parts = [term.entries() for term in self.terms]
        if len(parts) == 1:
            return parts[0]
        ids, values = zip(*parts)
        return torch.cat(ids, dim=1), torch.cat(values, dim=1)

    def contributions(self, query: int, term: int = 0) -> tuple[Tensor, Tensor]:
        """Output ids and values (k, c) of each neighbour of one query; a missing one gives 0."""
        return self.terms[term].contributions(query)


class Few(Protocol):
    """The same answers by NumPy, where they are few: float32 arrays (q, L), as the members of ``Prediction``."""

    def start(self) -> np.ndarray:
        """What the change is applied to."""
        ...

    def scores(self) -> np.ndarray:
        """The changed scores."""
        ...

    def probabilities(self, floor: float) -> np.ndarray:
        """None below `floor` times the base's."""
        ...

    def log_probabilities(self, floor: float) -> np.ndarray:
        """Their logarithms, a new array."""
        ...

    def in_gauge(self, floor: float) -> np.ndarray:
        """The same with the logsumexp of the model's own logits, a new array."""
        ...


def proper(scores: Tensor, start: Tensor, floor: float) -> Tensor:
    """``max(scores, floor * start)``, renormalised (q, L)."""
    positive = torch.maximum(scores, floor * start)
    return positive / positive.sum(dim=1, keepdim=True)


def proper_labels(scores: Tensor, start: Tensor, floor: float) -> Tensor:
    """The same of labels that do not exclude each other: each is one of the two classes "has it" and "has it not"."""
    has, lacks = torch.maximum(scores, floor * start), torch.maximum(1 - scores, floor * (1 - start))
    return has / (has + lacks)


@dataclass(frozen=True)
class Queries:
    """The queries of a block that were searched. Nothing is copied until it is looked at."""

    block_keys: Tensor
    block_base: Base
    asked: Tensor | None = None

    def __len__(self) -> int:
        return len(self.block_keys) if self.asked is None else len(self.asked)

    @cached_property
    def keys(self) -> Tensor:
        """Their keys, float (q, d)."""
        return self.block_keys if self.asked is None else self.block_keys[self.asked.to(self.block_keys.device)]

    @cached_property
    def base(self) -> Base:
        """What the model says of them."""
        return self.block_base if self.asked is None else self.block_base[self.asked.to(self.block_base.device)]


@dataclass(frozen=True)
class Prediction:
    """q answers. Nothing L wide is made until it is asked for."""

    base: Base | Prediction  # what the model said, or the answer of the reader under this one
    near: Neighbours  # of the searched queries, after exclusion; perhaps more of each than the reader reads
    weigh: Callable[[], Change] | None  # makes their Change when first needed; None: the memory has no say
    floor: float = 0.0  # the share of the base's probability that no class goes below
    asked: Tensor | None = None  # int64 (m,): which queries were searched; None: all
    resting_space: str = "probability"  # where scores live while there is no change: or "logit"
    by_numpy: Callable[[], Few | None] | None = None  # makes the same answers, where they are few, sooner

    temperature: ClassVar[float] = 1.0  # a reader on top starts from these answers as they are

    def __len__(self) -> int:
        return len(self.base)

    @property
    def n_outputs(self) -> int:
        """L."""
        return self.base.n_outputs

    @property
    def root(self) -> Base:
        """What the model itself said, under all readers."""
        return self.base.root if isinstance(self.base, Prediction) else self.base

    @property
    def softmax(self) -> Softmax:
        """The same, of classes that exclude each other, or ``TaskError``."""
        if isinstance(self.root, Softmax):
            return self.root
        raise TaskError("rows with several labels each, or numbers to predict, have no softmax")

    @cached_property
    def few(self) -> Few | None:
        """All of these answers by NumPy, where they are few and plain."""
        return None if self.by_numpy is None else self.by_numpy()

    @cached_property
    def change(self) -> Change | None:
        """What the neighbours change in the answers to those asked; None: nothing."""
        return None if self.weigh is None else self.weigh()

    @cached_property
    def neighbours(self) -> Neighbours:
        """Those of every query: none where it was not searched."""
        if self.asked is None:
            return self.near
        near, at = self.near, self.asked
        rows = near.rows.new_full((len(self), near.k), -1)
        distances = near.distances.new_full(rows.shape, torch.inf)
        return Neighbours(rows.index_copy_(0, at, near.rows), distances.index_copy_(0, at, near.distances))

    @property
    def space(self) -> str:
        """Where scores live: ``"probability"`` or ``"logit"``."""
        return self.resting_space if self.change is None else self.change.space

    @cached_property
    def start(self) -> Tensor:
        """What the change is applied to: the base's table, or in the logit space its logits / T; float32 (q, L), of a
        regressor float64."""
        if self.few is not None:
            return torch.from_numpy(self.few.start())
        if isinstance(self.base, Prediction):
            if isinstance(self.root, Table):
                return self.base.scores
            if self.space == "probability":
                return self.base.probabilities
            if isinstance(self.root, Sigmoid):
                return torch.logit(self.base.probabilities, 2**-24)
            return self.base.log_probabilities()
        base = self.base
        table = base.table() if self.space == "probability" else base.logits.dense() / base.temperature
        return table.to(self.near.rows.device)

    @cached_property
    def scores(self) -> Tensor:
        """The changed scores (q, L), of the dtype of ``start``."""
        if self.few is not None:
            return torch.from_numpy(self.few.scores())
        if self.change is None:
            return self.start
        if self.asked is None:
            return self.change.apply(self.start)
        changed = self.change.apply(self.start[self.asked])
        return self.start.to(changed.dtype).index_copy(0, self.asked, changed)

    @cached_property
    def probabilities(self) -> Tensor:
        """``max(scores, floor * base)`` renormalised, float32 (q, L): with the argmax of the scores for floors up to
        1/L. In the logit space the scores' softmax or sigmoid. A regressor has none: ``TaskError``."""
        if self.few is not None:
            return torch.from_numpy(self.few.probabilities(self.floor))
        if isinstance(self.root, Table):
            raise TaskError("a regression memory has no class probabilities; call predict")
        exclusive = not isinstance(self.root, Sigmoid)
        if self.space == "logit":
            return torch.softmax(self.scores, dim=1) if exclusive else torch.sigmoid(self.scores)
        if self.change is None:
            return self.start
        if not exclusive:
            return proper_labels(self.scores, self.start, self.floor)
        return proper(self.scores, self.start, self.floor)

    @property
    def is_wide(self) -> bool:
        """Whether answers can only be known for all outputs at once."""
        if isinstance(self.base, (Table, Sigmoid)):
            return True
        if isinstance(self.base, Prediction):
            if self.base.is_wide or (self.base.change is not None and self.base.change.signed):
                return True  # nothing can be added entry by entry to classes that may be on the floor
            if self.change is not None and (self.change.signed or self.floor > 0 or self.asked is not None):
                return True  # only an interpolation of all rows is added entry by entry
        if self.change is None or self.change.space == "probability":
            return self.change is not None and self.change.width is None
        # An exponent a makes p_T that of T / a: of all queries, of a model, and of logits kept for every T.
        power = self.change.power if isinstance(self.base, Softmax) else None
        some = self.asked is not None or (isinstance(self.base, Softmax) and isinstance(self.base.logits, TopLogits))
        return self.change.width is None or power is None or (power != 1 and some)

    @cached_property
    def sparse(self) -> SparseProbabilities:
        """The probabilities as those of the base and what differs from them."""
        base, change = self.base, self.change
        if self.is_wide or not isinstance(base, (Softmax, Prediction)):
            return SparseProbabilities.of(Softmax(DenseLogits(self.log_probabilities())))
        if isinstance(base, Prediction):
            under = base.sparse
            if change is None:
                return under
            return under.mix(*(part.to(under.scale.device) for part in (change.scale, *change.entries())))
        if change is None:
            return SparseProbabilities.of(base)
        if change.space == "logit":
            base = base.at(base.temperature / (change.power or 1))
            return SparseProbabilities.tilted(base, change.entries(), self.asked)
        return SparseProbabilities.changed(base, change.scale, change.entries(), change.signed, self.floor, self.asked)

    def log_prob(self, classes: Tensor) -> Tensor:
        """Log-probability float32 (q,) of one class of each row, int64 (q,); of several labels, 0 or 1 (q, L), the mean
        over them."""
        if isinstance(self.root, Sigmoid):
            has = self.probabilities
            return torch.where(classes.to(has.device) > 0, has, 1 - has).clamp_min(TINY).log_().mean(dim=1)
        return self.at(classes).clamp_min(TINY).log() if self.is_wide else self.sparse.log_prob(classes)

    def at(self, classes: Tensor) -> Tensor:
        """Probabilities float32 of classes int64 (q,) or (q, m), of the same shape."""
        if self.is_wide:
            columns = classes.to(self.probabilities.device)
            return self.probabilities.gather(1, columns if classes.ndim > 1 else columns[:, None]).view(classes.shape)
        return self.sparse.at(classes)

    def argmax(self) -> Tensor:
        """The class of the best score, int64 (q,); of several labels, 1 for those whose score is above 1/2, (q, L)."""
        if isinstance(self.root, Sigmoid):
            return (self.scores > (0.5 if self.space == "probability" else 0.0)).long()
        if self.is_wide:
            return self.scores.argmax(dim=1)
        best = self.sparse.argmax()
        if self.change is None or self.floor <= 1 / self.n_outputs or not isinstance(self.base, Softmax):
            return best
        # So high a floor may lift another class's probability above that of the best score.
        lifted = self.sparse.at(best) <= self.floor * self.base.confidence().exp()
        return self.scores.argmax(dim=1) if bool(lifted.any()) else best

    def in_gauge(self) -> Tensor:
        """Logits float32 (q, L) whose softmax are the probabilities, and whose logsumexp is that of the model's own
        logits."""
        if self.few is not None:
            return torch.from_numpy(self.few.in_gauge(self.floor))
        changed = self.log_probabilities()
        return changed.add_(self.softmax.at(1.0).partition.to(changed.device)[:, None])

    def log_probabilities(self) -> Tensor:
        """Log-probabilities of every class, float32 (q, L)."""
        if self.few is not None:
            return torch.from_numpy(self.few.log_probabilities(self.floor))
        return self.probabilities.clamp_min(TINY).log_() if self.is_wide else self.sparse.log_probabilities()
