"""Long work in small cells: each is saved when it is done, so that a run stopped at any moment goes on from there."""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from residua.errors import MemoryFileError


class Work:
    """Computes cells, or remembers them from an earlier run that was stopped.

    Parameters
    ----------
    path : Path, optional
        One line of JSON per finished cell is appended here; None keeps nothing.
    about : dict, optional
        What the cells belong to (JSON types). Cells that belong to something else are dropped, with a warning.
    progress : bool, default False
        A progress bar.

    Attributes
    ----------
    seconds : float
        Spent on all cells that were asked for, those of earlier runs included.

    Examples
    --------
    >>> work = Work()
    >>> work.map(lambda name, n: name * n, [("a", 2), ("b", 1)])
    ['aa', 'b']
    """

    def __init__(self, path: Path | None = None, about: dict | None = None, progress: bool = False):
        self.path, self.about, self.progress = path, about or {}, progress
        self.seconds = 0.0
        self._done = {} if path is None else self._read()

    def map(self, compute: Callable, cells: Iterable[tuple], desc: str | None = None) -> list:
        """``compute(*cell)`` of every cell, in order.

        Parameters
        ----------
        compute : callable
            Returns JSON types; the cell is remembered by this function's name and the arguments.
        cells : iterable of tuple
            Arguments, of JSON types.
        desc : str, optional
            The progress bar's words.

        Raises
        ------
        MemoryFileError
            When a finished cell cannot be saved.
        """
        cells = list(cells)
        out = []
        with tqdm(cells, desc=desc, unit="cell", disable=not self.progress, smoothing=0.05) as bar:
            for cell in bar:
                key = json.dumps([compute.__name__, *cell])
                if key not in self._done:
                    start = time.perf_counter()
                    value = compute(*cell)
                    self._save(key, time.perf_counter() - start, value)
                seconds, value = self._done[key]
                self.seconds += seconds
                out.append(value)
        return out

    def finish(self) -> None:
        """Forget the saved cells; what was made of them is kept elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self) -> dict:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise MemoryFileError(f"cannot read {self.path}: {error.strerror or error}") from error
        found = [entry for entry in map(_parsed, lines) if entry is not None]
        if found and found[0] == {"about": self.about}:
            return {entry["cell"]: (entry["seconds"], entry["value"]) for entry in found[1:]}
        if lines:
            warnings.warn(f"{self.path} holds cells of another version or commit; starting over", stacklevel=4)
        self._append({"about": self.about}, mode="w")
        return {}

    def _save(self, key: str, seconds: float, value) -> None:
        self._done[key] = (seconds, value)
        if self.path is not None:
            self._append({"cell": key, "seconds": seconds, "value": value}, mode="a")

    def _append(self, entry: dict, mode: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, mode, encoding="utf-8") as file:
                # A line that an interruption tore ends here, and is not read again.
                file.write(("\n" if mode == "a" else "") + json.dumps(entry))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise MemoryFileError(f"cannot write {self.path}: {error.strerror or error}") from error


def _parsed(line: str) -> dict | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
