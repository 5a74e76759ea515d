"""Edits: single answers set right for good, each by a row with a radius that is read before the memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from residua.core import Array, Change, Encoded, LabelValues, Logits, Prediction, Term
from residua.errors import InputError, ParameterError, ShapeError, TaskError
from residua.folder import EDITS
from residua.memory import Memory
from residua.memory.table import Column
from residua.readers.familiarity import Familiarity
from residua.readers.neighbour import positive
from residua.readers.reader import OWN, QUERIES, Exclude, Reader, TextState, reader_of, register_reader

REACH = 0.75
SHARE = 0.99
SAME = 0.01  # of the typical distance between neighbours: so near, two keys are of one example
MARGIN = "margin"  # the edits' column: how far the nearest remembered row of another label is
LOOKED_AT = (16, 128, 1024)  # neighbours, until one is of another label


@dataclass(frozen=True)
class Decision(Term):
    """What edits say; each is called by its number."""

    ids: Column | None = None  # by row of the edits

    def called(self, row: int) -> str:
        return self.source if self.ids is None else f"edit {int(self.ids[torch.tensor([row])])}"


@register_reader
class Edited(Reader):
    """Read edits before another reader: the nearest one decides, where the query lies within its radius (GRACE,
    arXiv 2211.11031).

    An edit reaches `reach` of the way to its nearest neighbour of another label, among the remembered rows and the
    edits; and as far as the nearest edit of its own label, where that is nearer. So a new edit splits the radius of
    what it contradicts, grows that of what it confirms, and, once forgotten, leaves no trace.

    Where an edit decides, ``p = (1 - lmbda) * p_over + lmbda * onehot(label)``; everywhere else ``p = p_over``.
    ``scores`` are proper probabilities. ``rs.edit`` makes one, and adds to it.

    Parameters
    ----------
    over : Reader
        What answers where no edit does: ``rs.ResMem(memory)``, a cache, or ``rs.KNNLM(memory, k=0)`` for the model
        alone.
    edits : Memory
        The edits, rows of a memory of their own: ``edits.forget(17)`` undoes edit 17, ``edits.undo()`` what came last;
        ``edits.to_frame()`` and ``edits.log()`` list them. Their column ``margin`` is the distance (plain Euclidean) to
        the nearest row of another label that was remembered when the edit was made.
    reach : float in (0, 1], default 0.75
        The radius, in margins.
    lmbda : float in (0.5, 1), default 0.99
        An edit's share where it decides.

    Raises
    ------
    ParameterError, TaskError, ShapeError, InputError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> memory = rs.Memory(rs.Encoded([[0.0], [1.0], [8.0]], np.zeros((3, 2)), [0, 0, 1]))
    >>> reader = rs.edit(rs.ResMem(memory, k=1), rs.Encoded([[4.0]], np.zeros((1, 2))), [1])
    >>> queries = rs.Encoded([[1.0], [2.0], [3.9]], np.zeros((3, 2)))
    >>> reader.radii.tolist(), reader.predict(queries).tolist()
    ([2.25], [0, 1, 1])
    >>> reader.edits.forget(0), reader.predict(queries).tolist()
    (1, [0, 0, 0])
    """

    memory: Memory
    k: int
    temperature: float
    over: Reader
    edits: Memory
    reach: float
    lmbda: float

    def __init__(self, over: Reader, edits: Memory, reach: float = REACH, lmbda: float = SHARE):
        editable(over)
        if not isinstance(edits, Memory):
            raise ParameterError(f"edits are a {type(edits).__name__}; expected a Memory of them, as rs.edit makes one")
        if (edits.task, edits.dim) != (over.memory.task, over.memory.dim):
            given = f"edits of {edits.task} and keys of {edits.dim}"
            raise ShapeError(f"{given} for a memory of {over.memory.task} and keys of {over.memory.dim}")
        if not edits.has_column(MARGIN):
            raise InputError(f"the edits lack the column {MARGIN!r}: make them by rs.edit(reader, examples, labels)")
        if positive("reach", reach) > 1:
            raise ParameterError(f"reach={reach!r}; expected a share > 0 and <= 1 of the way to another label")
        if not (isinstance(lmbda, Real) and 0.5 < lmbda < 1):
            raise ParameterError(f"lmbda={lmbda!r}; expected a share > 0.5 and < 1, so that an edit decides")
        self.over, self.edits, self.reach, self.lmbda = over, edits, float(reach), float(lmbda)
        self.memory, self.k, self.temperature = over.memory, over.k, over.temperature

    @property
    def is_noop(self) -> bool:
        return self.over.is_noop and not len(self.edits)

    @property
    def is_base(self) -> bool:
        return self.over.is_base and not len(self.edits)

    @property
    def radii(self) -> np.ndarray:
        """How far each edit reaches, plain Euclidean float32 (n,), in the order of ``edits.ids``."""
        with self.edits.reading():
            edits = self.edits.now
            found = [self._radii(edits, rows) for rows in edits.active_rows.split(QUERIES)]
        return torch.cat([torch.empty(0), *(part.cpu() for part in found)]).numpy()

    def familiarity(self, data: Encoded | Iterable[Encoded], exclude: Exclude = OWN) -> Familiarity:
        """That of the reader under the edits."""
        return self.over.familiarity(data, exclude)

    def start(self) -> TextState | None:
        return self.over.start()

    def at_once(self, keys: Tensor, logits: Tensor) -> Tensor | None:
        return None if bool((self._deciding(keys)[0] >= 0).any()) else self.over.at_once(keys, logits)

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
        # Edits have numbers of their own: what is excluded are rows of the memory.
        text: dict[str, Any] = {"state": state, "documents": documents, "tokens": tokens}
        deciding, distances, edits = self._deciding(keys)
        values, ids = LabelValues(edits.column("label")), edits.column("id")
        for rows, under in self.over.read(keys, logits, excluded, depth=depth, **text):
            weights = (deciding[rows] >= 0) * self.lmbda
            change = None
            if bool((weights > 0).any()):
                term = Decision(deciding[rows], weights, values, "edit", distances[rows], ids)
                change = Change(1 - weights, (term,))
            yield rows, Prediction(under, under.neighbours, change and (lambda change=change: change))

    def _deciding(self, keys: Tensor) -> tuple[Tensor, Tensor, Memory]:
        """Of each query the row of the edit that decides it, int64 (q, 1), -1 where none does, and its distance; and
        the edits, as they are now."""
        with self.edits.reading():
            edits = self.edits.now
            near = edits.search(keys, 1)
            rows, distances = near.rows.clone(), near.distances
            close = rows >= 0  # none reaches further than its margin, or than one and the same example
            close &= distances <= _margins(edits, rows.clamp_min(0)).clamp_min(self.same)
            at = close[:, 0].nonzero()[:, 0]
            if len(at):
                asked, which = rows[at, 0].unique(return_inverse=True)
                radii = torch.cat([self._radii(edits, part) for part in asked.split(QUERIES)])
                close[at, 0] = distances[at, 0] <= radii[which]
            return rows.masked_fill_(~close, -1), distances, edits

    def _radii(self, edits: Memory, rows: Tensor) -> Tensor:
        """How far the edits in these rows (m,) reach, float32 (m,)."""
        margin, same = _margins(edits, rows), self.same
        labels = edits.column("label")[rows].long()
        own, other = nearest(edits, edits.keys_at(rows), labels, same, far=margin)
        margin = torch.minimum(margin, other)
        radius = torch.where(own < margin, torch.maximum(own, self.reach * margin), self.reach * margin)
        return radius.clamp_min(same)

    @property
    def same(self) -> float:
        """How far two keys of one example may be from each other: the least radius."""
        return SAME * self._kept("typical", (), lambda: typical(self.memory))

    def _made(self, params: dict[str, Any]) -> Self:
        return type(self)(**params)

    def beside(self) -> dict[str, Memory]:
        return super().beside() | {EDITS: self.edits}

    def to_json(self) -> dict[str, Any]:
        about = super().to_json()
        del about["params"]["edits"]  # which lie in a folder of their own
        return about

    @classmethod
    def from_json(cls, params: dict[str, Any], memory: Memory) -> Self:
        return cls(**{**params, "over": reader_of(params["over"], memory), "edits": memory._beside(EDITS)})

    def __repr__(self) -> str:
        return f"Edited({self.over!r}, {len(self.edits)} edits, reach={self.reach:g}, lmbda={self.lmbda:g})"


def editable(reader: Reader) -> Reader:
    """`reader`, if its answers can be edited: ``ParameterError`` or ``TaskError``."""
    if not isinstance(reader, Reader):
        raise ParameterError(f"got a {type(reader).__name__} where a reader is expected, such as rs.ResMem(memory)")
    if reader.beside():
        raise ParameterError(
            f"this {type(reader).__name__} reads edits already, under it or itself; edit the one that holds them"
        )
    if reader.memory.task != "classification":
        raise TaskError(f"an edit gives a class or a token, and this is a {reader.memory.task} memory: add rows to it")
    return reader


def typical(memory: Memory) -> float:
    """The typical distance between neighbours; 0 where all keys are the same."""
    try:
        return memory.median_nn_distance()
    except InputError:
        return 0.0


def nearest(memory: Memory, keys: Tensor, labels: Tensor, apart: float, far: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (m,) from `keys` (m, d) to the nearest rows of the same label and of another, of those farther than
    `apart`; inf where there is none.

    Nobody looks beyond `far` (m,), nor at more than 1024 neighbours: where these are all of one label, the distance to
    the last of them stands for that to another one.
    """
    own, other = far.new_full(far.shape, torch.inf), far.new_full(far.shape, torch.inf)
    left = torch.arange(len(keys) if len(memory) else 0, device=far.device)
    for k in LOOKED_AT:
        if not len(left):
            break
        near = memory.search(keys[left], min(k, len(memory)))
        counts = near.found & (near.distances > apart)
        alike = memory.column("label")[near.rows.clamp_min(0)].long() == labels[left, None]
        own[left] = near.distances.masked_fill(~(counts & alike), torch.inf).amin(dim=1)
        other[left] = near.distances.masked_fill(~(counts & ~alike), torch.inf).amin(dim=1)
        last = near.distances[:, -1]
        more = other[left].isinf() & (last < far[left]) & (near.k < len(memory))
        if k == LOOKED_AT[-1]:
            other[left] = torch.where(more, last, other[left])
        left = left[more]
    return own, other


def _margins(edits: Memory, rows: Tensor) -> Tensor:
    margins = edits.column(MARGIN)[rows]
    assert isinstance(margins, Tensor)
    return margins
