"""What was found, as a file: the notebook's table, the data frame, or the picture."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residua import html
from residua.errors import ParameterError

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

DPI = 150  # of a picture


class Exported:
    """What a notebook shows, in a file of its own."""

    @abstractmethod
    def _repr_html_(self) -> str: ...

    @abstractmethod
    def to_frame(self, *args: Any, **options: Any) -> pandas.DataFrame: ...

    @abstractmethod
    def plot(self, *args: Any, **options: Any) -> Figure: ...

    def save(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write what this is to a file, by how its name ends.

        Parameters
        ----------
        path : path
            ``.html``: the table that a notebook shows, as a page that needs nothing else; ``.csv``: ``to_frame()``,
            with its index where that is not simply 0, 1, 2, …; ``.png``, ``.svg`` or ``.pdf``: ``plot()``.
        **options
            Of ``to_frame`` or ``plot``, such as ``images=``.

        Raises
        ------
        ParameterError, MissingDependencyError

        Examples
        --------
        >>> import numpy as np, pathlib, residua as rs, tempfile
        >>> memory = rs.Memory(rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), [0, 1]))
        >>> result = rs.evaluate(rs.ResMem(memory, k=1), rs.Encoded([[0.1], [0.8]], np.zeros((2, 2)), [0, 0]))
        >>> file = pathlib.Path(tempfile.mkdtemp(), "result.csv")
        >>> result.save(file)
        >>> file.read_text().splitlines()[0].split(",")[:3]
        ['label', 'base_prediction', 'prediction']
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".html":
            if options:
                raise ParameterError(f"{next(iter(options))}= is not for .html, which is what a notebook shows")
            path.write_text(html.page(type(self).__name__, self._repr_html_()), encoding="utf-8")
        elif suffix == ".csv":
            frame = self.to_frame(**options)
            numbered = type(frame.index).__name__ == "RangeIndex"
            frame.to_csv(path, index=not numbered, index_label="row", errors="backslashreplace")
        elif suffix in (".png", ".svg", ".pdf"):
            self.plot(**options).savefig(path, dpi=DPI)
        else:
            raise ParameterError(
                f"{path.name!r} ends with {path.suffix!r}; expected .html, .csv, .png, .svg or .pdf, which say what is "
                "written"
            )
