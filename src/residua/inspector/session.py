"""What is inspected: a reader and its memory, the data, the model; what one asks of them, and how they are edited."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from residua.caution import warn
from residua.core import Encoded
from residua.drawing.look import Images, facts_of, named, picture_of
from residua.errors import InputError, LabelError, ParameterError, StorageError, TaskError
from residua.explanation import explain
from residua.explanation.explanation import Decoder
from residua.folder import MANIFEST, folder_of
from residua.inspector import shown
from residua.inspector.queries import Queries
from residua.inspector.remembered import class_of, find, numbers_of
from residua.inspector.sliders import moved, sliders_of
from residua.inspector.upload import Uploads
from residua.memory import Memory
from residua.memory.facts import facts
from residua.memory.history import last_to_undo
from residua.memory.lock import locked
from residua.printable import short
from residua.readers import ContinuousCache, Edited, NeighbourReader, Reader

PAGE = 24  # examples at a time
LOGGED = 200  # edits that are listed
# Which examples of the data are listed.
WHICH = ("all", "fixed", "broken", "changed", "wrong")


class Session:
    """One reader under inspection. Every answer is in JSON types; settings are numbers of the reader, by name."""

    reader: NeighbourReader
    memory: Memory
    queries: Queries | None
    uploads: Uploads
    images: dict[str, Images | None]  # of the data's rows, by their numbers, and of the memory's, by id
    path: Path | None
    tokenizer: Decoder | None

    def __init__(
        self,
        reader: Reader,
        test: Encoded | Iterable[Encoded] | None = None,
        *,
        model: Any = None,
        prepare: Any = None,
        images: Images | None = None,
        remembered: Images | None = None,
        tokenizer: Decoder | None = None,
        path: Path | None = None,
        rows: int | None = None,
    ):
        self.reader = self._last = inspectable(reader)
        memory = self.memory = self.reader.memory
        self.queries = None if test is None else Queries(self.reader, test, most=rows)
        self.uploads = Uploads(self.reader, model, prepare)
        self.images, self.path = {"row": images, "memory": remembered}, path
        if tokenizer is None and memory.schema.is_text and isinstance(model, tuple):
            tokenizer = model[1]
        self.tokenizer = tokenizer
        self._pictures = self._has_pictures()
        self._kept()

    @property
    def words(self) -> shown.Words:
        """What labels are called now: others may have added classes."""
        schema = self.memory.schema
        classes = schema.classes or (None if self.queries is None else self.queries.classes)
        return shown.Words(schema.task, classes, schema.is_text, self.tokenizer)

    # What can be asked.

    def about(self) -> dict[str, Any]:
        """What is inspected, as it was opened."""
        memory, queries, words = self.memory, self.queries, self.words
        depth = len(memory) if queries is None else queries.depth
        data = None
        if queries is not None:
            data = {"rows": len(queries), "total": queries.total, "labels": queries.has_labels}
        params = {name: short(value) for name, value in self.reader.params.items() if value is not None}
        return {
            "reader": type(self.reader).__name__,
            "params": params,
            "memory": facts(memory),
            "task": memory.task,
            "text": memory.schema.is_text,
            "tokenizer": self.tokenizer is not None,
            "classes": None if words.classes is None else list(words.classes),
            "outputs": memory.n_outputs,
            "sliders": shown.slid(sliders_of(self.reader, depth)),
            "data": data,
            "uploads": self.uploads.kinds,
            "which": list(WHICH) if data is not None and data["labels"] and memory.task != "regression" else ["all"],
            "folder": None if self.path is None else str(self.path),
        }

    def status(self) -> dict[str, Any]:
        """What changes as the memory is edited."""
        memory, log = self.memory, self.memory.log()
        try:
            undo = str(log[last_to_undo(log)])
        except StorageError:
            undo = None
        return {
            "rows": len(memory),
            "version": memory.version,
            "edits": len(log) - self._log_kept,
            "elsewhere": self._stamp() != self._stamp_kept,
            "undo": undo,
            "log": [str(event) for event in log[-LOGGED:][::-1]],
            "logged": len(log),
        }

    def figures(self, settings: Mapping[str, float]) -> dict[str, Any]:
        """What ``rs.evaluate`` says of the data under these settings."""
        queries, reader = self._data(), self._at(settings)
        return shown.compared(self.memory.task, queries.figures(reader), len(queries))

    def examples(self, settings: Mapping[str, float], which: str = "all", page: int = 0) -> dict[str, Any]:
        """A page of the data's rows, and what is said of each."""
        if which not in WHICH:
            raise ParameterError(f"which={which!r}; expected one of {WHICH}")
        queries, reader = self._data(), self._at(settings)
        rows = queries.measured(reader) if queries.has_labels else queries.answers(reader)
        places = np.flatnonzero(_chosen(rows, which))
        page = max(0, min(page, (len(places) - 1) // PAGE))
        listed = [self._example(place, rows) for place in places[page * PAGE : (page + 1) * PAGE].tolist()]
        return {"examples": listed, "total": len(places), "page": page, "pages": -(-len(places) // PAGE)}

    def explanation(self, settings: Mapping[str, float], example: str) -> dict[str, Any]:
        """One example: ``"row-7"`` of the data (by its place among those held), or ``"upload-0"``."""
        kind, number = _reference(example)
        if kind == "upload":
            brought = self.uploads[number]
            row, picture = brought.row, f"picture/upload/{number}" if brought.picture is not None else None
            about = {"name": brought.name, "picture": picture, "facts": {}}
            about["text"] = None if brought.text is None else [brought.text[-400:], ""]
        else:
            row = self._data()[self._place(number)]
            about = self._look(number)
        why = explain(self._at(settings), row, context=shown.TOKENS, tokenizer=self.tokenizer)
        said = shown.explained(why, self.words, self._pictures["memory"])
        return {"example": example, "query": about, **said}

    def remembered(self, page: int = 0, **asked: str) -> dict[str, Any]:
        """A page of what is remembered, looked through by ``label``, ``name``, ``text`` and ``id``."""
        with self.memory.reading():
            now = self.memory.now
            found = find(now, page=page, tokenizer=self.tokenizer, **asked)
            rows = shown.remembered(now, found.rows, self.words, self._pictures["memory"])
        return {"rows": rows, "total": found.total, "page": found.page, "pages": found.pages}

    def picture(self, kind: str, number: int) -> np.ndarray | None:
        """The picture of a remembered ``memory`` id, of a ``row`` of the data by its place, or of an ``upload``."""
        if kind == "memory":
            return picture_of(self.images["memory"], number, self.memory.names.get(number))
        if kind == "upload":
            return self.uploads[number].picture
        queries, place = self._data(), self._place(number)
        return picture_of(self.images["row"], int(queries.numbers[place]), queries.name_of(queries[place]))

    # What can be done.

    def forget(self, ids: list[int], note: str = "") -> dict[str, Any]:
        """Forget every row that bears one of the ids."""
        return {"forgotten": self.memory.forget(ids, note=note or None), **self.status()}

    def relabel(self, ids: list[int], label: str, note: str = "") -> dict[str, Any]:
        """Give the rows that bear the ids this label: a class by name or number, numbers, or several classes' names."""
        memory, given = self.memory, label.strip()
        if memory.schema.is_text:
            raise TaskError("the tokens of a document cannot all be given one label; forget the document instead")
        if not given:
            raise LabelError("no label is given; expected a class, or a number")
        if memory.task == "classification":
            labels: Any = class_of(memory, given)
        elif memory.task == "regression":
            labels = numbers_of(given)
        else:
            labels = np.zeros(memory.n_outputs, np.int64)
            labels[[class_of(memory, one.strip()) for one in given.split(",") if one.strip() != "none"]] = 1
            labels = np.tile(labels, (len(ids), 1))
        return {"relabelled": memory.relabel(ids, labels, note=note or None), **self.status()}

    def undo(self) -> dict[str, Any]:
        """Take back the last edit."""
        event = self.memory.undo()
        return {"undone": str(self.memory.log()[event.undoes or 0]), **self.status()}

    def keep(self) -> dict[str, Any]:
        """Save the memory into its folder, with what others saved there meanwhile."""
        if self.path is None:
            raise StorageError("no folder was given to save into; save it yourself: memory.save(path)")
        with locked(self.path):
            if (folder_of(self.path) / MANIFEST).exists():
                self.memory.refresh()
            self.memory.save(self.path)
            self._kept()
        return {"kept": str(self.path), **self.status()}

    # How.

    def _at(self, settings: Mapping[str, float]) -> NeighbourReader:
        reader = self._last = moved(self.reader, settings, self._last)
        if self.queries is not None and reader.k > self.queries.depth:
            raise ParameterError(f"k={reader.k}, and {self.queries.depth} neighbours of each example are known")
        return reader

    def _data(self) -> Queries:
        if self.queries is None:
            raise InputError("no data was given: residua inspect MEMORY test.npz, or rs.inspect(reader, test)")
        return self.queries

    def _place(self, number: int) -> int:
        if not 0 <= number < len(self._data()):
            raise InputError(f"row {number}, and {len(self._data())} rows are held")
        return number

    def _example(self, place: int, rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
        gain = rows["gain"][place] if "gain" in rows and self.memory.task != "regression" else 0
        return {
            "example": f"row-{place}",
            **self._look(place),
            "label": self.words(rows["label"][place]) if "label" in rows else None,
            "base": self.words(rows["base_prediction"][place]),
            "prediction": self.words(rows["prediction"][place]),
            "gain": float(gain),
        }

    def _look(self, place: int) -> dict[str, Any]:
        queries = self._data()
        row = queries[place]
        text = None
        if self.memory.schema.is_text:
            own = "" if row.labels is None else self.words(row.labels[0])
            text = [self.words.tokens(queries.before(place, shown.TOKENS)), own]
        called = shown.clipped(named(queries.name_of(row), f"row {queries.numbers[place]}"))
        picture = f"picture/row/{place}" if self._pictures["row"] else None
        return {"name": called, "picture": picture, "text": text, "facts": facts_of(row.columns, 0)}

    def _has_pictures(self) -> dict[str, bool]:
        """Whether the first remembered row, and the first of the data, have a picture."""
        memory, found = self.memory, {"memory": False, "row": False}
        if memory.schema.is_text:
            return found
        ids = memory.ids[:1].tolist()
        found["memory"] = bool(ids) and self.picture("memory", ids[0]) is not None
        found["row"] = self.queries is not None and self.picture("row", 0) is not None
        return found

    def _kept(self) -> None:
        self._log_kept, self._stamp_kept = len(self.memory.log()), self._stamp()

    def _stamp(self) -> int:
        """When the folder was saved last."""
        if self.path is None:
            return 0
        try:
            return (folder_of(self.path) / MANIFEST).stat().st_mtime_ns
        except OSError:
            return 0


def inspectable(reader: Reader) -> NeighbourReader:
    """`reader`, or the one under it, if one search serves all of its settings; else ``ParameterError``."""
    if isinstance(reader, Edited):
        warn("the edits are left out: what they say is no question of settings")
        reader = reader.over
    if isinstance(reader, ContinuousCache):
        warn("the continuous cache is left out: an example is looked at without the text before it")
        reader = reader.over
    if not isinstance(reader, NeighbourReader):
        raise ParameterError(
            f"got a {type(reader).__name__}; expected a reader of a memory's neighbours, such as rs.ResMem(memory)"
        )
    if reader.start() is not None:
        raise ParameterError(
            f"a {type(reader).__name__} with a cache looks back over a whole text; inspect one without cache="
        )
    return reader


def settings_of(given: Mapping[str, str]) -> dict[str, float]:
    """Settings out of an address's query; ``ParameterError`` for what is no number."""
    found = dict[str, float]()
    for name, text in given.items():
        try:
            found[name] = float(text)
        except ValueError as error:
            raise ParameterError(f"{name}={text!r}; expected a number") from error
        if not math.isfinite(found[name]):
            raise ParameterError(f"{name}={text!r}; expected a finite number")
    return found


def _chosen(rows: Mapping[str, np.ndarray], which: str) -> np.ndarray:
    """Bool (n,): which rows are listed."""
    n = len(rows["prediction"])
    if which == "all":
        return np.ones(n, bool)
    if which == "changed":
        return (rows["prediction"] != rows["base_prediction"]).reshape(n, -1).any(axis=1)
    if "gain" not in rows:
        raise LabelError("the data hold no labels, and nothing is right or wrong of them")
    if which == "wrong":
        return (rows["prediction"] != rows["label"]).reshape(n, -1).any(axis=1)
    return rows["gain"] > 0 if which == "fixed" else rows["gain"] < 0


def _reference(example: str) -> tuple[str, int]:
    kind, _, number = example.partition("-")
    if kind not in ("row", "upload") or not number.isdecimal() or len(number) > 18:
        raise InputError(f"example={example!r}; expected such as row-7")
    return kind, int(number)
