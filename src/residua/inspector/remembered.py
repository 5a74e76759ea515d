"""What is remembered, looked through by label, name, text and id, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from residua.core.naming import named_classes
from residua.errors import LabelError, ParameterError
from residua.explanation.explanation import Decoder
from residua.memory import Memory

PAGE = 50  # rows at a time


@dataclass(frozen=True)
class Found:
    """A page of the rows that were looked for, ascending row numbers int64 (m,), and how many there are in all."""

    rows: np.ndarray
    total: int
    page: int

    @property
    def pages(self) -> int:
        """How many pages all of them are."""
        return -(-self.total // PAGE)


def find(
    memory: Memory,
    *,
    label: str = "",
    name: str = "",
    text: str = "",
    id: str = "",
    page: int = 0,
    tokenizer: Decoder | None = None,
) -> Found:
    """The remembered rows of which all that is asked is true; what is empty is not asked.

    Parameters
    ----------
    memory : Memory
        As it is now: ``memory.now``.
    label : str
        A class, by name or number; of several labels one that a row has; a number, or ``low..high``, of a regression.
    name : str
        Part of what an id is called, in any letters.
    text : str
        Of a memory of text, what its tokens say: needs the `tokenizer`. The rows are those of the last token.
    id : str
        In digits.
    page : int
        Counted from 0.

    Raises
    ------
    LabelError, ParameterError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1], names=["a.png", "b.png", "ab.png"]))
    >>> find(memory, label="1").rows.tolist(), find(memory, name="A", label="1").rows.tolist()
    ([1, 2], [2])
    """
    here = torch.zeros(memory.n_rows, dtype=torch.bool)
    here[memory.active_rows.cpu()] = True
    if label.strip():
        here &= _labelled(memory, label.strip())
    if id.strip():
        here &= _bearing(memory, _whole(id.strip()))
    if name:
        wanted = name.lower()
        ids = [one for one, called in memory.names.items() if wanted in called.lower()]
        ids += [one for one, more in memory.names.also.items() if any(wanted in called.lower() for called in more)]
        here &= _bearing(memory, np.array(ids, np.int64))
    if text:
        here &= _saying(memory, text, tokenizer)
    rows = here.nonzero()[:, 0].numpy()
    page = max(0, min(page, (len(rows) - 1) // PAGE))
    return Found(rows[page * PAGE : (page + 1) * PAGE], len(rows), page)


def bearers(memory: Memory, ids: Sequence[int]) -> dict[int, int]:
    """How many remembered rows bear each of some ids, all of which are remembered."""
    found = memory.column("id")[memory.rows_with_ids(np.array(ids, np.int64))] if len(ids) else torch.empty(0)
    once, counts = np.unique(found.cpu().numpy(), return_counts=True)
    return dict(zip(once.tolist(), counts.tolist()))


def class_of(memory: Memory, label: str) -> int:
    """The class of that name or number; ``LabelError`` for none."""
    classes = memory.schema.classes
    if classes is not None and label in classes:
        return int(named_classes(np.array([label]), classes)[0])
    if label.isdecimal() and int(label) < memory.n_outputs:
        return int(label)
    names = "" if classes is None else ", or one of their names"
    raise LabelError(f"there is no class {label!r}; expected a number from 0 to {memory.n_outputs - 1}{names}")


def numbers_of(label: str) -> list[float]:
    """The numbers in a text, with commas between them; ``LabelError`` where it holds anything else."""
    try:
        return [float(part) for part in label.split(",")]
    except ValueError as error:
        raise LabelError(f"{label!r} is no number; expected one for each output, such as 2.5") from error


def _labelled(memory: Memory, label: str) -> Tensor:
    column = memory.column("label")
    if memory.task == "regression":
        low, between, high = label.partition("..")
        least, most = (*numbers_of(low), *numbers_of(high)) if between else numbers_of(low) * 2
        values = memory.schema.targets(column)[:, 0]
        room = 1e-6 * max(abs(least), abs(most))  # a target is kept in float32
        return (values >= least - room) & (values <= most + room)
    wanted = class_of(memory, label)
    return (column[:, wanted] > 0 if memory.task == "multi-label" else column == wanted).cpu()


def _bearing(memory: Memory, ids: np.ndarray) -> Tensor:
    here = torch.zeros(memory.n_rows, dtype=torch.bool)
    if len(ids):
        column = memory.column("id")
        rows = torch.from_numpy(np.flatnonzero(np.isin(column[:].cpu().numpy(), ids)))
        here[rows] = True
    return here


def _whole(id: str) -> np.ndarray:
    try:
        number = int(id)
    except ValueError as error:
        raise ParameterError(f"id={id!r}; expected a whole number") from error
    return np.array([number] if -(2**63) <= number < 2**63 else [], np.int64)


def _saying(memory: Memory, text: str, tokenizer: Decoder | None) -> Tensor:
    """The last tokens of where a text is said, also after a space."""
    encode = getattr(tokenizer, "encode", None)
    if not memory.schema.is_text or encode is None:
        raise ParameterError("a text can be looked for in a memory of text, with its tokenizer")
    labels, ids = memory.column("label")[:].cpu(), memory.column("id")[:].cpu()
    here = torch.zeros(len(labels), dtype=torch.bool)
    for said in {text, f" {text.lstrip()}"}:
        tokens = list(encode(said, add_special_tokens=False))
        last = len(labels) - len(tokens) + 1
        if not tokens or last <= 0:
            continue
        same = torch.ones(last, dtype=torch.bool)
        for place, token in enumerate(tokens):
            same &= labels[place : place + last] == token
        same &= ids[:last] == ids[len(tokens) - 1 :]
        here[len(tokens) - 1 :] |= same
    return here
