"""How an example looks to a person: a picture, a text with its token marked, or a row of a table."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from residua.errors import InputError, MissingDependencyError, ShapeError
from residua.printable import one_line

# By id (or row): an array, a tensor or a sequence of pictures, a mapping, a function, or the folder that names are in.
Images: TypeAlias = np.ndarray | Sequence[Any] | Mapping[int, Any] | Callable[[int], Any] | str | os.PathLike[str] | Any
LARGEST = 4096  # pixels a side, of a file that is opened: larger ones are halved until they fit


@dataclass(frozen=True)
class Look:
    """What is shown of one example; what it lacks is None or empty.

    Attributes
    ----------
    name : str
        What it is called, on one line: its name, else such as "id 7".
    picture : uint8 array of shape (h, w) or (h, w, 3), or None
    text : (str, str) or None
        What stands before a token, and the token.
    facts : dict
        What else is known of it, such as a memory's columns of one value, as text.
    """

    name: str
    picture: np.ndarray | None = None
    text: tuple[str, str] | None = None
    facts: dict[str, str] = field(default_factory=dict)


def picture_of(images: Images | None, id: int, name: str | None = None) -> np.ndarray | None:
    """The picture of an example, uint8 (h, w) or (h, w, 3); None where there is none.

    Parameters
    ----------
    images : array or tensor (n, h, w[, c]) or (n, c, h, w), sequence, mapping, callable, path, or None
        Where the picture of `id` is: ``images[id]``, ``images(id)``; in a folder, the file `name`. With None `name` is
        opened if it is the path of a picture. A picture is an array or tensor, PIL's, or a path of one. Numbers that
        are not whole are in [0, 1], or scaled to it where they are not.
    id : int
        A remembered row's id; of other data the row's number.
    name : str, optional
        What the example is called.

    Raises
    ------
    InputError, ShapeError, MissingDependencyError

    Examples
    --------
    >>> picture_of([[[0.0, 0.5], [1.0, 1.0]]], 0).tolist()
    [[0, 128], [255, 255]]
    >>> picture_of(None, 7, "a row of a table") is None
    True
    """
    if images is None:
        return _opened(Path(name)) if name is not None and _is_picture(name) else None
    if isinstance(images, (str, os.PathLike)):
        return None if name is None or not _is_picture(name) else _opened(_inside(Path(images), name))
    try:
        found = images(id) if callable(images) else images[id]
    except (KeyError, IndexError):
        return None
    return None if found is None else _pixels(found)


def png(picture: np.ndarray) -> bytes:
    """A picture, uint8 (h, w) or (h, w, 3), as a PNG file."""
    file = io.BytesIO()
    _pil("pictures").fromarray(picture).save(file, format="PNG", optimize=True)
    return file.getvalue()


def data_uri(picture: np.ndarray) -> str:
    """A picture, uint8 (h, w) or (h, w, 3), as the address of an image in a page that has everything within it."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


def named(name: str | None, otherwise: str) -> str:
    """What an example is called, on one line: of a path, its last part and the folder that this is in."""
    return otherwise if name is None else one_line("/".join(name.replace("\\", "/").rsplit("/", 2)[-2:]))


def facts_of(columns: Mapping[str, np.ndarray], row: int) -> dict[str, str]:
    """What columns of one value say of a row, as text."""
    values = {name: column[row] for name, column in columns.items() if column.ndim == 1}
    return {name: f"{v:.4g}" if isinstance(v, np.floating) else one_line(str(v)) for name, v in values.items()}


def _pixels(given: Any) -> np.ndarray | None:
    if isinstance(given, (str, os.PathLike)):
        return _opened(Path(given))
    pair = isinstance(given, (tuple, list)) and len(given) == 2 and np.ndim(given[1]) == 0
    found: Any = given[0] if pair else given  # a dataset's picture and label
    if hasattr(found, "convert"):  # PIL's
        return np.asarray(found.convert("RGB"))
    values = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found)
    if values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[2] not in (1, 3):
        values = values.transpose(1, 2, 0)
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values[..., :3]
    if values.ndim not in (2, 3) or not values.size or (values.ndim == 3 and values.shape[2] != 3):
        raise ShapeError(f"a picture of shape {np.shape(found)}; expected (h, w), (h, w, 1 or 3) or (1 or 3, h, w)")
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    values = np.nan_to_num(values.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:  # standardised, or of another range: what is darkest becomes black
        values = (values - low) / ((high - low) or 1)
    return np.round(values * 255).astype(np.uint8)


def _is_picture(name: str) -> bool:
    return name.lower().endswith((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))


def _inside(folder: Path, name: str) -> Path:
    """`name` in `folder`; names come from data, and none leads out of the folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"the example {one_line(name)!r} is not within the folder of images {folder}")
    return path


def _opened(path: Path) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        with _pil("pictures in files").open(path) as picture:
            while max(picture.size) > LARGEST:
                picture = picture.reduce(2)
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a picture: {error}") from error


def _pil(what: str) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(f'{what} need Pillow: pip install "residua[plot]"') from error
    return Image
