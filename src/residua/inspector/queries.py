"""Data that were searched once: what any setting makes of them costs no other search, and an edit only a small one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residua.core import Base, Encoded, Neighbours, Prediction, as_tensor, batches
from residua.errors import InputError
from residua.evaluation import classification, multilabel, regression
from residua.memory import Memory
from residua.memory.arguments import names_of
from residua.memory.history import Event
from residua.memory.schema import unit
from residua.readers import NeighbourReader
from residua.readers.reader import QUERIES

MOST = 10_000  # queries that are held
NUMBERS = 10**8  # of what the model says of them: of a vocabulary fewer queries are held
DEEP, DEEPEST = 256, 1024  # neighbours that are known of each query: twice the reader's own, within these; or its own
SLACK = 1e-5  # of a distance, and of a key's length: more than float32 rounds them by
FEW = 1024  # newcomers among the remembered rows; of more, everything is searched again

_TASKS = {"classification": classification, "multi-label": multilabel, "regression": regression}


@dataclass
class Block:
    """A few queries, the neighbours that were found of them, and what is known of the model's own answers."""

    part: Encoded
    prediction: Prediction
    bases: dict[float, Base] = field(default_factory=dict)  # of the last temperature

    @cached_property
    def keys(self) -> Tensor:
        """Their keys, (q, d)."""
        return as_tensor(self.part.keys)

    @cached_property
    def of_base(self) -> dict[str, np.ndarray]:
        """What is measured of the model as it is."""
        return classification.of_base(self.part, self.prediction)

    def answered(self, reader: NeighbourReader) -> Prediction:
        """What `reader` makes of them."""
        at = 1.0 if reader.memory.task == "regression" else reader.temperature
        if at not in self.bases:
            self.bases = {at: reader.base(self.part.logits)}
        return reader.reread(self.prediction, self.keys, self.bases[at])

    def measured(self, reader: NeighbourReader) -> dict[str, np.ndarray]:
        """What ``rs.evaluate`` measures of each of them."""
        now = self.answered(reader)
        if reader.memory.task == "classification":
            return classification.measure(self.part, now, self.of_base)
        return _TASKS[reader.memory.task].measure(self.part, now)


class Queries:
    """Rows of data, whose neighbours are known as the memory is now.

    Parameters
    ----------
    reader : NeighbourReader
    data : Encoded or iterable of Encoded
        With labels where figures are wanted. Of more than `most` rows that are all there, rows at equal distances are
        held; of a stream the first.
    most, depth : int, optional
        How many rows are held, and how many neighbours of each. By default 10 000, fewer of a vocabulary, and twice the
        reader's own k, within 256 and 1024, but no fewer than k.

    Attributes
    ----------
    numbers : int64 array of shape (n,)
        Which rows of the data are held.
    total : int or None
        How many rows the data have, where that is known.
    """

    numbers: np.ndarray
    total: int | None
    depth: int

    def __init__(
        self,
        reader: NeighbourReader,
        data: Encoded | Iterable[Encoded],
        *,
        most: int | None = None,
        depth: int | None = None,
    ):
        memory = reader.memory
        most = max(1, min(MOST, NUMBERS // memory.n_outputs)) if most is None else most
        depth = max(DEEP, reader.k, min(2 * reader.k, DEEPEST)) if depth is None else depth
        self.depth = min(depth, max(len(memory), 1))
        self._lock = threading.RLock()
        self._parts, self.numbers, self.total = _held(data, most)
        if not len(self.numbers):
            raise InputError("the data hold no rows; expected at least one example")
        for part in self._parts:
            memory.schema.check_query(memory.schema.widened(part))
        ids = [part.ids for part in self._parts if part.ids is not None]
        self._names = names_of(data, np.concatenate(ids)) if ids else {}
        self._starts = np.cumsum([0, *map(len, self._parts)])
        self._blocks: list[Block] = []
        self._seen: tuple[Event, ...] = ()
        self._last: tuple[Any, dict[str, np.ndarray]] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def has_labels(self) -> bool:
        """Whether answers can be compared with the truth."""
        return all(part.labels is not None for part in self._parts)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What the data call the classes."""
        return self._parts[0].classes

    def name_of(self, row: Encoded) -> str | None:
        """What a row is called: by itself, or by its id."""
        if row.names is not None:
            return str(row.names[0])
        return None if row.ids is None else self._names.get(int(row.ids[0]))

    def __getitem__(self, place: int) -> Encoded:
        """One row, by its place among those that are held."""
        at = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._parts[at][place - int(self._starts[at])]

    def before(self, place: int, length: int) -> np.ndarray:
        """Of a text: the tokens before a row's own, of the same document, oldest first."""
        tokens = list[int]()
        while len(tokens) < length and place > 0:
            here, there = self[place], self[place - 1]
            if here.ids is None or there.ids is None or there.labels is None or here.ids[0] != there.ids[0]:
                break
            if here.columns["offset"][0] != there.columns["offset"][0] + 1:
                break
            tokens.append(int(there.labels[0]))
            place -= 1
        return np.array(tokens[::-1], np.int64)

    def measured(self, reader: NeighbourReader) -> dict[str, np.ndarray]:
        """What ``rs.evaluate(reader, data)`` measures of each row, arrays (n, ...) by name; ``LabelError`` without
        labels. Not those of label k-NN."""
        with self._lock, reader.memory.reading():
            key = (reader.memory.version, type(reader), repr(reader.params))
            if self._last is None or self._last[0] != key:
                self._follow(reader)
                blocks = [block.measured(reader) for block in self._blocks]
                rows = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
                self._last = key, rows
            return self._last[1]

    def figures(self, reader: NeighbourReader) -> dict[str, Any]:
        """What ``rs.evaluate(reader, data)`` reports of them, by its names."""
        return _TASKS[reader.memory.task].summary(self.measured(reader), reader.memory.n_outputs)

    def answers(self, reader: NeighbourReader) -> dict[str, np.ndarray]:
        """What is said of each row without its truth: ``prediction`` and ``base_prediction``, (n, ...)."""
        with self._lock, reader.memory.reading():
            self._follow(reader)
            said = [_said(block, reader) for block in self._blocks]
            return {name: np.concatenate([one[name] for one in said]) for name in said[0]}

    def _follow(self, reader: NeighbourReader) -> None:
        """Know the neighbours as the memory is now."""
        memory, log = reader.memory, reader.memory.log()
        same = bool(self._blocks) and len(self._seen) <= len(log) and all(a is b for a, b in zip(self._seen, log))
        new = log[len(self._seen) :]
        if same and not new:
            return
        searching = reader.searching_all().with_params(k=0) if "k" in reader.parameter_names() else reader
        changes = [event.changes for event in new]
        stale = None
        if same and memory.keys_kept and all(change is not None for change in changes):
            stale = self._touched(memory, changes)
        if stale is None:
            self._blocks = self._searched(searching, self._parts)
        else:
            self._search_again(searching, stale)
        self._seen = log

    def _touched(self, memory: Memory, changes: Sequence[Any]) -> Tensor | None:
        """Bool (n,): the queries that lost a neighbour, or that a newcomer is nearer to than their last one. None: so
        many rows came that all are to be searched."""
        active = memory.now.active_rows
        here = torch.zeros(memory.n_rows, dtype=torch.bool, device=memory.device)
        here[active] = True
        came = [torch.cat([change.restored, torch.arange(change.first, change.last)]) for change in changes]
        new = torch.cat(came).unique().to(memory.device)
        new = new[here[new]]
        if len(new) > FEW:
            return None
        keys, found = memory.keys_at(new) if len(new) else None, list[Tensor]()
        for block in self._blocks:
            near = block.prediction.near
            touched = (near.found & ~here[near.rows.clamp_min(0)]).any(dim=1)
            if keys is not None:
                queries = unit(block.keys) if memory.schema.normalise else block.keys
                queries = queries.to(keys.device).float()
                apart = torch.cdist(queries, keys, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
                # One too many is searched for nothing, so there is room for all rounding.
                rounding = SLACK * (near.distances[:, -1] + torch.linalg.vector_norm(queries, dim=1))
                touched |= apart <= near.distances[:, -1] + rounding
            found.append(touched)
        return torch.cat(found)

    def _search_again(self, searching: NeighbourReader, stale: Tensor) -> None:
        start = 0
        for block in self._blocks:
            own = stale[start : start + len(block.part)].nonzero()[:, 0]
            start += len(block.part)
            if not len(own):
                continue
            (again,) = self._searched(searching, [block.part[own.cpu().numpy()]])
            near, fresh = block.prediction.near, again.prediction.near
            rows, distances = near.rows.clone(), near.distances.clone()
            rows[own], distances[own] = fresh.rows, fresh.distances
            block.prediction = replace(block.prediction, near=Neighbours(rows, distances))

    def _searched(self, searching: NeighbourReader, parts: Sequence[Encoded]) -> list[Block]:
        blocks = list[Block]()
        for part, prediction in searching.predictions(parts, depth=self.depth):
            base = searching.base(part.logits)  # what the search made of them may be a vocabulary wide
            blocks.append(Block(part, Prediction(base, prediction.near, None)))
        return blocks


def _said(block: Block, reader: NeighbourReader) -> dict[str, np.ndarray]:
    now = block.answered(reader)
    if reader.memory.task == "regression":
        said = {"base_prediction": now.start, "prediction": now.scores}
    elif reader.memory.task == "multi-label":
        said = {"base_prediction": now.root.table() > 0.5, "prediction": now.argmax()}
    else:
        said = {"base_prediction": now.softmax.argmax(), "prediction": now.argmax()}
    return {name: values.cpu().numpy() for name, values in said.items()}


def _held(data: Encoded | Iterable[Encoded], most: int) -> tuple[list[Encoded], np.ndarray, int | None]:
    """At most so many rows of the data, in parts of a search's size; their numbers; and how many there are."""
    there = isinstance(data, (Encoded, Sequence))
    parts, numbers, first = list[Encoded](), list[np.ndarray](), 0
    given = list(batches(data)) if there else batches(data)
    total = sum(map(len, given)) if isinstance(given, list) else None
    is_text = isinstance(given, list) and any("offset" in part.columns for part in given)  # whose rows stay in a row
    wanted = (
        None if total is None or total <= most or is_text else np.linspace(0, total - 1, most).round().astype(np.int64)
    )
    for batch in given:
        last = first + len(batch)
        every = np.arange(first, min(last, most))
        own = every if wanted is None else wanted[(wanted >= first) & (wanted < last)]
        for begin in range(0, len(own), QUERIES):
            some = own[begin : begin + QUERIES]
            whole = len(some) == len(batch)
            parts.append(batch if whole else batch[some - first])
            numbers.append(some)
        first = last
        if wanted is None and first >= most:
            break
    return parts, np.concatenate(numbers) if numbers else np.empty(0, np.int64), total
