"""The verb: everything that is known of a memory, gathered once, as data and as a page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from residua import html
from residua.core import Encoded, batches
from residua.core.atomic import atomic_write
from residua.core.naming import checked_classes, class_name
from residua.drawing import Images
from residua.errors import IdError, InputError, MemoryFileError, ParameterError
from residua.evaluation import Evaluation, Group, Reliability, evaluate
from residua.evaluation.shown import rows_of
from residua.evaluation.significance import Groups
from residua.explanation.explanation import Decoder
from residua.printable import plain, short
from residua.readers import ContinuousCache, NeighbourReader, Reader
from residua.readers.reader import OWN, Exclude, of_one_moment
from residua.reporting import examples as shown
from residua.reporting.advice import advice
from residua.reporting.answers import Answer, answers
from residua.reporting.charts import Charts, charts_of
from residua.reporting.coordinates import Table
from residua.reporting.cost import Cost, cost_of
from residua.reporting.examples import Example
from residua.reporting.measure import Measure
from residua.reporting.memories import Review, review_of
from residua.reporting.page import needs_jinja, page
from residua.reporting.surface import Surface, surface_of, surfaces
from residua.review import Audit, audit
from residua.tuning import tune
from residua.uncertainty import conformal
from residua.uncertainty.quantiles import needed
from residua.uncertainty.result import Coverage

GROUPS, IN_GROUP = 10, 20  # of rows by distance and by confidence, and the fewest rows of each
AUDITED = 5_000  # remembered rows, and test rows, up to which an audit is made unasked: more take minutes


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What a report says, as data; ``html`` is the page, ``write`` saves it.

    Attributes
    ----------
    title, about : str
        Its heading, and which reader it is about.
    result : Evaluation
        What ``rs.evaluate`` found, of which nearly everything else is told.
    answers : list of Answer
        The seven of the first screen.
    cost : Cost
    coverage : Coverage or None
        What ``rs.conformal`` promises, and keeps, on the test rows.
    surfaces : list of Surface
        What ``rs.tune`` found of every setting.
    corrected, broken : list of Example
        Rows that the memory mended, and broke, beside the memories that did it.
    review : Review or None
        Of ``rs.audit``: memories that helped and harmed, doubtful labels, near-duplicates.
    notes : list of str
        Why something that was asked for is not there.
    """

    title: str
    about: str
    result: Evaluation
    measure: Measure
    cost: Cost
    silent: bool
    auditable: bool
    coverage: Coverage | None = None
    surfaces: list[Surface] = field(default_factory=list)
    corrected: list[Example] = field(default_factory=list)
    broken: list[Example] = field(default_factory=list)
    review: Review | None = None
    notes: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    tokenizer: Decoder | None = None

    @property
    def distances(self) -> list[Group]:
        """Rows by the distance of the nearest memory."""
        return self.result.by_distance(self._groups)

    @property
    def confidences(self) -> list[Group]:
        """Rows by how sure the model alone is; none where it does not say."""
        return self.result.by_confidence(self._groups) if "base_confidence" in self.result.per_row else []

    @property
    def _groups(self) -> int:
        return max(1, min(GROUPS, self.result.n // IN_GROUP))

    @property
    def curves(self) -> dict[str, Reliability]:
        """How often answers are right by how sure they are; none of a regression."""
        return {} if self.result.task == "regression" else self.result.reliability()

    @property
    def charts(self) -> Charts:
        """What is drawn."""
        return charts_of(self)

    @property
    def numbers(self) -> Table:
        """The table that an evaluation prints."""
        rows = rows_of(self.result)
        return [(name, *("" if cell.strip("+") == "nan" else cell for cell in cells)) for name, *cells in rows]

    def called(self, label: int) -> str:
        """What a class or token is called."""
        if self.result.objective == "log_loss" and self.result.classes is None:
            return f"“{shown.tokens_as_text(label, self.tokenizer)}”"
        return class_name(self.result.classes, label)

    @property
    def html(self) -> str:
        """The page: one text that holds everything, and asks no other address for anything."""
        return page(self)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Save the page; ``MemoryFileError`` where it cannot be written."""
        where, text = Path(path), self.html
        with atomic_write(where) as part:
            part.write_text(text, encoding="utf-8")
        return where

    def to_dict(self) -> dict[str, Any]:
        """The figures in JSON types: the evaluation's, the coverage's, what it costs, and the answers in words."""
        said = {
            "title": self.title,
            "answers": {one.question: [*filter(None, [one.short]), *one.lines] for one in self.answers},
            "evaluation": self.result.to_dict(),
            "coverage": None if self.coverage is None else self.coverage.to_dict(),
            "bytes": self.cost.bytes,
            "bytes_per_row": self.cost.bytes_per_row,
            "recall": self.cost.found,
            "corrected": [one.row for one in self.corrected],
            "broken": [one.row for one in self.broken],
            "harmed": None if self.review is None else [one.id for one in self.review.harmed],
            "duplicates": None if self.review is None else [one.id for one in self.review.twice],
            "notes": self.notes,
        }
        return plain(said)

    def __repr__(self) -> str:
        return f"Report({self.title!r}, {self.result!r})"

    def __str__(self) -> str:
        lines = [self.title, self.about, ""]
        for one in self.answers:
            lines.append(f"{one.question} {one.short}".rstrip())
            lines += [f"  {line}" for line in one.lines]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        facts = {one.question: " ".join([f"{one.short}." if one.short else "", *one.lines]) for one in self.answers}
        return html.facts(self.title, facts) + "".join(html.paragraph(note) for note in self.notes)


@of_one_moment
def report(
    reader: Reader,
    test: Encoded | Iterable[Encoded],
    *,
    validation: Encoded | Iterable[Encoded] | None = None,
    calibration: Encoded | Iterable[Encoded] | None = None,
    images: Images | None = None,
    remembered: Images | None = None,
    path: str | os.PathLike[str] | None = "report.html",
    title: str = "What the memory does",
    classes: Sequence[str] | None = None,
    tokenizer: Decoder | None = None,
    review: Audit | bool | None = None,
    exclude: Exclude = OWN,
    groups: Groups = None,
    coverage: float = 0.9,
    examples: int = 8,
    memories: int = 5,
    seed: int = 0,
    progress: bool | None = None,
) -> Report:
    """One page about a memory, in a file that holds everything: did it help, is that sure, where, at what cost, can its
    confidence be trusted, what did it break, and what to try next.

    Everything in it is what ``evaluate``, ``explain``, ``tune``, ``conformal`` and ``audit`` say; what does not apply
    to a task, or to these data, is left out.

    Parameters
    ----------
    reader : Reader
        One that ``rs.tune`` gave brings what was found of every setting.
    test : Encoded or iterable of Encoded
        With labels; neither remembered nor tuned on. What streams by, such as a text, is read again up to the last row
        that is shown as an example.
    validation : Encoded or iterable of Encoded, optional
        With labels, not remembered. Label k-NN is tuned on it; every setting is tried on it where the reader does not
        know them; and sets are calibrated on it where the reader was not tuned on it.
    calibration : Encoded or iterable of Encoded, optional
        Rows that were neither remembered nor tuned on, for prediction sets and intervals.
    images, remembered : array or tensor (n, h, w[, c]) or (n, c, h, w), sequence, mapping, callable, path, optional
        Pictures of the test rows, by row number, and of what is remembered, by id; or a folder that names are in.
        Without, names that are paths of pictures are opened.
    path : path or None, default "report.html"
        Where the page is written; None: nowhere, it is ``report.html``.
    title : str
    classes : sequence of str of length L, optional
        Names of the classes (or of the regression outputs), if not the memory's or the data's own.
    tokenizer : object with ``decode``, optional
        Shows tokens as text. By default that of `test`, where ``rs.encode`` or ``rs.lm.encode`` made it of texts.
    review : Audit or bool, optional
        What ``rs.audit`` found; True makes it, against the test rows, which takes minutes for tens of thousands. By
        default it is made up to 5 000 rows of each.
    exclude : "own", None, or int array of shape (n,) or (n, m)
        Ids whose rows are not neighbours of each test row, as for ``evaluate``.
    groups : "ids", "rows", int array of shape (n,), or None
        Which test rows belong together, as for ``evaluate``.
    coverage : float in (0, 1), default 0.9
        The rate at which sets and intervals hold the truth.
    examples, memories : int, default 8 and 5
        How many corrected and broken rows are shown, and memories beside each.
    seed : int, default 0
        Of the resampling.
    progress : bool, optional
        A bar: always, or never; by default only on a terminal, after a second.

    Returns
    -------
    Report

    Raises
    ------
    MissingDependencyError
        Without Jinja2, or without Pillow where there are pictures: ``pip install "residua[report]"``.
    MemoryFileError
        Where `path` cannot be written.
    LabelError, InputError, EmptyMemoryError, ParameterError, ShapeError, TaskError, SourceMismatchError, IdError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> rng = np.random.default_rng(0)
    >>> def rows(n):
    ...     keys = rng.normal(size=(n, 2))
    ...     return rs.Encoded(keys, np.zeros((n, 2)), (keys[:, 0] > 0).astype(int), classes=["left", "right"])
    >>> found = rs.report(rs.ResMem(rs.Memory(rows(200)), k=5), rows(100), path=None)
    >>> found.answers[0].question, found.answers[0].mood
    ('Did it help?', 'good')
    >>> found.html.count("<script"), "</html>" in found.html
    (0, True)
    """
    if not isinstance(reader, Reader):
        raise ParameterError(f"got a {type(reader).__name__} where a reader is expected, such as rs.ResMem(memory)")
    for name, number in (("examples", examples), ("memories", memories)):
        if isinstance(number, bool) or int(number) != number or number < 0:
            raise ParameterError(f"{name}={number!r}; expected a whole number >= 0")
    needs_jinja()
    if path is not None and (not Path(path).parent.is_dir() or Path(path).is_dir()):
        raise MemoryFileError(f"cannot write {path}: expected a file's path, in a folder that is there")
    named = None if classes is None else checked_classes(list(map(str, classes)), reader.memory.n_outputs)
    exclude = exclude if exclude is None or isinstance(exclude, str) else np.asarray(exclude)
    text = reader.memory.schema.is_text
    tokenizer = getattr(getattr(test, "encoder", None), "tokenizer", None) if tokenizer is None else tokenizer
    test, validation, calibration = (_kept(data) for data in (test, validation, calibration))
    asked = {"exclude": exclude, "progress": progress}
    result = evaluate(reader, test, validation=None if text else validation, groups=groups, seed=seed, **asked)
    result = result if named is None else replace(result, classes=named)
    measure, notes = Measure.of(result), list[str]()
    cover = _coverage(reader, test, validation, calibration, coverage, exclude, notes)
    rows = {mended: shown.choose(result, mended, examples) for mended in (True, False)}
    how = {"images": images, "remembered": remembered, "tokenizer": tokenizer, "memories": memories}
    both = shown.examples(reader, test, result, rows[True] + rows[False], exclude=exclude, **how)
    if both and shown.answers_alone(reader) is None:
        why = "looks back over a whole text, and no row of it is taken apart alone"
        why = why if reader.has_neighbours else "has no neighbours, and no memories are shown that moved an answer"
        notes.append(f"A {type(reader).__name__} {why}.")
    found = _review(reader, test, result, review, progress)
    made = Report(
        title=title,
        about=short({"reader": result.reader, "params": result.params}),
        result=result,
        measure=measure,
        cost=cost_of(reader, result),
        silent=reader.is_noop,
        auditable=_auditable(reader),
        coverage=cover,
        surfaces=_surfaces(reader, validation, measure, progress),
        corrected=both[: len(rows[True])],
        broken=both[len(rows[True]) :],
        review=None if found is None else review_of(replace(found, classes=result.classes), remembered, examples),
        notes=notes,
        tokenizer=tokenizer,
    )
    made = replace(made, answers=answers(made, advice(made, reader)))
    if path is not None:
        made.write(path)
    return made


def _kept(data: Any) -> Any:
    """`data` that can be read several times."""
    return list(batches(data)) if data is not None and iter(data) is data else data


def _coverage(
    reader: Reader,
    test: Any,
    validation: Any,
    calibration: Any,
    coverage: float,
    exclude: Exclude,
    notes: list[str],
) -> Coverage | None:
    """Of sets and intervals on the test rows, where there are rows to calibrate on; why not, in `notes`."""
    rows = validation if calibration is None else calibration
    if rows is None or reader.memory.task == "multi-label" or reader.memory.schema.is_text:
        return None
    try:
        sure = conformal(reader, rows)
    except (IdError, InputError) as error:
        if calibration is not None:
            raise
        notes.append(f"There are no prediction sets: {error}. Give such rows with calibration=.")
        return None
    if sure.n < (least := needed(coverage)):
        notes.append(f"There are no prediction sets: {sure.n} rows calibrate, and {coverage:g} needs {least}.")
        return None
    return sure.evaluate(test, coverage, exclude)


def _surfaces(reader: Reader, validation: Any, measure: Measure, progress: bool | None) -> list[Surface]:
    """Of what the reader knows of its settings; else of what trying them on validation rows finds."""
    found = surfaces(reader, measure)
    tunable = isinstance(reader, NeighbourReader | ContinuousCache) and not hasattr(reader, "fit")
    if found or validation is None or not tunable or not len(reader.memory):
        return found
    tried = tune(reader, validation, evidence=None, progress=progress)
    return [surface_of(reader, tried.results_, measure)]


def _auditable(reader: Reader) -> bool:
    memory = reader.memory
    kind = memory.task == "classification" and not memory.schema.is_text and isinstance(reader, NeighbourReader)
    return kind and memory.keys_kept and memory.stored_logits is not None and len(memory) > 1 and not reader.is_noop


def _review(
    reader: Reader, test: Any, result: Evaluation, given: Audit | bool | None, progress: bool | None
) -> Audit | None:
    if isinstance(given, Audit):
        return given
    small = max(len(reader.memory), result.n) <= AUDITED
    if given is True or (given is None and small and _auditable(reader)):
        return audit(reader, test, progress=progress)
    return None
