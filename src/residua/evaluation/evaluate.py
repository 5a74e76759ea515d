"""Did the memory help, on data it has not seen."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from residua.core import Encoded, Neighbours
from residua.errors import EmptyMemoryError, ParameterError
from residua.evaluation.calibration import expected_calibration_error, log_loss
from residua.evaluation.label_knn import label_reader, tune_label_knn
from residua.evaluation.result import Evaluation
from residua.evaluation.search import searched
from residua.evaluation.significance import bootstrap_interval, check_resampling, mcnemar, sign_test_of_mean
from residua.evaluation.token_result import TokenEvaluation
from residua.evaluation.tokens import evaluate_tokens
from residua.readers import Reader


def evaluate(
    reader: Reader,
    test: Encoded | Iterable[Encoded],
    *,
    validation: Encoded | Iterable[Encoded] | None = None,
    exclude_ids=None,
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Evaluation | TokenEvaluation:
    """Compare a reader with the model it corrects, point by point, and with label k-NN.

    Parameters
    ----------
    reader : Reader
        ``rs.ResMem(memory)``, ``rs.KNNLM(memory)``, what ``rs.tune`` gave.
    test : Encoded or iterable of Encoded
        With labels; neither remembered nor tuned on.
    validation : Encoded or iterable of Encoded, optional
        With labels; label k-NN is then also reported with its own best k and sigma there. Rows that came with ids do
        not see the remembered rows of those ids.
    exclude_ids : int array of shape (n,) or (n, m), optional
        Ids whose rows are not neighbours of each test point.
    confidence : float in (0, 1), default 0.95
        Of the interval; ``1 - confidence`` is the level of significance in the printed words.
    n_bootstrap : int, default 2000
        Resamples of the interval (and, for regression, of the test).
    seed : int, default 0
        Of the resampling.

    Returns
    -------
    Evaluation
        Classification: accuracy, TPR, FPR and gain (ResMem, eq. 9-10: TPR is the share of test points that the base
        gets wrong and the memory right, FPR the reverse, the gain their difference), McNemar's exact test, calibration
        and log-loss. Regression: mean squared errors, their reduction, a randomisation test of its mean. A memory of
        tokens: a ``TokenEvaluation`` (see ``rs.lm.evaluate``).

    Raises
    ------
    LabelError
        When the data have no labels.
    InputError
        When the data hold no rows.
    EmptyMemoryError
        When nothing is remembered.
    ParameterError
        When `reader` is no reader, or confidence or n_bootstrap is out of its range.
    ShapeError, TaskError, SourceMismatchError, IdError
        When the data do not fit the memory, or exclude_ids the data.

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> keys = np.array([[0.0], [1.0], [2.0]])
    >>> memory = rs.Memory(rs.Encoded(keys, np.zeros((3, 2)), [0, 1, 1]))
    >>> test = rs.Encoded([[0.1], [0.9], [1.8], [1.1]], np.zeros((4, 2)), [0, 1, 1, 0])
    >>> result = rs.evaluate(rs.ResMem(memory, k=1, sigma=1.0), test)
    >>> result.base, result.memory, result.tpr, result.fpr, result.gain
    (0.5, 0.75, 0.5, 0.25, 0.25)
    >>> result.p_value
    1.0
    """
    if not isinstance(reader, Reader):
        raise ParameterError(f"got a {type(reader).__name__} where a reader is expected, such as rs.ResMem(memory)")
    check_resampling(confidence, n_bootstrap)
    if len(reader.memory) == 0:
        raise EmptyMemoryError("the memory is empty, so there is nothing to evaluate; add rows to it first")
    if reader.memory.of_tokens:
        if validation is not None or exclude_ids is not None:
            raise ParameterError(
                "validation= and exclude_ids= are for classifiers and regressors; for tokens there is rs.lm.evaluate "
                "and residua.evaluation.evaluate_tokens(…, exclude_own=True)"
            )
        return evaluate_tokens(reader, test, confidence=confidence, n_bootstrap=n_bootstrap, seed=seed)
    voters = {"label_knn": label_reader(reader)} if reader.k else {}
    if validation is not None:
        voters["label_knn_tuned"] = tune_label_knn(reader, validation)
    deepest = max([reader.k, *(voter.k for voter in voters.values())])
    measure = _classification if reader.memory.task == "classification" else _regression
    blocks = [
        measure(reader, voters, part, labels, neighbours)
        for part, labels, neighbours in searched(reader, test, deepest, exclude_ids)
    ]
    points = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    compare = _compare_answers if reader.memory.task == "classification" else _compare_errors
    tuned = voters.get("label_knn_tuned")
    return Evaluation(
        task=reader.memory.task,
        reader=type(reader).__name__,
        params=reader.params,
        n=len(points["base"]),
        confidence=float(confidence),
        label_knn_params=None if tuned is None else {name: tuned.params[name] for name in ("k", "sigma", "kernel")},
        **{name: float(points[name].mean()) for name in ("base", "memory", *voters)},
        **compare(points, reader.memory.n_outputs, float(confidence), int(n_bootstrap), np.random.default_rng(seed)),
    )


def _scores(reader: Reader, neighbours: Neighbours, part: Encoded, base: Tensor) -> Tensor:
    """The reader's scores (q, L) from neighbours that may be more than it wants."""
    if not reader.k:
        return base
    return reader.change(reader.gated(neighbours.first(reader.k), part.logits)).apply(base)


def _classification(
    reader: Reader, voters: dict[str, Reader], part: Encoded, labels: Tensor, neighbours: Neighbours
) -> dict[str, np.ndarray]:
    """Each test point of a block: who is right about it, how sure they are, and what they give the truth."""
    base = reader.base(part.logits).to(labels.device)
    scores = _scores(reader, neighbours, part, base)
    # The model as it is, whatever temperature the reader was tuned to.
    said = part.logits.probabilities(None, 1.0).to(labels.device)
    now = reader.probabilities(scores, base)
    points = {
        "label": labels,
        "base": part.logits.argmax().to(labels.device) == labels,
        "memory": scores.argmax(dim=1) == labels,
        "base_confidence": said.amax(dim=1),
        "memory_confidence": now.amax(dim=1),
        "base_truth": said.gather(1, labels[:, None])[:, 0],
        "memory_truth": now.gather(1, labels[:, None])[:, 0],
    }
    for name, voter in voters.items():
        points[name] = _scores(voter, neighbours, part, base).argmax(dim=1) == labels
    return {name: values.cpu().numpy() for name, values in points.items()}


def _regression(
    reader: Reader, voters: dict[str, Reader], part: Encoded, labels: Tensor, neighbours: Neighbours
) -> dict[str, np.ndarray]:
    """Each test point of a block: its target and everyone's squared error, the mean over outputs, in float64."""
    base = reader.base(part.logits).to(labels.device)
    answers = {"base": base, "memory": _scores(reader, neighbours, part, base)}
    answers |= {name: _scores(voter, neighbours, part, base) for name, voter in voters.items()}
    points = {name: (answer.double() - labels.double()).square().mean(dim=1) for name, answer in answers.items()}
    return {"target": labels.cpu().numpy(), **{name: errors.cpu().numpy() for name, errors in points.items()}}


def _compare_answers(
    points: dict[str, np.ndarray], classes: int, confidence: float, n_bootstrap: int, rng: np.random.Generator
) -> dict:
    base, memory = points["base"], points["memory"]
    corrected, broken = ~base & memory, base & ~memory
    change = memory.astype(np.float64) - base
    support = np.bincount(points["label"], minlength=classes)
    per_class = np.bincount(points["label"], weights=change, minlength=classes)
    tpr, fpr = float(corrected.mean()), float(broken.mean())
    return {
        "tpr": tpr,
        "fpr": fpr,
        "gain": tpr - fpr,
        "p_value": mcnemar(int(corrected.sum()), int(broken.sum())),
        "gain_interval": bootstrap_interval(change, confidence, n_bootstrap, rng),
        "ece_base": expected_calibration_error(points["base_confidence"], base),
        "ece_memory": expected_calibration_error(points["memory_confidence"], memory),
        "log_loss_base": log_loss(points["base_truth"]),
        "log_loss_memory": log_loss(points["memory_truth"]),
        "per_class_gain": np.where(support > 0, per_class / np.maximum(support, 1), np.nan),
        "support": support,
    }


def _compare_errors(
    points: dict[str, np.ndarray], outputs: int, confidence: float, n_bootstrap: int, rng: np.random.Generator
) -> dict:
    base, memory = points["base"], points["memory"]
    spread = points["target"].astype(np.float64).var(axis=0).mean()
    r2 = [1 - errors.mean() / spread if spread > 0 else np.nan for errors in (base, memory)]
    return {
        "gain": float(base.mean() - memory.mean()),
        "p_value": sign_test_of_mean(base - memory, n_bootstrap, rng),
        "gain_interval": bootstrap_interval(base - memory, confidence, n_bootstrap, rng),
        "r2_base": float(r2[0]),
        "r2_memory": float(r2[1]),
        "improved": float((memory < base).mean()),
        "worsened": float((memory > base).mean()),
    }
