"""Which remembered labels are doubtful, what each row is worth, and which rows are there twice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from residua.core import DenseLogits, Encoded, Neighbours, Prediction, as_tensor, batches
from residua.core.encoded import labels_of
from residua.core.probabilities import TINY
from residua.errors import EmptyMemoryError, InputError, ParameterError, StorageError, TaskError
from residua.memory import Memory
from residua.progress import progress_bar
from residua.readers import KNNLM, NeighbourReader, Reader
from residua.readers.reader import QUERIES
from residua.review.queue import Audit
from residua.review.worth import answered, influences, shapley, without

NEIGHBOURS, SHARE = 50, 0.5  # of the reader that reads a memory given alone
EXACT = 10_000  # queries, up to which Shapley values are exact
ENTRIES = 2**22  # neighbours held at a time


class Asked(NamedTuple):
    """Some queries, answered without their own rows."""

    keys: Tensor  # (q, d)
    labels: Tensor  # int64 (q,)
    prediction: Prediction
    near: Neighbours  # of the searched ones, as deep as was asked for
    players: Tensor  # int64 (q,): remembered rows but their own


def audit(
    reader: Memory | Reader,
    utility: Encoded | Iterable[Encoded] | None = None,
    *,
    epsilon: float = 0.002,
    duplicates: float = 0.1,
    progress: bool | None = None,
) -> Audit:
    """Look at a memory's own rows as a reviewer would: a queue of doubtful labels, and what each row is worth.

    Nothing is changed or forgotten: dropping what looks doubtful seldom mends a model. All values are exact, for a
    reader of neighbours without a row is known from its next neighbour. Rows that share an id are one example: each is
    asked without all of them.

    Parameters
    ----------
    reader : Memory or NeighbourReader
        Of a classification. A memory alone is read by ``rs.KNNLM(memory, 50, lmbda=0.5, kernel="exponential")``: half
        the neighbours' votes, for a model may know a wrong label by heart; without logits by the votes alone.
    utility : Encoded or iterable of Encoded, optional
        Labelled rows, such as a validation set, that rows are worth something to, and are compared with. None: the
        memory's own rows, each without itself.
    epsilon : float in (0, 1), default 0.002
        For over 10 000 utility rows: how far a KNN-Shapley value may be off, for speed. Of fewer it is exact.
    duplicates : float, default 0.1
        Two rows are near-duplicates up to so many times the median distance from a row to its nearest other key.
    progress : bool, optional
        A bar: always, or never; by default only on a terminal, after a second.

    Returns
    -------
    Audit
        ``to_frame()`` is the queue; ``pred_probs`` and ``knn_graph`` are what cleanlab's Datalab takes.

    Raises
    ------
    TaskError, EmptyMemoryError, ParameterError, StorageError, LabelError, InputError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> keys = np.array([[0.0], [0.1], [0.2], [1.0], [1.1], [1.2]])
    >>> memory = rs.Memory(rs.Encoded(keys, np.zeros((6, 2)), [0, 1, 0, 1, 1, 1]))  # row 1 is wrong
    >>> review = rs.audit(memory)
    >>> review.to_frame()[["id", "label", "suggested", "margin"]].round(2).head(2)
       id  label  suggested  margin
    1   1      1          0   -1.10
    2   2      0          1   -0.47
    >>> bool(np.isclose(review.shapley.sum(), review.utility))
    True
    """
    reader = _reader_of(reader)
    memory, k = reader.memory, reader.k
    if not 0 < epsilon < 1:
        raise ParameterError(f"epsilon={epsilon!r}; expected a number between 0 and 1, such as 0.002")
    if not 0 <= duplicates < math.inf:
        raise ParameterError(f"duplicates={duplicates!r}; expected a number >= 0: multiples of the typical distance")
    given = None if utility is None else [part for part in batches(utility) if len(part)]
    if given is not None and not given:
        raise InputError("the utility rows are none; expected labelled rows, or None for the memory's own")
    n, m = len(memory), len(memory) if given is None else sum(map(len, given))
    exact = m <= EXACT and memory.index.exact
    ranks = n if exact else min(n, max(k, math.ceil(1 / epsilon)))
    place = np.full(memory.n_rows, -1)
    place[memory.active_rows.cpu().numpy()] = np.arange(n)
    worth = _Worth(reader, ranks, place, n)
    found: list[dict[str, np.ndarray]] = []
    steps = n + (0 if given is None else m)
    with memory.reading(), progress_bar(progress, desc="audit", unit="row", total=steps) as bar:
        for whole, asked in _own(reader, max(k + 1, ranks) if given is None else k):
            found.append(_reviewed(reader, whole, asked, place))
            if given is None:
                worth.add(asked)
            bar.update(len(asked.labels))
        for asked in () if given is None else _of(reader, given, max(k + 1, ranks)):
            worth.add(asked, compared=True)
            bar.update(len(asked.labels))
    rows = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    full = (rows["neighbours"] >= 0).all(axis=0)  # ranks that every row has: cleanlab reads rectangles
    near, edges = rows.pop("neighbours")[:, full], np.arange(n + 1) * full.sum()
    graph = csr_matrix((rows.pop("distances")[:, full].ravel(), near.ravel(), edges), shape=(n, n))
    apart = rows["nearest_distance"][rows["nearest_distance"] > 0]
    return Audit(
        reader=type(reader).__name__,
        params=reader.to_json()["params"],
        ids=memory.ids,
        labels=memory.labels,
        **rows,
        influence=worth.influence / m,
        shapley=worth.shapley / m,
        utility=worth.utility / m,
        n_utility=m,
        shapley_error=0.0 if ranks >= n and memory.index.exact else 1 / ranks,
        nearest_test=None if given is None else worth.nearest,
        test_distance=None if given is None else worth.distance,
        duplicate_distance=duplicates * float(np.median(apart)) if len(apart) else 0.0,
        knn_graph=graph,
        names={id: ", ".join(memory.names.all(id)) for id in memory.names},
        columns={name: memory.column(name)[memory.active_rows].cpu().numpy() for name in memory.schema.columns},
        classes=memory.schema.classes,
    )


def _reader_of(given: Memory | Reader) -> NeighbourReader:
    """A reader whose rows can be reviewed."""
    if not isinstance(given, (Memory, NeighbourReader)):
        raise ParameterError(f"got a {type(given).__name__}; expected a Memory, or a reader such as rs.ResMem(memory)")
    memory = given if isinstance(given, Memory) else given.memory
    if memory.task != "classification" or memory.schema.is_text:
        kind = "text" if memory.schema.is_text else memory.task
        raise TaskError(f"a memory of {kind} has no labels to review: expected one class a row")
    if len(memory) < 2:
        few = f"the memory has {len(memory)} row{'' if len(memory) == 1 else 's'}"
        raise EmptyMemoryError(f"{few}; a row is reviewed by its neighbours: add some first")
    if isinstance(given, Memory):
        share = 1.0 if memory.stored_logits is None else SHARE
        return KNNLM(memory, min(NEIGHBOURS, len(memory) - 1), share, kernel="exponential")
    if given.is_noop:
        raise ParameterError("this reader asks no neighbour (k=0): nothing in the memory is worth anything to it")
    if memory.stored_logits is None:
        what = "this memory keeps no logits (storage='none'), from which a reader starts"
        raise StorageError(f"{what}; audit the memory itself: rs.audit(memory)")
    return given


def _own(reader: NeighbourReader, depth: int) -> Iterator[tuple[Tensor, Asked]]:
    """The memory's rows in order: what the reader gives each one's label with its own rows, and without."""
    memory = reader.memory
    rows, ids = memory.active_rows, memory.column("id")
    own_ids, counts = np.unique(memory.ids, return_counts=True)
    sharing = int(counts.max())  # so many of the nearest may be a query's own
    for part in rows.split(_step(depth + sharing)):
        keys, own = memory.keys_at(part), ids[part]
        labels = memory.column("label")[part].long()
        rivals = len(memory) - torch.from_numpy(counts[np.searchsorted(own_ids, own.cpu().numpy())])
        logits = memory.stored_logits
        said = logits.rows(part) if logits is not None else DenseLogits(torch.zeros(len(part), memory.n_outputs))
        for some, prediction in reader.read(keys, said, depth=depth + sharing):
            near, searched = prediction.near, own[some] if prediction.asked is None else own[some][prediction.asked]
            dropped = (ids[near.rows.clamp_min(0)] == searched[:, None]) | ~near.found
            others = without(near, dropped, depth)
            whole = answered(reader, prediction, near.first(reader.k), keys[some]).at(labels[some])
            left = answered(reader, prediction, others.first(reader.k), keys[some])
            yield whole.double(), Asked(keys[some], labels[some], left, others, rivals[some])


def _of(reader: NeighbourReader, utility: list[Encoded], depth: int) -> Iterator[Asked]:
    """Other rows, each without what the memory holds of its own id."""
    memory, step = reader.memory, _step(depth)
    known, counts = np.unique(memory.ids, return_counts=True)
    for batch in utility:
        if batch.task not in (None, memory.task):
            raise TaskError(f"the utility rows are of a {batch.task}; expected class indices, as the memory's labels")
        labels_of(batch, "what a row is worth is told by them")
    small = (batch[i : i + step] for batch in utility for i in range(0, len(batch), step))
    for part, prediction in reader.predictions(small, depth=depth):
        players = np.full(len(part), len(memory))
        if part.ids is not None:
            at = np.searchsorted(known, part.ids).clip(max=len(known) - 1)
            players -= np.where(known[at] == part.ids, counts[at], 0)
        labels = as_tensor(labels_of(part, "")).long().to(memory.device)
        yield Asked(as_tensor(part.keys), labels, prediction, prediction.near, torch.from_numpy(players))


def _step(depth: int) -> int:
    """Queries at a time, with so many neighbours each."""
    return max(1, min(QUERIES, ENTRIES // depth))


def _reviewed(reader: NeighbourReader, whole: Tensor, asked: Asked, place: np.ndarray) -> dict[str, np.ndarray]:
    """What is kept of some of the memory's rows."""
    probabilities = asked.prediction.probabilities
    labels = asked.labels.to(probabilities.device)[:, None]
    own = probabilities.gather(1, labels)[:, 0]
    rival = probabilities.scatter(1, labels, -1.0).amax(dim=1)
    near = asked.prediction.neighbours.first(reader.k)
    nearest = near.rows[:, 0].cpu().numpy()
    kept = {
        "suggested": probabilities.argmax(dim=1),
        "margin": own.clamp_min(TINY).log() - rival.clamp_min(TINY).log(),
        "memorisation": whole.to(own.device) - own.double(),
        "pred_probs": probabilities.float(),
        "distances": near.distances.float(),
        "nearest_distance": near.distances[:, 0].float().masked_fill(near.rows[:, 0] < 0, math.nan),
    }
    said = {name: values.cpu().numpy() for name, values in kept.items()}
    rows = near.rows.cpu().numpy()
    said["neighbours"] = np.where(rows >= 0, place[rows], -1)
    said["nearest"] = np.where(nearest >= 0, place[nearest], -1)
    return said


class _Worth:
    """Sums over queries of what each remembered row does for them."""

    def __init__(self, reader: NeighbourReader, ranks: int, place: np.ndarray, n: int):
        self.reader, self.ranks, self.place = reader, ranks, place
        self.influence, self.shapley, self.utility = np.zeros(n), np.zeros(n), 0.0
        self.nearest, self.distance = np.full(n, -1), np.full(n, np.inf, np.float32)
        self.labels, self.queries = reader.memory.labels, 0

    def add(self, asked: Asked, compared: bool = False) -> None:
        """Some more queries; `compared`: each row's nearest query is wanted too."""
        near, k = asked.near, self.reader.k
        searched = slice(None) if asked.prediction.asked is None else asked.prediction.asked
        deltas = influences(self.reader, asked.prediction, near.first(k + 1), asked.keys, asked.labels)
        _add(self.influence, self._places(near.first(k)), deltas.cpu().numpy())
        ranked = near.first(min(self.ranks, near.k))
        places = self._places(ranked)
        there = places >= 0
        match = (self.labels[places] == asked.labels[searched].cpu().numpy()[:, None]) & there
        _add(self.shapley, places, shapley(match, asked.players[searched].numpy(), k))
        self.utility += float(match[:, :k].sum()) / k
        if compared:
            distances = np.where(there, ranked.distances.cpu().numpy(), np.inf)
            queries = np.arange(self.queries, self.queries + len(asked.labels))[searched]
            for query, row, distance in zip(queries, places, distances):
                nearer = row[distance < self.distance[row]]
                self.nearest[nearer], self.distance[nearer] = query, distance[distance < self.distance[row]]
        self.queries += len(asked.labels)

    def _places(self, near: Neighbours) -> np.ndarray:
        rows = near.rows.cpu().numpy()
        return np.where(rows >= 0, self.place[rows], -1)


def _add(total: np.ndarray, places: np.ndarray, values: np.ndarray) -> None:
    there = places >= 0
    total += np.bincount(places[there], weights=values[there], minlength=len(total))
