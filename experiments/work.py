"""Long work in small cells: each is kept when it is done, so that a run stopped at any moment goes on from there."""

import contextlib
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

    One line of JSON per finished cell is appended to the file `path` (None keeps nothing), which is not made before the
    first: a run whose arguments are wrong leaves nothing. `about` is what the cells belong to; those of something else
    are dropped, with a warning. ``seconds`` were spent on all cells asked for, in earlier runs too.

    Examples
    --------
    >>> work = Work()
    >>> work.map(lambda name, n: name * n, [("a", 2), ("b", 1)])
    ['aa', 'b']
    """

    def __init__(self, path: Path | None = None, about: dict | None = None, progress: bool = False):
        self.path, self.about, self.progress = path, about or {}, progress
        self.seconds = 0.0
        self._done = {} if path is None else self._read(path)

    @property
    def kept(self) -> int:
        """How many finished cells are in the file."""
        return 0 if self.path is None else len(self._done)

    def map(self, compute: Callable, cells: Iterable[tuple], desc: str | None = None) -> list:
        """``compute(*cell)`` of every cell, in order: JSON types, remembered by the function's name and the arguments.

        `desc` is the progress bar's words.
        """
        out = []
        for cell in tqdm(list(cells), desc=desc, unit="cell", disable=not self.progress, smoothing=0.05):
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
        """Forget the kept cells, and their folder when it is empty; what was made of them is written elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another run's cells are there
                self.path.parent.rmdir()

    def _read(self, path: Path) -> dict:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise MemoryFileError(f"cannot read {path}: {error.strerror or error}") from error
        found = []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):  # an interruption tore it
                found.append(json.loads(line))
        if found and found[0] == {"about": self.about}:
            return {entry["cell"]: (entry["seconds"], entry["value"]) for entry in found[1:]}
        warnings.warn(f"{path} holds cells of another version or commit; starting over", stacklevel=4)
        return {}

    def _save(self, key: str, seconds: float, value) -> None:
        # With cells above it a line starts with a line end: an interruption may have torn the last one.
        before = "" if self._done else json.dumps({"about": self.about})
        entry = json.dumps({"cell": key, "seconds": seconds, "value": value})
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with open(self.path, "a" if self._done else "w", encoding="utf-8") as file:
                    file.write(f"{before}\n{entry}")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise MemoryFileError(f"cannot write {self.path}: {error.strerror or error}") from error
        self._done[key] = (seconds, value)
