"""One predicted token taken apart: the base's share, and each remembered context's contribution."""

from __future__ import annotations

import numpy as np
import torch

from residua.core import Encoded, Softmax
from residua.errors import ParameterError, ShapeError
from residua.explanation.token_explanation import TokenExplanation
from residua.readers import Reader


def explain_token(reader: Reader, query: Encoded, exclude_ids=None, *, context: int = 12) -> TokenExplanation:
    """Which remembered contexts moved a prediction of the next token, and how far. See ``rs.explain``."""
    if reader.stateful:
        raise ParameterError(
            f"a {type(reader).__name__} looks back over a whole text, and one row of it was given; explain the reader "
            "it is over: rs.explain(reader.over, query)"
        )
    if len(query) != 1:
        raise ShapeError(f"got {len(query)} rows; one prediction is explained at a time: index one, such as batch[7]")
    reader.check(query)
    memory = reader.memory
    device = memory.device
    excluded = None if exclude_ids is None else np.asarray(exclude_ids).reshape(1, -1)
    base = Softmax(query.logits, reader.temperature)
    searched = reader.k if len(memory) else 0
    neighbours = reader.gated(memory.search(torch.as_tensor(query.keys), searched, excluded), query.logits)
    change = reader.change(neighbours)
    found = neighbours.found[0]
    rows, weights = neighbours.rows[0][found], change.weights[0][found]
    tokens, values = (
        (part[found] for part in change.contributions(0)) if len(rows) else (rows[:, None], weights[:, None])
    )
    touched, where = torch.unique(tokens, return_inverse=True)
    added = torch.zeros(len(touched), device=device).index_add_(0, where.reshape(-1), values.reshape(-1).float())
    scale = float(change.scale[0, 0])
    likeliest = int(query.logits.argmax()[0])
    candidates = torch.unique(torch.cat([touched, torch.tensor([likeliest], device=device)]))
    scores = scale * _at(base, candidates, device)
    scores[torch.searchsorted(candidates, touched)] += added
    prediction = int(candidates[scores.argmax()])
    told = {"predicted": prediction, "base": likeliest}
    if query.labels is not None:
        told["true"] = int(query.labels[0])
    labels = memory.table["label"][rows].long()
    return TokenExplanation(
        rows=rows.cpu().numpy(),
        ids=memory.table["id"][rows].cpu().numpy(),
        offsets=memory.table["column.offset"][rows].cpu().numpy(),
        labels=labels.cpu().numpy(),
        contexts=[memory.context(int(row), context) for row in rows],
        names=memory.names,
        distances=neighbours.distances[0][found].cpu().numpy(),
        weights=weights.cpu().numpy(),
        contributions={
            word: (values * (tokens == token)).sum(dim=1).float().cpu().numpy() for word, token in told.items()
        },
        scale=scale,
        tokens=candidates.cpu().numpy(),
        base=_at(base, candidates, device).cpu().numpy(),
        scores=scores.cpu().numpy(),
        prediction=prediction,
        base_prediction=likeliest,
        label=told.get("true"),
    )


def _at(base: Softmax, tokens: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The base's probability of some tokens (m,), float32."""
    return base.log_prob(tokens[None].to(base.partition.device))[0].exp().to(device)
