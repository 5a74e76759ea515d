"""What an evaluation found, as numbers, as JSON types and as a table to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from residua import html
from residua.core import Task
from residua.core.exported import Exported
from residua.core.frame import data_frame
from residua.core.naming import checked_classes
from residua.core.renamed import renamed
from residua.errors import ParameterError, ShapeError, TaskError
from residua.evaluation import breakdown, by_class, tokens
from residua.evaluation.cells import aligned, in_points, known
from residua.evaluation.shown import rows_of
from residua.memory.schema import Objective
from residua.printable import count, plain, short

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

PAIRS = ("ece", "log_loss", "perplexity", "r2", "tokens_per_second")
ADVICE = " Do not use it like this: tune the reader, or leave the model alone."
ANSWERS = ("label", "base_prediction", "prediction")
_ABOUT = ("n", "n_groups", "confidence", "exact_matches")  # numbers that measure neither answer
_RATHER = ("same", "better", "worse")
OUTCOMES = {
    "classification": ("same", "fixed", "broken"),
    "regression": _RATHER,
    "multi-label": _RATHER,
}  # gain 0, 1, -1
FEW = 10  # groups: the bootstrap of fewer is too narrow
WIDE = 1000  # outputs; beyond, exports leave arrays of one number per class out


@renamed(
    {"memory": "accuracy or mse", "base": "base_accuracy or base_mse", "documents": "n_groups"}
    | {f"{name}_memory": name for name in PAIRS}
    | {f"{name}_base": f"base_{name}" for name in PAIRS}
)
@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Exported):
    """The model alone (``base_…``) and with its memory, on the same rows.

    Shares are between 0 and 1; what a task does not have is None.

    Attributes
    ----------
    task, objective : str
        "classification", "multi-label" or "regression", and what the verdict is about: "accuracy", "log_loss" or
        "squared_error".
    reader, params : str, dict
        The reader's class and its parameters, in JSON types.
    n, n_groups : int
        Rows, and how many groups of them were resampled; equal where every row stands alone.
    confidence : float
        Of the intervals.
    gain : float
        ``tpr - fpr``, which is ``accuracy - base_accuracy``; for regression ``base_mse - mse``. Positive means that
        the memory helps.
    row_gain : float array of shape (n,)
        The same of each row, in the order of the data: 1 where the memory made wrong right, -1 where right wrong.
    per_row, columns, names : dict
        What ``to_frame`` shows of each row: arrays of shape (n, ...) by column; those that the data themselves bring;
        and what the data call the ids.
    classes : tuple of L str, or None
        What the outputs are called, where the memory or the data know.
    gain_interval : (float, float) or None
        Paired percentile bootstrap interval of the gain, over groups; None for a single one.
    p_value : float
        Two-sided, of the gain: McNemar's exact test; for groups or regression a randomisation test.
    accuracy, base_accuracy : float or None
        The share of rows that are right; of several labels a row, of labels.
    log_loss, base_log_loss : float or None
        Mean of -log(probability of the true class), in nats; a probability below 1.2e-38 counts as that. The base's
        are softmax at temperature 1, the reader's its ``predict_proba``. Of several labels the mean over them.
    ece, base_ece : float or None
        Expected calibration error (15 bins) of the same probabilities.
    balanced_accuracy, base_balanced_accuracy, f1_macro, base_f1_macro : float or None
        The mean over classes of the share of each class's rows that are right, and of each class's F1.
    tpr, fpr : float or None
        ResMem, eq. 9-10: share of rows that the base gets wrong and the memory right, and the reverse.
    per_class_gain, support : float and int arrays of shape (L,), or None
        The gain among the rows of each class (nan without any), and how many they are.
    remembered : int array of shape (L,), or None
        Rows of each class in the memory; None for tokens, numbers and several labels.
    f1_micro, base_f1_micro : float or None
        Of several labels a row: F1 over all labels of all rows; ``f1_macro`` is then the mean of each label's own.
    mean_average_precision, base_mean_average_precision : float or None
        Of several labels a row: the mean over labels of the area under precision by recall.
    perplexity_ratio_interval : (float, float) or None
        Where the objective is the log-loss: the same bootstrap of ``perplexity / base_perplexity``.
    mse, base_mse : float or None
        Mean squared error.
    r2, base_r2 : float or None
        1 - squared error / variance of the targets, both summed over outputs; nan for constant targets.
    improved, worsened : float or None
        Share of rows whose squared error fell, and rose.
    label_knn : float or None
        Accuracy (or mean squared error) of label k-NN with the reader's kernel, k and sigma, of the same neighbours:
        rows that the reader skips keep the base's answer. None for ``k=0`` and for a ``ContinuousCache``.
    label_knn_tuned, label_knn_params : float, dict, or None
        The same with the k and sigma that are best on validation data; None without such data.
    exact_matches, rests_on_matches : int, bool
        Rows with a neighbour of the very same key (distance 0) or of their own id, perhaps remembered themselves; and
        whether a gain beyond chance is none without them: it is then not called significant.
    bits_per_byte, base_bits_per_byte : float or None
        Of a text: -log2(probability) of all its tokens, over the UTF-8 bytes of the texts that they make (of pairs,
        the targets), which no tokenizer changes. None where not every token is a row: a cut target, or no prefix.
    tokens_per_second, base_tokens_per_second : float or None
        Rows per second with the memory and without: of making the data, searching and reading; of making the data.
        None for data that were there already. The time of label k-NN does not count.
    seconds_per_row : float or None
        What searching and reading took, of many rows at a time on as many threads as there were; making the data does
        not count. Another run gives another time, so ``to_dict`` leaves it out.
    """

    task: Task
    objective: Objective
    reader: str
    params: dict[str, Any]
    n: int
    n_groups: int
    confidence: float
    gain: float
    gain_interval: tuple[float, float] | None
    p_value: float
    per_row: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    names: dict[int, str]
    accuracy: float | None = None
    base_accuracy: float | None = None
    log_loss: float | None = None
    base_log_loss: float | None = None
    ece: float | None = None
    base_ece: float | None = None
    balanced_accuracy: float | None = None
    base_balanced_accuracy: float | None = None
    f1_macro: float | None = None
    base_f1_macro: float | None = None
    tpr: float | None = None
    fpr: float | None = None
    per_class_gain: np.ndarray | None = None
    support: np.ndarray | None = None
    remembered: np.ndarray | None = None
    f1_micro: float | None = None
    base_f1_micro: float | None = None
    mean_average_precision: float | None = None
    base_mean_average_precision: float | None = None
    perplexity_ratio_interval: tuple[float, float] | None = None
    mse: float | None = None
    base_mse: float | None = None
    r2: float | None = None
    base_r2: float | None = None
    improved: float | None = None
    worsened: float | None = None
    label_knn: float | None = None
    label_knn_tuned: float | None = None
    label_knn_params: dict[str, Any] | None = None
    exact_matches: int = 0
    rests_on_matches: bool = False
    bits_per_byte: float | None = None
    base_bits_per_byte: float | None = None
    tokens_per_second: float | None = None
    base_tokens_per_second: float | None = None
    seconds_per_row: float | None = None
    classes: tuple[str, ...] | None = None

    @property
    def row_gain(self) -> np.ndarray:
        """The gain of each row, float64 (n,)."""
        return self.per_row["gain"]

    @property
    def perplexity(self) -> float | None:
        """``exp(log_loss)``, of the reader."""
        return None if self.log_loss is None else math.exp(self.log_loss)

    @property
    def base_perplexity(self) -> float | None:
        """``exp(base_log_loss)``, of the model alone."""
        return None if self.base_log_loss is None else math.exp(self.base_log_loss)

    @property
    def perplexity_ratio(self) -> float | None:
        """``perplexity / base_perplexity``; below 1 the memory helps."""
        return None if self.log_loss is None else math.exp(self.log_loss - known(self.base_log_loss))

    @property
    def helps(self) -> bool:
        """Whether the memory is better than the model alone here, in what the verdict is about."""
        return known(self.perplexity_ratio) < 1 if self.objective == "log_loss" else self.gain > 0

    @property
    def significant(self) -> bool:
        """Whether the difference is more than chance, at the level ``1 - confidence``.

        By ``p_value``, or by whether the perplexity ratio's interval leaves out 1; no where it rests on exact matches.
        """
        if self.rests_on_matches:
            return False
        if self.objective == "log_loss":
            interval = self.perplexity_ratio_interval
            return interval is not None and not interval[0] <= 1 <= interval[1]
        return self.p_value < 1 - self.confidence

    def to_dict(self) -> dict[str, Any]:
        """All but what is of each row, and the perplexities, as JSON types; NaN and infinity become None.

        Beyond 1000 outputs what has a number for each class is left out.
        """
        wide = self.support is not None and len(self.support) > WIDE
        of_classes = {"per_class_gain", "support", "remembered", "classes"}
        left = {"per_row", "columns", "names", "seconds_per_row"} | (of_classes if wide else set())
        names = [field.name for field in fields(self) if field.name not in left]
        names += ["perplexity", "base_perplexity", "perplexity_ratio"]
        names += [name for name in ("agreement", "tokens") if getattr(self, name)]
        return {name: plain(getattr(self, name)) for name in names}

    def metrics(self) -> dict[str, float]:
        """What a logger takes: each finite measure by its name; those of the model alone begin with ``base_``.

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> memory = rs.Memory(rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), [0, 1]))
        >>> result = rs.evaluate(rs.ResMem(memory, k=1), rs.Encoded([[0.1], [0.8]], np.zeros((2, 2)), [0, 1]))
        >>> {name: value for name, value in result.metrics().items() if "accuracy" in name and "bal" not in name}
        {'accuracy': 1.0, 'base_accuracy': 0.5}
        """
        found = {name: value for name, value in self.to_dict().items() if name not in _ABOUT}
        return {name: float(value) for name, value in found.items() if type(value) in (int, float)}

    @property
    def by_rarity(self) -> dict[str, tuple[float, float]]:
        """Accuracy of the base and of the reader among rows of the rare, the middle and the frequent classes: thirds of
        the classes by how many rows of each are remembered. Empty where no class has twice the rows of another, and
        where there are fewer than three classes."""
        if self.remembered is None or self.support is None:
            return {}
        return by_class.by_rarity(self.per_row, self.support, self.remembered)

    @property
    def agreement(self) -> dict[str, dict[str, float]]:
        """Who is right where label k-NN says what the model says, ``"agree"``, and where not, ``"disagree"``: the
        ``share`` of the rows, and the accuracy there of the model (``base``), of ``label_knn`` and of the ``reader``.
        Empty for other tasks than classification, and without label k-NN."""
        return by_class.agreement(self.per_row, "label_knn") if "label_knn_agrees" in self.per_row else {}

    @property
    def tokens(self) -> dict[str, tokens.Groups]:
        """Of a text, how many tokens there are, and perplexity of the base and of the reader, in groups: ``"rarity"``,
        by how often a token is remembered; ``"distance"``, by the nearest neighbour's, in quarters; ``"recital"``,
        "recited" and "new". Tokens are recited where their key or id is remembered, or where the 20 tokens before
        them are remembered in a row: the same text. Empty for what is no text."""
        if "recited" not in self.per_row:
            return {}
        ways = {"rarity": tokens.by_rarity, "distance": tokens.by_distance, "recital": tokens.by_recital}
        return {name: groups(self.per_row) for name, groups in ways.items()}

    def reliability(self, bins: int = 15) -> dict[str, breakdown.Reliability]:
        """How often answers are right by how sure they are: the ``"base"`` at temperature 1, and the ``"reader"``.

        Their ``error`` is ``base_ece`` and ``ece``, where `bins` is 15. ``TaskError`` of a regression; of several
        labels a row each label is an answer, as sure as its probability is far from 0 or 1.

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> memory = rs.Memory(rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), [0, 1]))
        >>> test = rs.Encoded([[0.1], [0.8], [0.9]], np.zeros((3, 2)), [0, 0, 1])
        >>> curve = rs.evaluate(rs.ResMem(memory, k=1), test).reliability(2)["base"]
        >>> curve.n.tolist(), curve.confidence.tolist()
        ([3, 0], [0.5, nan])
        """
        if self.task == "regression":
            raise TaskError("a regression says numbers, and not how sure it is; rs.conformal gives its intervals")
        if int(bins) != bins or bins < 1:
            raise ParameterError(f"bins={bins!r}; expected a whole number of at least 1")
        found = {}
        for name, side in (("base", "base_"), ("reader", "")):
            label, said = self.per_row["label"], self.per_row[f"{side}prediction"]
            if self.task == "multi-label":
                has = self.per_row[f"{side}probability"]
                sure = np.where(said > 0, has, 1 - has)
            else:
                sure = self.per_row[f"{side}confidence"]
            found[name] = breakdown.reliability(sure.reshape(-1), (said == label).reshape(-1), int(bins))
        return found

    def by_distance(self, groups: int = breakdown.GROUPS) -> list[breakdown.Group]:
        """How good both are near what is remembered and far from it: `groups` of about as many rows each, by the plain
        Euclidean distance of the nearest remembered row; rows that found none are left out.

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> memory = rs.Memory(rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), [0, 1]))
        >>> test = rs.Encoded([[0.0], [0.75], [0.5], [1.5]], np.zeros((4, 2)), [0, 0, 1, 1])
        >>> for group in rs.evaluate(rs.ResMem(memory, k=1), test).by_distance(2):
        ...     print(group)
        Group(low=0.0, high=0.25, n=2, base=1.0, reader=0.5)
        Group(low=0.5, high=0.5, n=2, base=0.0, reader=0.5)
        """
        return self._by(self.per_row["distance"], groups)

    def by_confidence(self, groups: int = breakdown.GROUPS) -> list[breakdown.Group]:
        """How good both are where the model alone is unsure and where it is sure: `groups` of about as many rows each,
        by the probability of what the model alone says. ``TaskError`` where it is no classifier's."""
        if "base_confidence" not in self.per_row:
            raise TaskError(f"a {self.task} evaluation has no one confidence of each row; by_distance needs none")
        return self._by(self.per_row["base_confidence"], groups)

    def _by(self, values: np.ndarray, groups: int) -> list[breakdown.Group]:
        if int(groups) != groups or groups < 1:
            raise ParameterError(f"groups={groups!r}; expected a whole number of at least 1")
        is_text = self.objective == "log_loss"
        return breakdown.by_value(self.per_row, self.task, is_text, values.astype(np.float64), int(groups))

    def confusions(self) -> list[breakdown.Confusion]:
        """Which classes are taken for which, where the memory changes something: how often it turns the wrong class
        into the truth, and the truth into the wrong class; those first that change most.

        ``TaskError`` where rows have no class.

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> memory = rs.Memory(rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), [0, 1]))
        >>> test = rs.Encoded([[0.1], [0.8], [0.9]], np.zeros((3, 2)), [0, 0, 1])
        >>> for confusion in rs.evaluate(rs.ResMem(memory, k=1), test).confusions():
        ...     print(confusion)
        Confusion(label=0, said=1, errors=0, remaining=1, fixed=0, introduced=1)
        Confusion(label=1, said=0, errors=1, remaining=0, fixed=1, introduced=0)
        """
        if self.task != "classification":
            raise TaskError(f"a {self.task} evaluation has no classes to confuse")
        return breakdown.confusions(self.per_row)

    def plot(self) -> Figure:
        """A picture of this evaluation, as a matplotlib ``Figure``: what a notebook shows, and ``savefig`` writes.

        Both answers with the interval of their difference; by the distance of the nearest memory; by class, or by
        group of tokens; and how true the confidence is. ``MissingDependencyError`` without matplotlib.
        """
        from residua.evaluation.picture import draw

        return draw(self)

    def per_class(self, classes: Sequence[str] | None = None) -> pandas.DataFrame:
        """A pandas data frame with one row per class that is true or said: ``class``, ``support`` (test rows),
        ``remembered`` (rows in the memory), ``base_recall``, ``base_precision``, ``recall``, ``precision`` and ``gain``
        (of recall); nan where a class is never true, or never said.

        Parameters
        ----------
        classes : sequence of str of length L, optional
            Names of the classes, if not the memory's own.

        Raises
        ------
        MissingDependencyError, ShapeError, TaskError

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> memory = rs.Memory(rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), [0, 1]))
        >>> test = rs.Encoded([[0.1], [0.8], [0.9]], np.zeros((3, 2)), [0, 0, 1])
        >>> frame = rs.evaluate(rs.ResMem(memory, k=1), test).per_class(["cat", "dog"])
        >>> frame[["class", "support", "base_recall", "recall", "precision"]]
          class  support  base_recall  recall  precision
        0   cat        2          1.0     0.5        1.0
        1   dog        1          0.0     1.0        0.5
        """
        if self.task != "classification" or self.support is None:
            raise TaskError(f"a {self.task} evaluation has no classes; to_frame shows each row")
        width = len(self.support)
        named = self.classes if classes is None else checked_classes([str(name) for name in classes], width)
        table = by_class.recall_and_precision(self.per_row, self.support, named or range(width), self.remembered)
        return data_frame(dict(table), {})

    def per_superclass(self, groups: Sequence[str | int]) -> pandas.DataFrame:
        """A pandas data frame with one row per superclass that is true, and one of all rows: is what is wrong at least
        nearly right?

        Parameters
        ----------
        groups : sequence of length L
            The superclass of each class, as its name or number.

        Returns
        -------
        pandas.DataFrame
            ``superclass``, ``support`` (test rows), ``base_accuracy``, ``accuracy``; ``base_superclass_accuracy`` and
            ``superclass_accuracy``, the share of answers in the true superclass; ``base_errors_within``, the share of
            the model's errors that are, and ``corrected_within``, of those that the memory put right (nan for none).

        Raises
        ------
        MissingDependencyError, ShapeError, TaskError

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> memory = rs.Memory(rs.Encoded([[0.0], [1.0], [2.0]], np.zeros((3, 3)), [0, 1, 2]))
        >>> test = rs.Encoded([[0.1], [0.8], [2.1]], np.zeros((3, 3)), [0, 1, 2])
        >>> frame = rs.evaluate(rs.ResMem(memory, k=1), test).per_superclass(["pet", "pet", "car"])
        >>> frame[["superclass", "base_accuracy", "base_superclass_accuracy"]].round(2)
          superclass  base_accuracy  base_superclass_accuracy
        0        car           0.00                      0.00
        1        pet           0.50                      1.00
        2        all           0.33                      0.67
        """
        if self.task != "classification" or self.support is None:
            raise TaskError(f"a {self.task} evaluation has no classes, and so no superclasses")
        if len(groups) != len(self.support):
            raise ShapeError(f"{len(groups)} superclasses for {len(self.support)} classes; expected one of each class")
        names, number = np.unique(np.asarray(groups), return_inverse=True)
        return data_frame(dict(by_class.by_superclass(self.per_row, number, names.tolist())), {})

    def to_frame(self, classes: Sequence[str] | None = None) -> pandas.DataFrame:
        """A pandas data frame with one row per evaluated row, in the order of the data, numbered from 0.

        Nothing is computed again: these are the numbers that the measures are made of.

        Parameters
        ----------
        classes : sequence of str of length L, optional
            Names of the classes (or of the regression outputs, or of the tokens), if not the memory's own.

        Returns
        -------
        pandas.DataFrame
            - ``id`` and, where the data have names for ids, ``document``: only where all rows came with ids.
            - ``name``: what each row is called, where the data say it.
            - ``label``, ``base_prediction``, ``prediction``: the truth, and what the model alone and the reader say.
              Of several regression outputs ``label_0``, ``label_1``, … (or by the names of `classes`).
            - ``outcome``: "fixed" (wrong made right), "broken" (right made wrong), or "same", which a wrong answer in
              place of another wrong one is too. Of a regression "better", "worse" or "same", by the squared error; of
              several labels by how many are right.
            - ``gain``: 1, -1 and 0, or by how much the squared error falls; its mean is ``result.gain``.
            - Classes alone have ``base_confidence`` and ``confidence``, the probability of what is predicted, and
              ``base_log_prob`` and ``log_prob``, log(probability of the label) in nats, at least -87.3. The base's are
              at temperature 1. A regression has ``base_squared_error`` and ``squared_error``, means over outputs.
            - ``distance``: plain Euclidean, to the nearest remembered row that was not excluded. NaN where there is
              none, or none was searched: ``k=0``, or a row that the reader skips.
            - ``label_knn``, ``label_knn_tuned``: whether label k-NN is right, or its squared error; where the result
              has them. Of classes ``label_knn_agrees`` too, whether it says what the model alone says.
            - Of a text ``remembered``, how often the token is in the memory, and ``recited`` (see ``tokens``).
            - The columns of one value per row that the data bring, such as a token's ``offset``; where a name is
              taken, ``column.<name>``.

        Raises
        ------
        MissingDependencyError, ShapeError

        Examples
        --------
        >>> import numpy as np, residua as rs
        >>> memory = rs.Memory(rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), [0, 1]))
        >>> test = rs.Encoded([[0.1], [0.8], [0.9]], np.zeros((3, 2)), [0, 0, 1])
        >>> frame = rs.evaluate(rs.ResMem(memory, k=1), test).to_frame(["cat", "dog"])
        >>> frame[["label", "base_prediction", "prediction", "outcome", "distance"]].round(2)
          label base_prediction prediction outcome  distance
        0   cat             cat        cat    same       0.1
        1   cat             cat        dog  broken       0.2
        2   dog             cat        dog   fixed       0.1
        >>> frame.index[frame.outcome == "fixed"].tolist()  # so test[2] is one to explain
        [2]
        """
        width = self.per_row["label"].shape[1] if self.support is None else len(self.support)
        named = self.classes if classes is None else checked_classes([str(name) for name in classes], width)
        names = None if named is None else list(named)
        table: dict[str, object] = {}
        for name, values in self.per_row.items():
            if name == "gain":
                table["outcome"] = np.array(OUTCOMES[self.task])[np.sign(values).astype(int)]
            if values.ndim > 1:  # a regression's answers, of one output or several
                words = [name] if width == 1 else [f"{name}_{word}" for word in names or range(width)]
                table |= dict(zip(words, values.T))
            elif names is not None and self.task == "classification" and name in ANSWERS:
                table[name] = [names[label] for label in values]
            else:
                table[name] = values.tolist() if name == "name" else values
            if name == "id" and self.names:
                table["document"] = [self.names.get(id, str(id)) for id in values.tolist()]
        return data_frame(table, self.columns)

    def __repr__(self) -> str:
        name, before, after, _ = rows_of(self)[1]
        return f"Evaluation({self.reader} on {self.n:,} rows: {name} {before} -> {after})"

    def __str__(self) -> str:
        lines = [aligned(rows_of(self)), self._interval()]
        return "\n\n".join([self._about(), "\n".join(filter(None, lines)), self.verdict])

    def _repr_html_(self) -> str:
        below = html.paragraph(self._interval()) + html.paragraph(self.verdict)
        return html.paragraph(self._about()) + html.table(rows_of(self)) + below

    def _about(self) -> str:
        unit = "token" if self.objective == "log_loss" else "test point"
        grouped = f" {'of' if unit == 'token' else 'in'} {self._groups}" if self.n_groups < self.n else ""
        return f"{short({'reader': self.reader, 'params': self.params})} on {count(self.n, unit)}{grouped}"

    @property
    def verdict(self) -> str:
        """In words: is the memory better or worse, and is the difference more than chance."""
        return self._of_perplexity() if self.objective == "log_loss" else self._of_gain()

    @property
    def _groups(self) -> str:
        return count(self.n_groups, "document" if self.objective == "log_loss" else "group")

    def _of_gain(self) -> str:
        test = "McNemar's exact test" if self.task == "classification" else "randomisation test of the mean"
        if self.n_groups < self.n:
            test = f"randomisation test over {self._groups}"
        p = "p < 0.0001" if self.p_value < 1e-4 else f"p = {self.p_value:.4f}"
        if self.gain == 0:
            return f"The memory makes no difference here ({test}, {p})."
        start = f"The memory is {'better' if self.helps else 'worse'} than the model alone,"
        if self.rests_on_matches:
            return f"{start} but {self._doubt()}"
        if self.significant:
            return f"{start} and the difference is significant ({test}, {p}).{'' if self.helps else ADVICE}"
        unclear = f"not significant at the {1 - self.confidence:.2g} level ({test}, {p})"
        return f"{start} but the difference is {unclear}: these test points cannot tell the two apart."

    def _of_perplexity(self) -> str:
        ratio, interval = known(self.perplexity_ratio), self.perplexity_ratio_interval
        if ratio == 1:
            return "The memory makes no difference here."
        start = f"Perplexity is {abs(100 * (ratio - 1)):.1f} % {'lower' if self.helps else 'higher'} with the memory"
        if interval is None:
            return f"{start}; one document cannot say whether that is chance."
        if self.rests_on_matches:
            return f"{start}, but {self._doubt()}"
        low, high = (100 * (edge - 1) for edge in interval)
        resampled = self._groups if self.n_groups < self.n else count(self.n, "token")
        span = (
            f"({100 * self.confidence:.4g} % interval {low:+.1f} to {high:+.1f} %, {resampled} resampled{self._few})."
        )
        doubt = "" if self.significant else ", but that may be chance"
        return f"{start}{doubt} {span}{ADVICE if self.significant and not self.helps else ''}"

    def _doubt(self) -> str:
        return (
            f"beyond chance only by the {self.exact_matches:,} of {self.n:,} rows that have one with the same key or "
            "id in the memory. If these are the same examples, that is a leak and no gain: give both their ids, which "
            "then exclude them, or test on other data."
        )

    def _interval(self) -> str:
        if self.gain_interval is None or self.objective == "log_loss":
            return ""
        (low, high), level = self.gain_interval, f"{100 * self.confidence:.4g} %"
        if self.task != "regression":
            return f"{level} interval of the gain: {100 * low:+.2f} to {in_points(high)}{self._few}"
        return f"{level} interval of the fall in squared error: {low:+.4g} to {high:+.4g}{self._few}"

    @property
    def _few(self) -> str:
        """What is to be said of an interval from a few groups."""
        return f"; of only {self._groups}, so it may well be too narrow" if self.n_groups < min(FEW, self.n) else ""
