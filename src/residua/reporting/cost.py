"""What a memory takes: bytes, time, and how many of the true neighbours its index finds."""

from __future__ import annotations

from dataclasses import dataclass

from residua.evaluation import Evaluation
from residua.printable import size
from residua.readers import Reader
from residua.reporting.coordinates import Table


@dataclass(frozen=True)
class Cost:
    """Bytes of RAM by what they hold, and seconds to search and read a row of the test data, beside the model's own.

    Attributes
    ----------
    rows : int
        Rows in the memory, forgotten ones too, which lie there until it is rebuilt.
    bytes_per_row : dict of str to int
    seconds_per_row, base_tokens_per_second, tokens_per_second : float or None
    index, recall : str, str
    exact : bool
    found : float or None
        The share of true neighbours that the index finds; None of an exact one, or where it was not measured.
    """

    rows: int
    bytes_per_row: dict[str, int]
    seconds_per_row: float | None
    base_tokens_per_second: float | None
    tokens_per_second: float | None
    index: str
    exact: bool
    recall: str
    found: float | None

    @property
    def bytes(self) -> int:
        """Of all rows."""
        return self.rows * sum(self.bytes_per_row.values())

    @property
    def table(self) -> Table:
        """Bytes by what they hold."""
        rows = [(name, f"{each:,}", size(each * self.rows)) for name, each in self.bytes_per_row.items() if each]
        total = ("all", f"{sum(self.bytes_per_row.values()):,}", size(self.bytes))
        return [("what", "bytes a row", f"of {self.rows:,} rows"), *rows, total]


def cost_of(reader: Reader, result: Evaluation) -> Cost:
    """What `reader` takes, with the times that `result` measured."""
    memory = reader.memory
    recall = memory.recall
    return Cost(
        rows=memory.n_rows,
        bytes_per_row=reader.bytes_per_row,
        seconds_per_row=result.seconds_per_row,
        base_tokens_per_second=result.base_tokens_per_second,
        tokens_per_second=result.tokens_per_second,
        index=memory.index.name,
        exact=memory.index.exact,
        recall="all true neighbours are found" if memory.index.exact else str(recall) if recall else "not measured",
        found=None if recall is None else recall.value,
    )
