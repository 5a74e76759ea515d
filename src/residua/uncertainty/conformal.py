"""The verb: sets, intervals and withheld answers, calibrated on rows that nobody has seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from residua import html
from residua.caution import warn
from residua.core import Encoded, Prediction, Softmax, as_tensor
from residua.core.encoded import labels_of
from residua.errors import InputError, ParameterError, TaskError
from residua.printable import count, short
from residua.readers import Reader
from residua.readers.familiarity import depth, kth_distance
from residua.readers.reader import OWN, UNKNOWN, Exclude
from residua.readers.residual_size import near_sizes, residual_sizes, typical_size
from residua.tuning.scorer import estimator_of
from residua.uncertainty.fresh import Fresh
from residua.uncertainty.quantiles import needed, parted, threshold
from residua.uncertainty.result import Coverage
from residua.uncertainty.scores import aps, lac
from residua.uncertainty.selective import sure_enough

Score: TypeAlias = Literal["lac", "aps", "normalised", "absolute"]
By: TypeAlias = Literal["class", "distance"]
SCORES: dict[str, tuple[Score, ...]] = {"classification": ("lac", "aps"), "regression": ("normalised", "absolute")}
FIFTHS = 5
WHY = "calibration compares answers with the truth"


def conformal(
    reader: Reader,
    calibration: Encoded | Iterable[Encoded],
    *,
    score: Score | None = None,
    by: By | None = None,
    exclude: Exclude = OWN,
    seed: int = 0,
) -> Conformal:
    """Calibrate a reader, and the model alone beside it: their sets and intervals hold the truth of new rows at the
    rate that is asked for, whatever the model and the data are like.

    The promise is about rows like the calibrating ones, on average over both (split conformal prediction): for n of
    them it is exact but for 1 / (n + 1).

    Parameters
    ----------
    reader : Reader
        With ``k=0`` the model alone.
    calibration : Encoded or iterable of Encoded
        Labelled rows that were neither remembered nor tuned on.
    score : str, optional
        Classes: ``"lac"`` (the default: the smallest sets), or ``"aps"``, whose sets grow where a row is hard.
        Numbers: ``"normalised"``, intervals as wide as the neighbours' residuals are large,
        ``|y - f(x)| / (sum_i w_i |r_i| + b)`` with b the mean ``|r|`` of the memory; or ``"absolute"``, all of one
        width. The default is the first where the memory kept what the model said. The model alone has ``"absolute"``.
    by : {"class", "distance"}, optional
        Keep the promise within each class, or within each fifth of rows by their distance to the memory (to the k-th
        neighbour, at least the 50th), too: far rows are the ones that one threshold for all fails. The four rows whose
        distances part the fifths calibrate none.
    exclude : "own", None, or int array of shape (n,) or (n, m)
        Ids whose rows are not neighbours of each row, as for ``Reader.scores``.
    seed : int, default 0
        Of the random parts of ``"aps"``.

    Returns
    -------
    Conformal

    Raises
    ------
    IdError
        Where a row's id is remembered, or was tuned on.
    InputError
        Where most rows' very keys are; a ``UserWarning`` where more are than duplicates explain. A reader that was
        loaded from a folder no longer knows what it was tuned on.
    ParameterError, TaskError, LabelError, StorageError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> rng = np.random.default_rng(0)
    >>> x = rng.uniform(-3, 3, size=(900, 1))
    >>> enc = rs.Encoded(x, 0 * x, np.sin(x) + rng.normal(size=x.shape) * (0.1 + 0.3 * (x > 0)))
    >>> sure = rs.conformal(rs.ResMem(rs.Memory(enc[:300]), k=30), enc[300:600])
    >>> sure.predict_interval(enc[600:602], confidence=0.9).shape
    (2, 1, 2)
    >>> result = sure.evaluate(enc[600:], confidence=0.9)
    >>> bool(abs(result.coverage - 0.9) < 0.05), bool(result.size < result.base_size)
    (True, True)
    """
    if not isinstance(reader, Reader):
        raise ParameterError(f"got a {type(reader).__name__} where a reader is expected, such as rs.ResMem(memory)")
    task = reader.memory.task
    if task == "multi-label":
        raise TaskError("rows with several labels each have no one class that a set could hold; calibrate per label")
    if score is None:
        score = SCORES[task][task == "regression" and reader.memory.stored_logits is None]
    if score not in SCORES[task]:
        raise ParameterError(f"score={score!r} for a {task} memory; expected one of {SCORES[task]}")
    if by not in (None, *get_args(By)) or (by == "class" and task == "regression"):
        raise ParameterError(f"by={by!r} for a {task} memory; expected None, 'distance', or of classes 'class'")
    if by == "distance" and getattr(reader, "skip", None) is not None:
        raise ParameterError("by='distance', and rows that a reader skips have none; pass reader.searching_all()")
    found, fresh = Conformal(reader, score, by, seed), Fresh(reader)
    blocks = []
    for part, prediction, u in found.read(calibration, exclude, 0):
        fresh.count(part, prediction.near)
        blocks.append(found.measured(part, prediction, u))
    if not fresh.rows:
        raise InputError("the calibration data hold no rows; expected labelled ones")
    fresh.verdict()
    found.calibrate({name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}, fresh.matches)
    return found


class Conformal:
    """A reader that says how sure it is; made by ``rs.conformal``.

    Attributes
    ----------
    reader, score, by : Reader, str, str or None
    n, matches : int
        Calibrating rows, and how many have the very key of a remembered row or of one that was tuned on.
    """

    reader: Reader
    score: Score
    by: By | None
    n: int
    matches: int

    def __init__(self, reader: Reader, score: Score, by: By | None, seed: int):
        self.reader, self.score, self.by, self.seed, self.n, self.matches = reader, score, by, seed, 0, 0
        self._edges, self._rows, self._version = np.empty(0), dict[str, np.ndarray](), reader.version
        self._sizes: tuple[int, Tensor, Tensor] | None = None

    def predict_set(
        self, data: Encoded | Iterable[Encoded], confidence: float = 0.9, exclude: Exclude = OWN
    ) -> np.ndarray:
        """Which classes each row may have, bool (n, L); the true one is among them at the rate `confidence`.

        A set may be empty: nothing fits well enough. ``TaskError`` for a regression.
        """
        limits, base = self._limits(confidence, "classification")
        sets = [np.empty((0, self.reader.memory.n_outputs), bool)]
        for part, prediction, u in self.read(data, exclude, 1):
            sets.append(self._sets(part, prediction, u, limits, base)[0])
        return np.concatenate(sets)

    def predict_interval(
        self, data: Encoded | Iterable[Encoded], confidence: float = 0.9, exclude: Exclude = OWN
    ) -> np.ndarray:
        """The interval of each row's number, float64 (n, 2), of several (n, L, 2), each of which holds its number at
        the rate `confidence`. ``TaskError`` for classes."""
        limits, _ = self._limits(confidence, "regression")
        ends = [np.empty((0, self.reader.memory.n_outputs, 2))]
        for part, prediction, _ in self.read(data, exclude, 1):
            half = limits[self._groups(part, prediction)] * self._scale(prediction)
            said = prediction.scores.double().cpu().numpy()
            ends.append(np.stack([said - half, said + half], axis=2))
        found = np.concatenate(ends)
        return found[:, 0] if self.reader.memory.flat_labels else found

    def predict(
        self,
        data: Encoded | Iterable[Encoded],
        risk: float,
        confidence: float = 0.95,
        exclude: Exclude = OWN,
    ) -> np.ndarray:
        """Classes int64 (n,), and -1 where the answer is withheld, so that of those given at most a share of `risk` is
        wrong, with a probability of at least `confidence` over the draw of the calibrating rows.

        The least sure are withheld. Where the calibrating rows can vouch for no answer all are, with a ``UserWarning``.
        """
        self._require("classification")
        for name, value in (("risk", risk), ("confidence", confidence)):
            _check_share(name, value)
        edge = sure_enough(self._rows["confidence"], self._rows["wrong"], risk, confidence)
        if edge == np.inf:
            warn(
                f"{self.n} calibrating rows vouch for no answer at risk={risk:g}: all are withheld. Calibrate on more, "
                "or take a larger risk"
            )
        said = [np.empty(0, np.int64)]
        for _, prediction, _ in self.read(data, exclude, 1):
            best = prediction.argmax()
            kept = prediction.log_prob(best).double().exp() > edge
            said.append(torch.where(kept.to(best.device), best, UNKNOWN).cpu().numpy())
        return np.concatenate(said)

    def difficulty(self, data: Encoded | Iterable[Encoded], exclude: Exclude = OWN) -> np.ndarray:
        """What a regression's errors are measured in, float64 (n,) or (n, L): ``sum_i w_i |r_i| + b``, or 1.

        What ``crepes`` takes as ``sigmas``, and other conformal regressors as a difficulty.
        """
        self._require("regression")
        found = [np.empty((0, self.reader.memory.n_outputs))]
        found += [self._scale(prediction) for _, prediction, _ in self.read(data, exclude, 1)]
        table = np.concatenate(found)
        return table[:, 0] if self.reader.memory.flat_labels else table

    def estimator(self, data: Encoded | Iterable[Encoded], exclude: Exclude = OWN) -> Any:
        """What the reader says of `data`, as a fitted scikit-learn estimator whose X are row numbers, (n,) or (n, 1):
        with ``predict``, ``predict_proba`` and ``classes_``, as MAPIE, crepes and scikit-learn's own tools take it."""
        memory, said, sure = self.reader.memory, [], []
        for _, prediction, _ in self.read(data, exclude, 1):
            said.append((prediction.scores if memory.task == "regression" else prediction.argmax()).cpu().numpy())
            sure += [] if memory.task == "regression" else [prediction.probabilities.double().cpu().numpy()]
        answers = np.concatenate(said)
        flat = memory.task == "regression" and memory.flat_labels
        return estimator_of(memory, answers[:, 0] if flat else answers, np.concatenate(sure) if sure else None)

    def evaluate(self, test: Encoded | Iterable[Encoded], confidence: float = 0.9, exclude: Exclude = OWN) -> Coverage:
        """How often the truth of test rows is in the sets or intervals of the reader and of the model alone, and how
        large these are."""
        limits, base = self._limits(confidence, self.reader.memory.task)
        blocks = []
        for part, prediction, u in self.read(test, exclude, 1):
            block, groups = self.measured(part, prediction, u), self._groups(part, prediction)
            if self.reader.memory.task == "regression":
                block["in"] = (block["score"] <= limits[groups]).mean(axis=1)
                block["base_in"] = (block["base_score"] <= base[groups]).mean(axis=1)
                block["size"] = 2 * (limits[groups] * self._scale(prediction)).mean(axis=1)
                block["base_size"] = 2 * base[groups].mean(axis=1)
            else:
                sets = self._sets(part, prediction, u, limits, base)
                for name, some in zip(("", "base_"), sets):
                    block[f"{name}in"] = some[np.arange(len(part)), block["label"]]
                    block[f"{name}size"] = some.sum(axis=1)
            blocks.append(block)
        if not blocks:
            raise InputError("the test data hold no rows; expected labelled ones")
        rows = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
        return Coverage(
            type(self.reader).__name__, self.reader.memory.task, self.score, self.by, confidence, self.n, rows
        )

    def read(
        self, data: Encoded | Iterable[Encoded], exclude: Exclude, stream: int
    ) -> Iterator[tuple[Encoded, Prediction, Tensor]]:
        """Rows, what is predicted, and a random number in [0, 1) of each, of one of the seed's streams."""
        rng = np.random.default_rng((self.seed, stream))
        for part, prediction in self.reader.predictions(data, exclude=exclude, depth=depth(self.reader)):
            yield part, prediction, torch.from_numpy(rng.random(len(part)))

    def measured(self, part: Encoded, prediction: Prediction, u: Tensor) -> dict[str, np.ndarray]:
        """Of labelled rows: their distance, and of the reader and the model alone the score of the truth, their
        confidence and whether they are wrong."""
        labels = as_tensor(labels_of(part, WHY))
        if self.reader.memory.task == "regression":
            truth, said = labels.double().reshape(len(part), -1), (prediction.scores, prediction.start)
            off = [(truth - some.double().cpu()).abs().numpy() for some in said]
            found = {"score": off[0] / self._scale(prediction), "base_score": off[1]}
        else:
            found, base = {"label": labels.numpy()}, prediction.softmax.at(1.0)
            for name, one, best in (("", prediction, prediction.argmax()), ("base_", base, base.argmax())):
                truth = labels.to(best.device)
                if self.score == "aps":
                    table = _table(one)
                    score = aps(table, u.to(table.device)).gather(1, truth.to(table.device)[:, None])[:, 0]
                else:
                    score = 1 - one.log_prob(truth).double().exp()
                sure = one.log_prob(best).double().exp()
                values = {"score": score, "confidence": sure, "wrong": best != truth}
                found |= {f"{name}{what}": value.cpu().numpy() for what, value in values.items()}
        return found | {"distance": self._distance(prediction)}

    def calibrate(self, rows: dict[str, np.ndarray], matches: int) -> None:
        """Take over what was measured of the calibrating rows."""
        self.n, self.matches = len(rows["distance"]), matches
        kept = np.ones(self.n, bool)
        if self.by == "distance":
            self._edges, kept = parted(rows["distance"], FIFTHS)
        self._rows, self._kept = rows, kept

    def __repr__(self) -> str:
        return f"Conformal({self._said()})"

    def _repr_html_(self) -> str:
        return html.paragraph(self._said())

    def _said(self) -> str:
        by = f" by {self.by}" if self.by else ""
        matched = f", {self.matches:,} of them with a key that is remembered or was tuned on" if self.matches else ""
        return f"{short(self.reader.to_json())}: {self.score}{by}, calibrated on {count(self.n, 'row')}{matched}"

    def _require(self, task: str) -> None:
        if self.reader.memory.task != task:
            other = "predict_set" if task == "regression" else "predict_interval"
            raise TaskError(f"this is a {self.reader.memory.task} memory; call {other}")
        if self.reader.version != self._version:
            warn(
                "the memory was edited after this was calibrated, and nothing is promised of what it says now; "
                "calibrate again"
            )

    def _limits(self, confidence: float, task: str) -> tuple[np.ndarray, np.ndarray]:
        """The largest scores that belong, by group (and output), of the reader and of the model alone."""
        self._require(task)
        _check_share("confidence", confidence)
        groups, rows = np.zeros(self.n, int), self._rows
        number = 1
        if self.by == "class":
            groups, number = rows["label"], self.reader.memory.n_outputs
        elif self.by == "distance":
            groups, number = np.searchsorted(self._edges, rows["distance"]), len(self._edges) + 1
        parts = [np.flatnonzero(self._kept & (groups == at)) for at in range(number)]
        if few := [len(part) for part in parts if len(part) < needed(confidence)]:
            what = {"class": f"{len(few)} classes have", "distance": f"{len(few)} groups by distance have"}
            warn(
                f"{what.get(self.by or '', 'there are')} {min(few)} to {max(few)} calibrating rows, and confidence="
                f"{confidence:g} needs {needed(confidence)}: what they decide holds everything. Calibrate on more rows"
            )
        reader, base = (
            np.stack([threshold(rows[name][part], confidence) for part in parts]) for name in ("score", "base_score")
        )
        return reader, base

    def _groups(self, part: Encoded, prediction: Prediction) -> np.ndarray:
        """The group of each row, int (q,); of classes none, which are groups of themselves."""
        if self.by != "distance":
            return np.zeros(len(part), int)
        return np.searchsorted(self._edges, self._distance(prediction))

    def _sets(
        self, part: Encoded, prediction: Prediction, u: Tensor, limits: np.ndarray, base: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether each class belongs, bool (q, L), to the reader's set and to the model's own."""
        groups, found = self._groups(part, prediction), []
        for one, some in ((prediction, limits), (prediction.softmax.at(1.0), base)):
            table = _table(one)
            scores = (aps(table, u.to(table.device)) if self.score == "aps" else lac(table)).cpu().numpy()
            found.append(scores <= (some if self.by == "class" else some[groups][:, None]))
        return found[0], found[1]

    def _scale(self, prediction: Prediction) -> np.ndarray:
        """What errors are measured in, float64 (q, L)."""
        memory = self.reader.memory
        if self.score == "absolute":
            return np.ones((len(prediction), memory.n_outputs))
        if self._sizes is None or self._sizes[0] != memory.version:
            sizes = residual_sizes(memory)
            self._sizes = memory.version, sizes, typical_size(sizes, memory)
        _, sizes, typical = self._sizes
        return (near_sizes(sizes, prediction) + typical).cpu().numpy()

    def _distance(self, prediction: Prediction) -> np.ndarray:
        """To the k-th neighbour, (q,); NaN of all where some were not searched."""
        near = prediction.near
        if len(near) < len(prediction) or not near.k:
            return np.full(len(prediction), np.nan)
        return kth_distance(near.first(min(near.k, depth(self.reader))))


def _table(one: Prediction | Softmax) -> Tensor:
    return one.probabilities if isinstance(one, Prediction) else one.table()


def _check_share(name: str, value: float) -> None:
    if isinstance(value, bool) or not 0 < value < 1:
        raise ParameterError(f"{name}={value!r}; expected a number between 0 and 1, such as 0.9")
