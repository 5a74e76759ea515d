"""Does a reader keep the protocol: the same story from every question, and known to every verb."""

import json
import tempfile
from typing import Any

import numpy as np
import torch

from residua.core import Encoded, Prediction, Sigmoid, Table, as_tensor
from residua.core.encoded import labels_of
from residua.evaluation import evaluate
from residua.explanation import explain
from residua.index import RemoteIndex
from residua.readers import READERS, NeighbourReader, Reader, load
from residua.tuning import tune

WHY = "they are what the reader is asked for"


def check_reader(reader: Reader, queries: Encoded, *, grid: dict[str, Any] | None = None, atol: float = 1e-5) -> None:
    """Hold a reader to what every verb relies on; ``AssertionError`` says which promise is broken.

    Parameters
    ----------
    reader : Reader
        With a memory of some dozens of rows or more, and k > 0.
    queries : Encoded
        Some ten labelled rows with ids that its memory has not; of a reader that looks back, a text in order.
    grid : dict, optional
        What ``tune`` is tried with; by default two values of k.
    atol : float, default 1e-5
        How far two answers to one question may differ.

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> rng = np.random.default_rng(0)
    >>> enc = rs.Encoded(rng.normal(size=(60, 2)), rng.normal(size=(60, 3)), rng.integers(0, 3, 60))
    >>> queries = rs.Encoded(enc.keys[:9] + 0.1, enc.logits.dense()[:9], enc.labels[:9], ids=np.arange(9) + 1000)
    >>> check_reader(rs.KNNLM(rs.Memory(enc), k=5), queries)
    """
    _answers_agree(reader, queries, atol)
    scores = reader.scores(queries)
    missing = [name for name in reader.parameter_names() if not hasattr(reader, name)]
    assert not missing, f"the parameters {missing} are not attributes"
    json.dumps(reader.to_json())
    same = reader.with_params()
    assert same.to_json() == reader.to_json(), "with_params() without a change changes parameters"
    _same(same.scores(queries), scores, atol, "a copy with the same parameters gives other scores")
    everything = np.tile(np.unique(reader.memory.ids), (len(queries), 1))
    for _, now in reader.predictions(queries, exclude=everything) if reader.has_neighbours else ():
        if not isinstance(now.base, Prediction) and reader.start() is None:  # else the text's own past has a say
            _same(now.scores, now.start, atol, "with every row excluded the scores are not the base's")
    if reader.start() is None:
        parts = [queries[i : i + 1] for i in range(len(queries))]
        _same(reader.scores(parts), scores, atol, "rows given one by one get other scores")
        for i in range(min(3, len(queries)) if reader.has_neighbours else 0):
            why = explain(reader, queries[i])
            total = why.scale * why.base + why.contributions.sum(axis=0)
            _same(total, why.scores, atol, "an explanation's base and contributions do not add up to its scores")
            own = scores[i].reshape(-1)[why.outputs]
            _same(why.scores, own, atol, "an explanation has other scores than the reader gives")
    if isinstance(reader, NeighbourReader) and not hasattr(reader, "fit"):  # what is fitted is not tuned
        best = tune(reader, queries, grid or {"k": sorted({max(1, reader.k // 2), reader.k})})
        assert type(best) is type(reader), "tune gives another class back"
        measured = _measured(best, queries, "log_loss" in best.results_)
        _same(measured, best.best_score_, 100 * atol, "tune's best score is not what the tuned reader reaches")
    result, reached = evaluate(reader, queries, n_bootstrap=10), _measured(reader, queries)
    if reader.memory.task != "regression":
        _same(result.accuracy, reached, 1e-9, "evaluate's accuracy is not that of predict")
    else:
        _same(result.mse, -reached, 1e-4 * max(1.0, -reached), "evaluate's squared error is not that of predict")
    if type(reader).__name__ in READERS:
        with tempfile.TemporaryDirectory() as folder:
            reader.save(folder)
            kept = reader.memory.index
            again = load(folder, index=kept.fresh() if isinstance(kept, RemoteIndex) else None)
        assert type(again) is type(reader), "load gives another class back than save was given"
        _same(again.scores(queries), reader.scores(queries), atol, "a saved and loaded reader gives other scores")


def _answers_agree(reader: Reader, queries: Encoded, atol: float) -> None:
    for _, now in reader.predictions(queries):
        scores = now.scores
        assert scores.shape == (len(now), queries.n_outputs), f"scores have shape {tuple(scores.shape)}"
        assert bool(torch.isfinite(scores).all()), "a score is NaN or infinite"
        if not isinstance(now.base, Prediction):
            _same(_added_up(now), scores, atol, "the base and all contributions do not add up to the scores")
        if isinstance(now.base, Table):
            continue
        made = now.probabilities
        assert bool((made >= 0).all()), "a probability is negative"
        if isinstance(now.base, Sigmoid):
            assert bool((made <= 1).all()), "a probability is larger than 1"
            continue
        _same(made.sum(dim=1), torch.ones(len(now)), atol, "probabilities do not sum to 1")
        _same(now.log_probabilities().exp(), made, atol, "log_probabilities and probabilities differ")
        best, classes = now.argmax(), torch.arange(queries.n_outputs).expand(made.shape)
        rows = torch.arange(len(now))
        _same(made[rows, best], made.amax(dim=1), atol, "argmax is not where the probability is largest")
        _same(now.at(classes), made, atol, "at and probabilities differ")
        _same(now.log_prob(best).exp(), made[rows, best], atol, "log_prob and probabilities differ")


def _added_up(now: Prediction) -> torch.Tensor:
    if now.change is None:
        return now.start
    asked = torch.arange(len(now)) if now.asked is None else now.asked
    out = now.start.clone()
    for place, row in enumerate(asked.tolist()):
        total = now.change.scale[place] * now.start[row]
        for number in range(len(now.change.terms)):
            classes, values = now.change.contributions(place, number)
            total = total.index_add(0, classes.reshape(-1), values.reshape(-1).to(total))
        out[row] = total
    return out


def _measured(reader: Reader, queries: Encoded, by_log_loss: bool = False) -> float:
    """Minus the mean squared error of a regressor; accuracy of a classifier, or its mean log-probability."""
    if by_log_loss:
        found = [now.log_prob(as_tensor(labels_of(part, WHY))).double() for part, now in reader.predictions(queries)]
        return float(torch.cat(found).mean())
    predicted = reader.predict(queries)
    regression = reader.memory.task == "regression"
    return float(-np.square(predicted - queries.labels).mean() if regression else (predicted == queries.labels).mean())


def _same(one: Any, other: Any, atol: float, promise: str) -> None:
    one, other = (np.asarray(torch.as_tensor(value).cpu(), dtype=np.float64) for value in (one, other))
    apart = np.abs(one - other).max(initial=0.0)
    assert apart <= atol, f"{promise}: they are up to {apart:.3g} apart"
