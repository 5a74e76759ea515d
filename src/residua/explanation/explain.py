"""One prediction taken apart into the base's share and each neighbour's contribution."""

from __future__ import annotations

import numpy as np
import torch

from residua.core import Encoded
from residua.errors import InputError, ParameterError, ShapeError
from residua.explanation.explanation import Explanation
from residua.explanation.token_explanation import TokenExplanation
from residua.explanation.tokens import explain_token
from residua.readers import Reader


def explain(reader: Reader, query: Encoded, exclude_ids=None) -> Explanation | TokenExplanation:
    """Which remembered examples moved a prediction, and how far.

    Parameters
    ----------
    reader : Reader
        ``rs.ResMem(memory)``, ``rs.KNNLM(memory)``, what ``rs.tune`` gave.
    query : Encoded
        One row, such as ``enc[7]``; its label, if it has one, is shown beside the prediction.
    exclude_ids : int or int array, optional
        Ids whose rows are not its neighbours, such as its own when it is remembered.

    Returns
    -------
    Explanation
        ``scale * base + contributions.sum(axis=0)`` is ``reader.scores(query)[0]``, up to float32 rounding. For a
        memory of tokens a ``TokenExplanation``: the retrieved contexts and their next tokens.

    Raises
    ------
    ShapeError
        When there is not exactly one row, or it does not fit the memory.
    InputError
        When `query` is no Encoded.
    ParameterError
        When `reader` is no reader.
    TaskError, SourceMismatchError, IdError
        When the row comes from another task or model, or exclude_ids are not integers.

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
    if reader.memory.of_tokens:
        return explain_token(reader, query, exclude_ids)
    if len(query) != 1:
        raise ShapeError(f"got {len(query)} rows; one prediction is explained at a time: index one, such as enc[7]")
    reader.check(query)
    memory = reader.memory
    base = reader.base(query.logits).to(memory.device)
    if reader.k and len(memory):
        excluded = None if exclude_ids is None else np.asarray(exclude_ids).reshape(1, -1)
        neighbours = reader.gated(memory.search(query.keys, reader.k, excluded), query.logits)
        change = reader.change(neighbours)
        found = neighbours.found[0]
        rows, distances, weights = neighbours.rows[0][found], neighbours.distances[0][found], change.weights[0][found]
        classes, values = change.contributions(0)
        contributions = torch.zeros_like(base).repeat(len(values), 1).scatter_add_(1, classes, values)[found]
        scale, scores = float(change.scale[0, 0]), change.apply(base)
    else:  # the base itself
        distances = weights = base.new_empty(0)
        rows, contributions = distances.long(), base.new_empty(0, memory.n_outputs)
        scale, scores = 1.0, base
    labels = memory.table["label"][rows].cpu().numpy()
    labels = labels.astype(np.int64) if memory.task == "classification" else labels
    truth = None if query.labels is None else query.labels[0]
    flat = memory.task == "regression" and memory.flat_labels
    return Explanation(
        task=memory.task,
        rows=rows.cpu().numpy(),
        ids=memory.table["id"][rows].cpu().numpy(),
        labels=labels[:, 0] if flat else labels,
        distances=distances.cpu().numpy(),
        weights=weights.cpu().numpy(),
        contributions=contributions.cpu().numpy(),
        base=base[0].cpu().numpy(),
        scale=scale,
        scores=scores[0].cpu().numpy(),
        prediction=_predicted(scores[0].cpu().numpy(), memory.task, flat),
        base_prediction=_predicted(base[0].cpu().numpy(), memory.task, flat),
        label=truth if truth is None or np.ndim(truth) else truth.item(),
        columns={name: memory.table[f"column.{name}"][rows].cpu().numpy() for name in memory.columns},
    )


def _predicted(scores: np.ndarray, task: str, flat: bool) -> int | float | np.ndarray:
    if task == "classification":
        return int(scores.argmax())
    return float(scores[0]) if flat else scores
