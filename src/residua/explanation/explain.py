"""One prediction taken apart into the base's share and each neighbour's contribution."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from residua.core import Encoded, Prediction
from residua.errors import InputError, ParameterError, ShapeError
from residua.explanation.explanation import Decoder, Explanation
from residua.memory import Memory
from residua.readers import Reader
from residua.readers.reader import OWN, Exclude, of_one_moment

EVERY = 1000  # up to so many outputs, an explanation speaks of all of them


@of_one_moment
def explain(
    reader: Reader, query: Encoded, *, exclude: Exclude = OWN, context: int = 12, tokenizer: Decoder | None = None
) -> Explanation:
    """Which remembered examples moved a prediction, and how far.

    Parameters
    ----------
    reader : Reader
    query : Encoded
        One row, such as ``enc[7]``; its label, if it has one, is shown beside the prediction.
    exclude : "own", None, or int or int array
        Ids whose rows are not its neighbours: by default its own, where it came with one.
    context, tokenizer
        Of a memory of text: how many remembered tokens are kept before each neighbour's, and whose ``decode`` shows
        tokens as text.

    Returns
    -------
    Explanation
        Its `scores` are ``reader.scores(query)[0]``: of every output, or of those that matter where there are over
        1 000. They are ``scale * base + contributions.sum(axis=0)``, up to float32 rounding.

    Raises
    ------
    ShapeError, InputError, ParameterError, TaskError, SourceMismatchError, IdError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> keys = np.array([[0.0], [1.0], [2.0]])
    >>> memory = rs.Memory(rs.Encoded(keys, np.zeros((3, 2)), [0, 1, 1]))
    >>> why = rs.explain(rs.ResMem(memory, k=2, sigma=1.0), rs.Encoded([[1.0]], np.zeros((1, 2))))
    >>> why.ids.tolist(), why.distances.tolist(), why.prediction
    ([1, 0], [0.0, 1.0], 1)
    >>> print(why)
    prediction 1 (base alone 0)
      class 1: base 0.5 +0.2311 from 2 neighbours = 0.7311
    ...
    """
    if not isinstance(reader, Reader):
        raise ParameterError(f"got a {type(reader).__name__} where a reader is expected, such as rs.ResMem(memory)")
    if not isinstance(query, Encoded):
        raise InputError(f"got a {type(query).__name__}; expected one row of an Encoded, such as enc[7]")
    if len(query) != 1:
        raise ShapeError(f"got {len(query)} rows; one prediction is explained at a time: index one, such as enc[7]")
    if reader.start() is not None:
        raise ParameterError(
            f"a {type(reader).__name__} looks back over a whole text, and one row of it was given; explain a reader "
            "that does not: a cache is over one, rs.explain(reader.over, query)"
        )
    if not reader.has_neighbours:
        raise ParameterError(
            f"a {type(reader).__name__} has no neighbours: all rows that it learned move every answer; explain the "
            "reader that it learned from"
        )
    given = exclude if exclude is None or isinstance(exclude, str) else np.asarray(exclude).reshape(1, -1)
    ((_, now),) = reader.predictions(query, exclude=given)
    while now.change is None and isinstance(now.base, Prediction):
        now = now.base  # a reader that changes nothing leaves it to the one under it
    memory, base, scores = reader.memory, now.start[0], now.scores[0]
    flat = memory.task == "regression" and memory.flat_labels
    label = None if query.labels is None else query.labels[0]
    if memory.task == "classification":
        under = now.base if isinstance(now.base, Prediction) else now.softmax
        prediction, base_prediction = int(now.argmax()[0]), int(under.argmax()[0])
        spoken = {prediction, base_prediction} | ({int(label)} if label is not None else set())
    else:
        said = [scores, base]
        if memory.task == "multi-label":
            said = [now.argmax()[0], (base > (0.5 if now.space == "probability" else 0)).long()]
        prediction, base_prediction = (float(s[0]) if flat else s.cpu().numpy() for s in said)
        spoken = set(range(memory.n_outputs))
    sources, rows, distances, weights, most, entries = _neighbours(now)
    outputs, contributions = _columns(entries, base, spoken)
    ids, labels = _of_rows(memory, "id", rows), _of_rows(memory, "label", rows)
    if memory.task == "multi-label":
        labels = labels.astype(np.int8)
    elif memory.target_centre is None:
        labels = np.where(labels < 0, most, labels).astype(np.int64)
    else:
        labels = labels.astype(np.float64) + memory.target_centre.cpu().numpy()
        labels = labels[:, 0] if flat else labels
    contexts = None
    if memory.schema.is_text:
        contexts = [memory.context(r, context) if r >= 0 else np.empty(0, np.int64) for r in rows.tolist()]
    return Explanation(
        task=memory.task,
        rows=rows.cpu().numpy(),
        ids=ids,
        labels=labels,
        distances=distances,
        weights=weights.cpu().numpy(),
        outputs=outputs.cpu().numpy(),
        contributions=contributions.cpu().numpy(),
        base=base[outputs].cpu().numpy(),
        scale=1.0 if now.change is None else float(now.change.scale[0, 0]),
        scores=scores[outputs].cpu().numpy(),
        prediction=prediction,
        base_prediction=base_prediction,
        label=label if label is None or np.ndim(label) else label.item(),
        columns={name: _of_rows(memory, name, rows) for name in memory.schema.columns} | _stands_for(memory, rows),
        names={id: ", ".join(memory.names.all(id)) for id in np.unique(ids).tolist() if id in memory.names},
        contexts=contexts,
        sources=tuple(sources),
        n_outputs=memory.n_outputs,
        query=query,
        space=now.space,
        shared=now.change is not None and any(term.shared for term in now.change.terms),
        tokenizer=tokenizer,
        classes=memory.schema.classes or query.classes,
    )


def _neighbours(
    now: Prediction,
) -> tuple[list[str], Tensor, np.ndarray, Tensor, list[int], list[tuple[Tensor, Tensor]]]:
    """Source, row (-1 where the source is another), distance (NaN where the source knows none), weight and most spoken
    of output of each of k found neighbours.

    And, term by term, the outputs (k, c) that each speaks of (repeated ones add up), with what it adds to them.
    """
    sources, distances, most, entries = [], [], [], []
    near = dict(zip(now.neighbours.rows[0].tolist(), now.neighbours.distances[0].tolist()))
    rows, weights = [now.start.new_empty(0, dtype=torch.int64)], [now.start.new_empty(0)]
    for term in () if now.change is None else now.change.terms:
        found = term.rows[0] >= 0
        own, weight = term.rows[0][found], term.weights[0][found]
        outputs, added = (part[found] for part in term.contributions(0))
        sources += [term.called(row) for row in own.tolist()]
        if term.source == "memory":
            rows.append(own)
            distances += [near.get(row, math.nan) for row in own.tolist()]
        else:
            rows.append(torch.full_like(own, -1))
            distances += [math.nan] * len(own) if term.distances is None else term.distances[0][found].tolist()
        weights.append(weight)
        most += outputs.gather(1, added.argmax(dim=1, keepdim=True))[:, 0].tolist()
        entries.append((outputs, added))
    far = np.array(distances, np.float32)
    return sources, torch.cat(rows), far, torch.cat(weights), most, entries


def _columns(entries: list[tuple[Tensor, Tensor]], base: Tensor, spoken: set[int]) -> tuple[Tensor, Tensor]:
    """The outputs (c,) that are spoken of, ascending, and what each neighbour adds to each, (k, c)."""
    shown = torch.full(base.shape, len(base) <= EVERY, device=base.device)
    shown[list(spoken)] = True
    for outputs, _ in entries:
        shown[outputs.reshape(-1)] = True
    place, counts = shown.cumsum(0) - 1, [len(values) for _, values in entries]
    added = base.new_zeros(sum(counts), int(shown.sum()))
    for (outputs, values), block in zip(entries, added.split(counts)):
        block.scatter_add_(1, place[outputs], values)
    return shown.nonzero()[:, 0], added


def _stands_for(memory: Memory, rows: Tensor) -> dict[str, np.ndarray]:
    """How many rows each of some stands for, where rows were merged."""
    if not memory.is_compressed:
        return {}
    return {"stands_for": memory.counts_at(rows.clamp_min(0)).cpu().numpy()}


def _of_rows(memory: Memory, name: str, rows: Tensor) -> np.ndarray:
    """What a column says of rows (k,); NaN, -1 or False where the row is -1."""
    values = memory.column(name)[rows.clamp_min(0)]
    if bool((rows < 0).any()):
        values[rows < 0] = math.nan if values.is_floating_point() else -int(values.dtype.is_signed)
    return values.cpu().numpy()
