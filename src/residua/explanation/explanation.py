"""One prediction's anatomy, as arrays, as a data frame and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from residua import html
from residua.core import ArrayLike, Encoded, Task
from residua.core.exported import Exported
from residua.core.frame import data_frame
from residua.core.naming import checked_classes, class_name
from residua.core.renamed import renamed
from residua.drawing.look import Images, Look, facts_of, named, picture_of
from residua.printable import one_line

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


class Decoder(Protocol):
    """A tokenizer, of which tokens can be shown as text."""

    def decode(self, token_ids: list[int], /) -> str: ...


SHOWN = 10  # neighbours, outputs and tokens in the printed table


@renamed({"tokens": "outputs"})
@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Exported):
    """``scale * base + contributions.sum(axis=0) == scores``; neighbours come nearest first, missing ones not at all.

    Where a reader has several kernels or sources, the neighbours of one follow those of the other.

    Attributes
    ----------
    rows, ids : int64 arrays of shape (k,)
        The neighbours' row numbers in the memory, and their ids (of tokens, their documents).
    labels : int64 array of shape (k,), or float64 of shape (k,) or (k, m) for regression targets
        Their labels (of tokens, the next ones).
    distances, weights : float32 arrays of shape (k,)
        Plain (not squared) Euclidean distances of their keys, and what multiplies each one's value: normalised kernel
        weights, times lmbda for kNN-LM.
    outputs : int64 array of shape (c,)
        The outputs that are spoken of, ascending: all L up to 1 000; of more, those that a neighbour adds to, and the
        predicted, the base's and the true one.
    contributions : float32 array of shape (k, c)
        What each neighbour adds to each of these scores; where they are `shared`, its share of what all add.
    base, scores : float32 arrays of shape (c,)
        The base's own scores (softmax(f / T); predictions for regression; logits in the logit space), the reader's.
    scale : float
        What is left of the base's: 1 for ResMem, 1 - lmbda for kNN-LM.
    prediction, base_prediction, label : int, or float, or float32 array of shape (m,)
        Of the reader, of the model alone, and the truth, when the query came with it.
    columns, names
        What else the remembered rows carry, such as a path, (k, ...) by name; what the memory calls these ids.
    contexts : list of k int64 arrays, or None
        Of a memory of text: the remembered tokens before each neighbour's, oldest first.
    sources : tuple of k str
        Where each neighbour comes from: ``"memory"``, or what a reader of more calls it. Rows, ids, distances and
        columns are known of the memory's alone (of others -1 or NaN); of others the label is what they add most to.
    shared : bool
        Whether the sum over neighbours is theirs together, such as a logarithm of their votes: each then has a share in
        proportion to its part of the votes, which is not what would be missing without it.
    task, n_outputs, space
        ``"classification"``, ``"regression"`` or ``"multi-label"``, L, and where scores live: ``"probability"`` or
        ``"logit"``.
    classes : tuple of L str, or None
        What the outputs are called, where the memory knows.
    query : Encoded
        The row that was asked.
    """

    task: Task
    rows: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    weights: np.ndarray
    outputs: np.ndarray
    contributions: np.ndarray
    base: np.ndarray
    scale: float
    scores: np.ndarray
    prediction: int | float | np.ndarray
    base_prediction: int | float | np.ndarray
    label: int | float | np.ndarray | None
    columns: dict[str, np.ndarray]
    names: dict[int, str]
    contexts: list[np.ndarray] | None
    sources: tuple[str, ...]
    n_outputs: int
    query: Encoded
    space: str = "probability"
    shared: bool = False
    tokenizer: Decoder | None = None
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """How many neighbours there are."""
        return len(self.rows)

    @property
    def is_text(self) -> bool:
        """Whether the neighbours are tokens of texts."""
        return self.contexts is not None

    @property
    def offsets(self) -> np.ndarray | None:
        """The places of a text's neighbours in their documents, int64 (k,)."""
        return self.columns["offset"] if self.is_text else None

    @property
    def contributions_to(self) -> dict[str, np.ndarray]:
        """What each neighbour adds, float32 (k,), to the score of the class or token that is ``"predicted"``, of the
        ``"base"``'s, and of the ``"true"`` one when it is known; for regression to ``"output"``, or each by number."""
        return {word: self.contributions[:, place] for word, place in self._places().items()}

    def with_tokenizer(self, tokenizer: Decoder | None) -> Self:
        """The same, with tokens shown as text."""
        return replace(self, tokenizer=tokenizer)

    def text(self, tokens: ArrayLike) -> str:
        """Tokens as text, on one line; their numbers without a tokenizer."""
        return repr(self._decoded(tokens))[1:-1]

    def look(self, neighbour: int, images: Images | None = None) -> Look:
        """What a neighbour looks like to a person; `images` are those of what is remembered, by id, as ``plot`` has."""
        id = int(self.ids[neighbour])
        name = self.names.get(id)
        text = None
        if self.contexts is not None:
            text = self.text(self.contexts[neighbour]), self.text(self.labels[neighbour])
        own = self.sources[neighbour] == "memory"  # what else a reader hears has no row of its own
        picture = picture_of(images, id, name) if own and text is None else None
        facts = facts_of(self.columns, neighbour) if own else {}
        return Look(named(name, f"id {id}" if own else self.sources[neighbour]), picture, text, facts)

    def query_look(self, shown: Any = None) -> Look:
        """What the query looks like; `shown` is its picture, or the text before its token, where it is known."""
        names = self.query.names
        name = None if names is None else str(names[0])
        if self.is_text:
            text = (shown if isinstance(shown, str) else "", "" if self.label is None else self.text(self.label))
            return Look(named(name, "the text"), None, text)
        picture = picture_of(None, 0, name) if shown is None else picture_of([shown], 0)
        return Look(named(name, "the query"), picture, None, facts_of(self.query.columns, 0))

    def plot(self, images: Images | None = None, query: Any = None, *, memories: int = 5) -> Figure:
        """A picture: what was asked, its scores before and after, and the `memories` that moved the answer most.

        Parameters
        ----------
        images : array or tensor (n, h, w[, c]) or (n, c, h, w), sequence, mapping, callable, path, optional
            Pictures of what is remembered, by id: what was remembered itself, a mapping or function from ids, or the
            folder that names are in. Without, names that are paths of pictures are opened. What has no picture is shown
            by its text, or its columns.
        query : array, PIL image, path or str, optional
            The picture that was asked about; of text, what stands before the token.
        memories : int, default 5

        Returns
        -------
        matplotlib.figure.Figure
            ``savefig`` writes it; a notebook shows it. Several explanations in one picture:
            ``residua.explanation.plot``.

        Raises
        ------
        MissingDependencyError, InputError, ShapeError
        """
        from residua.explanation.picture import plot

        return plot([self], images, None if query is None else [query], memories=memories)

    def to_frame(self, classes: Sequence[str] | None = None) -> pandas.DataFrame:
        """A pandas data frame with one row per neighbour, nearest first.

        Parameters
        ----------
        classes : sequence of str of length L, optional
            Names of the classes (or of the regression outputs, or of the tokens), if not the memory's own.

        Returns
        -------
        pandas.DataFrame
            Columns ``id`` (and ``name``, where ids have names), ``label``, ``distance``, ``weight`` (of text
            ``document``, ``offset``, ``context``, ``next``, ``distance``, ``weight``); then as in ``contributions_to``
            ``to_predicted``, ``to_base`` and, when known, ``to_true``, or for regression ``to_output`` (of several
            ``to_<name>``, and ``label_<name>``). Then the memory's own columns of one value per row; where a name is
            taken, ``column.<name>``. ``source`` comes first where there are several.

        Raises
        ------
        MissingDependencyError, ShapeError
        """
        named = self.classes if classes is None else checked_classes([str(name) for name in classes], self.n_outputs)
        names = None if named is None else list(named)
        table: dict[str, object] = {"source": self.sources} if self._is_mixed else {}
        if self.contexts is not None:
            contexts = [self.text(tokens) for tokens in self.contexts]
            table |= {"document": [self._name(id) for id in self.ids], "offset": self.offsets, "context": contexts}
            table["next"] = [self.text(label) if names is None else names[label] for label in self.labels]
        else:
            called = {"name": [self._name(id) for id in self.ids]} if self.names else {}
            table |= {"id": self.ids} | called
            if self.task == "classification":
                table["label"] = self.labels if names is None else [names[i] for i in self.labels]
            else:
                places = self._places(names)
                words = {"label": 0} if self.n_outputs == 1 else {f"label_{w}": i for w, i in places.items()}
                labels = self.labels.reshape(-1, self.n_outputs)
                table |= {word: labels[:, place] for word, place in words.items()}
        table |= {"distance": self.distances, "weight": self.weights}
        table |= {f"to_{word}": self.contributions[:, place] for word, place in self._places(names).items()}
        own = {name: column for name, column in self.columns.items() if not (self.is_text and name == "offset")}
        return data_frame(table, own)

    def __repr__(self) -> str:
        prediction, others = self._predictions()
        return f"Explanation({prediction}, {others}, {len(self)} neighbours)"

    def __str__(self) -> str:
        prediction, others = self._predictions()
        scores, neighbours = self._scores(), self._neighbour_rows()
        if self.is_text:
            lines = [f"  {'token':<16}{'base':>10}{'memory':>10}{'score':>10}"]
            lines += [f"  {name:<16}{left:>10.4f}{added:>+10.4f}{score:>10.4f}" for name, left, added, score in scores]
        else:
            lines, given = [], "shared by" if self.shared else "from"
            for name, left, added, score in scores:
                moved = f"base {left:.4g} {added:+.4g} {given} {len(self)} neighbours = {score:.4g}"
                lines.append(f"  {self._kind} {name}: {moved}")
        if len(self):
            lines += _in_context(neighbours) if self.is_text else _aligned(neighbours)
        return "\n".join([f"{prediction} ({others})", *lines, *self._rest()])

    def _repr_html_(self) -> str:
        prediction, others = self._predictions()
        form = ("{:.4g}" if self.task == "regression" else "{:.4f}").format
        scores = [(self._kind, "base", "memory", "score"), *((name, *map(form, of)) for name, *of in self._scores())]
        parts = [html.paragraph(f"{prediction} ({others})"), html.table(scores)]
        if len(self):
            parts.append(html.table(self._neighbour_rows()))
        return "".join([*parts, *map(html.paragraph, self._rest())])

    def _predictions(self) -> tuple[str, str]:
        truth = "" if self.label is None else f", truth {self._shown(self.label)}"
        return f"prediction {self._shown(self.prediction)}", f"base alone {self._shown(self.base_prediction)}{truth}"

    @property
    def _kind(self) -> str:
        kinds = {"classification": "class", "multi-label": "label", "regression": "output"}
        return "token" if self.is_text else kinds[self.task]

    def _scores(self) -> list[tuple[str, float, float, float]]:
        """What is left of the base, what is added, and the score, of each output worth a line; of text the best."""
        best = np.argsort(-self.scores, kind="stable")[:SHOWN] if self.is_text else self._shown_places
        left, added = self.scale * self.base[best], self.contributions[:, best].sum(axis=0)
        names = [self.text(i)[:15] if self.is_text else class_name(self.classes, i) for i in self.outputs[best]]
        return list(zip(names, left.tolist(), added.tolist(), self.scores[best].tolist()))

    def _neighbour_rows(self) -> list[list[str]]:
        """The nearest neighbours, a row of cells each, after the cells' headings."""
        near = range(min(SHOWN, len(self)))
        if self.contexts is not None:
            rows = [["next token", "context", "distance", "weight", "document", "token"]]
            for n in near:
                said = [self._shown(self.labels[n]), f"…{self.text(self.contexts[n])[-60:]}"]
                numbers = [f"{self.distances[n]:.3f}", f"{self.weights[n]:.4f}"]
                rows.append([*said, *numbers, one_line(self._name(self.ids[n])), f"{self.columns['offset'][n]:,}"])
        else:
            number, places = "+.4g" if self.task == "regression" else "+.4f", self._shown_places
            to = (
                f"{'share of' if self.shared else 'to'} {class_name(self.classes, self.outputs[place])}"
                for place in places
            )
            many = self.columns.get("stands_for")
            for_rows = [] if many is None else ["for rows"]
            rows = [["id", "label", *for_rows, "distance", "weight", *to, *(["name"] if self.names else [])]]
            for n in near:
                numbers = [f"{self.distances[n]:.4g}", f"{self.weights[n]:.4f}"]
                added = [f"{self.contributions[n, place]:{number}}" for place in places]
                called = [one_line(self._name(self.ids[n]))] if self.names else []
                count = [] if many is None else [f"{many[n]:,}"]
                rows.append([str(self.ids[n]), self._shown(self.labels[n]), *count, *numbers, *added, *called])
        if self._is_mixed:
            rows = [[source, *row] for source, row in zip(["source", *map(one_line, self.sources)], rows)]
        return rows

    def _rest(self) -> list[str]:
        """What is not shown."""
        rest = [f"and {len(self._places()) - SHOWN:,} more outputs"] if len(self._places()) > SHOWN else []
        if not len(self):
            rest.append("no neighbours: this is the model alone")
        if len(self) > SHOWN:
            rest.append(f"and {len(self) - SHOWN} more, of weight {float(self.weights[SHOWN:].sum()):.4f} together")
        return rest

    def _shown(self, value: Any) -> str:
        if self.is_text:
            return repr(self._decoded(value))
        return class_name(self.classes, value) if self.task == "classification" else _number(value)

    def _decoded(self, tokens: ArrayLike) -> str:
        numbers = [int(token) for token in np.atleast_1d(tokens)]
        return " ".join(map(str, numbers)) if self.tokenizer is None else self.tokenizer.decode(numbers)

    def _places(self, names: list[str] | None = None) -> dict[str, int]:
        """Places in `outputs` of those worth a column, by what they are called there."""
        if self.task != "classification":
            words = ["output"] if self.n_outputs == 1 else names or [str(output) for output in self.outputs]
            return {word: place for place, word in enumerate(words)}
        told = {"predicted": self.prediction, "base": self.base_prediction, "true": self.label}
        return {word: int(np.searchsorted(self.outputs, i)) for word, i in told.items() if i is not None}

    @property
    def _shown_places(self) -> list[int]:
        return list(dict.fromkeys(self._places().values()))[:SHOWN]  # predicted and base may be one class

    @property
    def _is_mixed(self) -> bool:
        return any(source != "memory" for source in self.sources)

    def _name(self, id: int) -> str:
        return self.names.get(int(id), str(id))


def _number(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        more = " …" if len(value) > SHOWN else ""
        return "[" + " ".join(f"{item:.4g}" for item in value[:SHOWN].tolist()) + f"{more}]"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths)) for row in rows]


def _in_context(rows: list[list[str]]) -> list[str]:
    """Neighbours of a text as lines: a context may be long, and what follows it is not aligned."""
    lines = [f"  {'distance':>9}  {'weight':>7}  context -> next token"]
    for *source, token, context, distance, weight, document, offset in rows[1:]:
        place = f"({', '.join([*source, document])}, token {offset})"
        lines.append(f"  {distance:>9}  {weight:>7}  {context} -> {token}  {place}")
    return lines
