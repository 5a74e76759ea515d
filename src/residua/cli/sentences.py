"""Rows of a table of text, as a classifier of text was trained to read them."""

import csv
import os
from pathlib import Path
from typing import Any

from residua.caution import warn
from residua.errors import InputError

TABLES: dict[str, str] = {".csv": ",", ".tsv": "\t"}
_LABELS = ("label", "labels")
_LONGEST = 1 << 20  # a tokenizer without a limit says 1e30


class Sentences:
    """The rows of a ``.csv`` or ``.tsv`` file with a header: a text, or a pair of texts, and a ``label`` or none.

    The text is the column ``text``, else the one column beside the label, or the two. Labels are names out of
    `classes` or their numbers, and of a model with one output, a regressor's (`outputs` = 1), numbers.
    """

    classes: list[str] | None
    samples: list[tuple[str, int]]
    texts: list[list[str]]
    labels: list[Any] | None

    def __init__(self, file: Path, classes: list[str] | None, outputs: int | None):
        header, rows = _rows(file)
        label = next((name for name in _LABELS if name in header), None)
        text = ["text"] if "text" in header else [name for name in header if name != label]
        if not 1 <= len(text) <= 2:
            what = f"{file} has the columns {', '.join(map(repr, header))}"
            raise InputError(f"{what}; expected a column 'text', and 'label' where the labels are known")
        self.texts = [[row[header.index(name)] for row in rows] for name in text]
        said = None if label is None else [row[header.index(label)] for row in rows]
        self.labels = None if said is None else _numbered(said, file, classes, outputs)
        self.classes = classes
        self.samples = [(f"{os.fspath(file)}:{number}", -1) for number in range(1, len(rows) + 1)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> tuple[list[str], int | float | None]:
        return [column[number] for column in self.texts], None if self.labels is None else self.labels[number]


class Tokenized:
    """A collate function: texts become the tokens that a model reads, cut where it reads no more (said once)."""

    tokenizer: Any
    most: int
    said: bool

    def __init__(self, tokenizer: Any, config: Any):
        most = getattr(config, "max_position_embeddings", None) or _LONGEST
        self.tokenizer, self.most = tokenizer, min(tokenizer.model_max_length, most, _LONGEST)
        self.said = False

    def __call__(self, items: list[tuple[list[str], int | float | None]]) -> dict[str, Any]:
        import torch

        columns = [list(column) for column in zip(*(texts for texts, _ in items))]
        rows = self.tokenizer(*columns, padding=True, truncation=True, max_length=self.most, return_tensors="pt")
        if not self.said and rows["input_ids"].shape[1] == self.most:
            whole = self.tokenizer(*columns, verbose=False)["input_ids"]
            if (longest := max(map(len, whole))) > self.most:
                self.said = True
                what = f"a row has {longest} tokens, and the model reads {self.most}: longer ones are cut"
                warn(f"{what}; split them into rows of their own to keep all")
        labels = [label for _, label in items]
        return dict(rows) if labels[0] is None else dict(rows) | {"labels": torch.tensor(labels)}


def _rows(file: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the rows."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            table = csv.reader(lines, delimiter=TABLES[file.suffix.lower()], strict=True)
            header, *rows = [row for row in table if row]
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8: {error.reason}; save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{file} cannot be read as a table: {error}") from error
    except ValueError as error:
        raise InputError(f"{file} is empty; expected a header with a column 'text', and rows") from error
    if not rows:
        raise InputError(f"{file} has the header {', '.join(header)} alone; expected rows below it")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            how = "a text that holds the separator must stand in double quotes"
            raise InputError(f"{file}, row {number}: {len(row)} values under {len(header)} names of columns; {how}")
    return header, rows


def _numbered(said: list[str], file: Path, classes: list[str] | None, outputs: int | None) -> list[Any]:
    """Labels as a model of `outputs` outputs numbers them."""
    names = {} if classes is None else {name: number for number, name in enumerate(classes)}
    if outputs != 1 and set(said) <= set(names):
        return [names[one] for one in said]
    try:
        numbers = [float(one) for one in said] if outputs == 1 else [int(one) for one in said]
    except ValueError as error:
        known = f"one of {', '.join(map(repr, names))}" if names else "numbers of the model's outputs"
        what = next(one for one in said if one not in names)
        raise InputError(f"{file} has the label {what!r}; expected {'numbers' if outputs == 1 else known}") from error
    if outputs is not None and outputs > 1 and not 0 <= min(numbers) <= max(numbers) < outputs:
        raise InputError(f"{file} has labels {min(numbers)} to {max(numbers)}; expected 0 to {outputs - 1}")
    return numbers
