"""Calibration holds for rows like the calibrating ones, so these must be new to the memory and to its settings."""

from __future__ import annotations

import math

import numpy as np

from residua.caution import warn
from residua.core import Encoded, Neighbours
from residua.errors import IdError, InputError
from residua.memory import Memory
from residua.memory.queries import sampled_rows
from residua.readers import Reader
from residua.readers.seen import Seen

CURE = "calibrate on rows that were neither remembered nor tuned on"
ERRORS = 3.0  # standard errors: what duplicates in honest data do not reach by chance


class Fresh:
    """Counts rows that are not new: `matches`, those whose very key is remembered or was tuned on."""

    def __init__(self, reader: Reader):
        self.memory: Memory = reader.memory
        self.tuned: Seen = getattr(reader, "tuned_on_", None) or Seen.none()
        self.rows = self.matches = 0
        self._ids: np.ndarray | None = None

    def count(self, part: Encoded, near: Neighbours) -> None:
        """Look at some rows; an ``IdError`` where one bears an id that is remembered or was tuned on."""
        if part.ids is not None:
            self._ids = np.unique(self.memory.ids) if self._ids is None else self._ids
            for known, what in ((self._ids, "are remembered"), (self.tuned.ids, "were tuned on")):
                if len(found := np.intersect1d(part.ids, known)):
                    raise IdError(
                        f"{len(found)} ids of the calibration data {what}, such as {found[:5].tolist()}; {CURE}. If "
                        "the same number names another example there, give other ids, or none"
                    )
        same = self.tuned.with_key_of(part)
        if near.k and len(near) == len(part):  # all were searched
            same |= (near.distances[:, 0] == 0).cpu().numpy()
        self.rows, self.matches = self.rows + len(part), self.matches + int(same.sum())

    def verdict(self) -> None:
        """``InputError`` where most rows are not new, a ``UserWarning`` where more are than the memory's own rows have
        twins among each other: duplicates in the data are no fault."""
        if not self.matches:
            return
        share, twins, own = self.matches / self.rows, 0.0, 0
        if self.memory.keys_kept and len(self.memory):
            rows = sampled_rows(self.memory)
            nearest, own = self.memory.search(rows.keys, 1, rows.ids).distances[:, 0], len(rows)
            more = 1 + len(self.tuned.prints) / len(self.memory)  # the more rows are known, the more have a twin
            twins = min(1.0, more * (int((nearest == 0).sum()) + 1) / (own + 2))
        if share <= twins + ERRORS * math.sqrt(twins * (1 - twins) * (1 / self.rows + 1 / max(own, 1))):
            return
        what = f"{self.matches:,} of {self.rows:,} calibration rows have a key that is remembered or was tuned on"
        if share > 0.5:
            raise InputError(f"{what}: sets and intervals would be too small for new rows; {CURE}")
        warn(f"{what}, more than duplicates explain; {CURE}")
