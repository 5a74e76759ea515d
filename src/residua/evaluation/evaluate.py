"""Did the memory help, on data it has not seen."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from residua.core import Encoded, Prediction, batches
from residua.errors import EmptyMemoryError, InputError, ParameterError
from residua.evaluation import classification, multilabel, regression, tokens
from residua.evaluation.label_knn import label_reader, truth_of, tune_label_knn
from residua.evaluation.result import Evaluation
from residua.evaluation.significance import Groups, check_resampling, checked_groups, group_numbers, paired
from residua.memory import Memory
from residua.memory.arguments import names_of
from residua.memory.exclusion import remembered
from residua.progress import progress_bar
from residua.readers import KNNLM, NeighbourReader, Reader
from residua.readers.reader import OWN, Exclude, of_one_moment

T = TypeVar("T")


@of_one_moment
def evaluate(
    reader: Reader,
    test: Encoded | Iterable[Encoded],
    *,
    validation: Encoded | Iterable[Encoded] | None = None,
    exclude: Exclude = OWN,
    groups: Groups = None,
    label_knn: bool = True,
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
    progress: bool | None = None,
) -> Evaluation:
    """Compare a reader with the model it corrects, row by row, and with label k-NN.

    Parameters
    ----------
    reader : Reader
        ``rs.ResMem(memory)``, ``rs.KNNLM(memory)``, ``rs.ContinuousCache(...)``, what ``rs.tune`` gave.
    test : Encoded or iterable of Encoded
        With labels; neither remembered nor tuned on. Of an iterable one batch exists at a time.
    validation : Encoded or iterable of Encoded, optional
        With labels; label k-NN is then also reported with its own best k and sigma there.
    exclude : "own", None, or int array of shape (n,) or (n, m)
        Ids whose rows are not neighbours of each test row: by default its own, where the data came with ids.
    groups : "ids", "rows", int array of shape (n,), or None
        Rows of one group are not independent, so whole groups are resampled. None: rows that share an id belong
        together (tokens of a document, views of an image); without ids every row stands alone, as with ``"rows"``.
    label_knn : bool, default True
        Whether label k-NN is compared too; it reads the same neighbours.
    confidence : float in (0, 1), default 0.95
        Of the intervals; ``1 - confidence`` is the level of significance.
    n_bootstrap : int, default 2000
        Resamples of the intervals (and of the randomisation test).
    seed : int, default 0
    progress : bool, optional
        A bar: always, or never; by default only on a terminal, after a second.

    Returns
    -------
    Evaluation
        Classification: accuracy, log-loss (and perplexity), calibration, TPR, FPR and gain (ResMem, eq. 9-10: TPR is
        the share of rows that the base gets wrong and the memory right, FPR the reverse, the gain their difference).
        Several labels a row: the same of the labels, each right or wrong, micro and macro F1, mean average precision.
        Regression: mean squared errors, R², their difference. The gain's test is McNemar's exact one for answers that
        stand alone, else a randomisation test. What the verdict is about is ``memory.schema.objective``.

    Raises
    ------
    LabelError, InputError, EmptyMemoryError, ParameterError, ShapeError, TaskError, SourceMismatchError, IdError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> keys = np.array([[0.0], [1.0], [2.0]])
    >>> memory = rs.Memory(rs.Encoded(keys, np.zeros((3, 2)), [0, 1, 1]))
    >>> test = rs.Encoded([[0.1], [0.9], [1.8], [1.1]], np.zeros((4, 2)), [0, 1, 1, 0])
    >>> result = rs.evaluate(rs.ResMem(memory, k=1, sigma=1.0), test)
    >>> result.base_accuracy, result.accuracy, result.tpr, result.fpr, result.gain, result.p_value
    (0.5, 0.75, 0.5, 0.25, 0.25, 1.0)
    """
    if not isinstance(reader, Reader):
        raise ParameterError(f"got a {type(reader).__name__} where a reader is expected, such as rs.ResMem(memory)")
    check_resampling(confidence, n_bootstrap)
    given = checked_groups(groups)
    if validation is not None and not label_knn:
        raise ParameterError("validation= tunes label k-NN, which label_knn=False leaves out")
    memory, objective = reader.memory, reader.memory.schema.objective
    if not len(memory):
        raise EmptyMemoryError("the memory is empty, so there is nothing to evaluate; add rows to it first")
    task = {"classification": classification, "regression": regression, "multi-label": multilabel}[memory.task]
    voters = _voters(reader, validation) if label_knn else {}

    seconds: dict[str, float] = defaultdict(float)
    blocks: list[dict[str, np.ndarray]] = []
    columns: list[dict[str, np.ndarray]] = []
    classes = memory.schema.classes
    depth = max((voter.k for voter in voters.values()), default=0)
    read = reader.predictions(timed("model", _labelled(test), seconds), exclude=exclude, depth=depth)
    with progress_bar(progress, desc="evaluate", unit="row") as bar:
        for part, prediction, block in timed("whole", _measured(memory, task.measure, read), seconds):
            for name, voter in voters.items():
                block |= task.vote(name, voter, part, prediction, block)
            blocks.append(block if part.names is None else {"name": part.names} | block)
            classes = classes or part.classes
            columns.append({name: column for name, column in part.columns.items() if column.ndim == 1})
            bar.update(len(part))

    rows = _joined(blocks)
    n, exact, tuned = len(rows["distance"]), rows.pop("exact"), voters.get("label_knn_tuned")
    brought = _joined(columns)
    size = None
    if memory.schema.is_text:
        rows |= tokens.columns_of(memory, rows, brought.get("offset"), exact)
        size = tokens.text_bytes(test, rows, brought.get("offset"))
    numbers = group_numbers(given, rows.get("id"), n)
    about: dict[str, Any] = {
        "task": memory.task,
        "objective": objective,
        "reader": type(reader).__name__,
        "params": reader.to_json()["params"],
        "confidence": float(confidence),
        "seconds_per_row": max(seconds["whole"] - seconds["model"], 0.0) / n,
        "columns": brought,
        "names": names_of(test, rows["id"]) if "id" in rows else {},
        "classes": classes,
        "label_knn_params": tuned and {name: tuned.params[name] for name in ("k", "sigma", "kernel")},
    }
    if memory.task == "classification" and not memory.schema.is_text:
        about["remembered"] = np.bincount(memory.labels, minlength=memory.n_outputs)
    if not isinstance(test, (Encoded, Sequence)):  # batches that were there already say nothing about speed
        about |= {"tokens_per_second": n / seconds["whole"], "base_tokens_per_second": n / seconds["model"]}

    if size is not None:
        about |= {f"{of}bits_per_byte": tokens.bits_per_byte(rows[f"{of}log_prob"], size) for of in ("base_", "")}

    def result_of(rows: dict[str, np.ndarray], numbers: np.ndarray | None, matches: int) -> Evaluation:
        n, rng = len(rows["distance"]), np.random.default_rng(seed)
        losses = rows["log_prob"] - rows["base_log_prob"] if objective == "log_loss" else None
        found: dict[str, Any] = {name: float(rows[name].mean()) for name in voters}
        found |= about | task.summary(rows, memory.n_outputs)
        found |= paired(rows["gain"], losses, numbers, task is classification, confidence, int(n_bootstrap), rng)
        found |= {"per_row": rows, "exact_matches": matches}
        return Evaluation(n=n, n_groups=n if numbers is None else len(np.unique(numbers)), **found)

    result = result_of(rows, numbers, int(exact.sum()))
    doubtful = exact.any() and result.helps and result.significant
    if doubtful and not exact.all():
        rest = {name: values[~exact] for name, values in rows.items()}
        without = result_of(rest, None if numbers is None else numbers[~exact], 0)
        doubtful = not (without.helps and without.significant)
    return replace(result, rests_on_matches=True) if doubtful else result


def timed(name: str, data: Iterable[T], seconds: dict[str, float]) -> Iterator[T]:
    """`data`, whose making is added to ``seconds[name]``; what is done between its items does not count."""
    items = iter(data)
    while True:
        start = time.perf_counter()
        try:
            item = next(items)
        except StopIteration:
            return
        finally:
            seconds[name] += time.perf_counter() - start
        yield item


def _labelled(data: Encoded | Iterable[Encoded]) -> Iterator[Encoded]:
    """The batches of `data`, if they hold rows and all their labels."""
    n = 0
    for batch in batches(data):
        n += len(truth_of(batch))
        yield batch
    if not n:
        raise InputError("the data hold no rows; expected at least one labelled example")


def _voters(reader: Reader, validation: Encoded | Iterable[Encoded] | None) -> dict[str, KNNLM]:
    """The label k-NNs that read what `reader` searches, by what they are called in the result."""
    if not isinstance(reader, NeighbourReader):  # what a ContinuousCache reads has no labels to vote with
        return {}
    voters = {"label_knn": label_reader(reader)} if reader.k else {}
    if validation is not None:
        voters["label_knn_tuned"] = tune_label_knn(reader, _labelled(validation))
    return voters


def _measured(
    memory: Memory,
    measure: Callable[[Encoded, Prediction], dict[str, np.ndarray]],
    read: Iterator[tuple[Encoded, Prediction]],
) -> Iterator[tuple[Encoded, Prediction, dict[str, np.ndarray]]]:
    """Some rows, what was predicted, and the few numbers of each row that are kept."""
    for part, prediction in read:
        near, distance = prediction.near, np.full(len(part), np.nan, np.float32)
        if near.k:
            asked = slice(None) if prediction.asked is None else prediction.asked.cpu().numpy()
            distance[asked] = near.distances[:, 0].masked_fill(~near.found[:, 0], np.nan).cpu().numpy()
        own = {} if part.ids is None else {"id": part.ids}
        known = remembered(prediction.neighbours, memory.bears, part.ids).cpu().numpy()
        yield part, prediction, {**own, **measure(part, prediction), "distance": distance, "exact": known}


def _joined(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The blocks' arrays one after the other, of those names that all blocks have."""
    names = [name for name in blocks[0] if all(name in block for block in blocks)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in names}
