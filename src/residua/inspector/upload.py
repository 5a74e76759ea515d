"""What somebody brings to the page, read by the model: a vector, a picture or a text becomes one row."""

from __future__ import annotations

import io
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from residua.core import Encoded
from residua.drawing.look import picture_of
from residua.errors import InputError, MissingDependencyError
from residua.readers import Reader

MOST = 32  # brought ones that are kept
PIXELS = 2**25  # of a picture, before it is unpacked
NUMBERS = 2**22  # of a vector
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")


@dataclass(frozen=True)
class Brought:
    """One example that somebody brought."""

    row: Encoded
    name: str
    picture: np.ndarray | None = None
    text: str | None = None


class Uploads:
    """The last examples that were brought, by number.

    Parameters
    ----------
    reader : Reader
        Whose memory is asked.
    model : torch module, fitted estimator, pair (language model, tokenizer), or None
        What reads them; None: nothing can be brought.
    prepare : callable, optional
        From a picture (PIL's, RGB) to what the model takes of one example.
    """

    reader: Reader
    model: Any
    prepare: Callable[[Any], Any] | None

    def __init__(self, reader: Reader, model: Any = None, prepare: Callable[[Any], Any] | None = None):
        self.reader, self.model, self.prepare = reader, model, prepare
        self._kept: OrderedDict[int, Brought] = OrderedDict()
        self._numbers, self._lock = itertools.count(), threading.Lock()

    @property
    def kinds(self) -> list[str]:
        """What can be brought: ``"text"``, or ``"vector"`` and ``"picture"``."""
        if self.model is None:
            return []
        if self.reader.memory.schema.is_text:
            return ["text"]
        return ["vector"] if self.prepare is None else ["picture", "vector"]

    def __getitem__(self, number: int) -> Brought:
        if number not in self._kept:
            raise InputError("this example is no longer kept; bring it again")
        return self._kept[number]

    def bring(self, kind: str, body: bytes) -> int:
        """The number of an example that `body` holds: UTF-8 text; numbers with commas or spaces between them, or an
        ``.npy`` file; a picture file. ``InputError`` for what cannot be read."""
        if kind not in self.kinds:
            able = ", ".join(self.kinds) or "nothing: no model is given"
            raise InputError(f"a {kind} cannot be brought here; what can is {able}")
        made = {"text": self._text, "vector": self._vector, "picture": self._picture}[kind](body)
        with self._lock:
            number = next(self._numbers)
            self._kept[number] = made
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)
        return number

    def _text(self, body: bytes) -> Brought:
        from residua.encoding import last_row

        text = _words(body)
        with self._lock:
            return Brought(last_row(self.model, text, like=self.reader), "your text", text=text)

    def _vector(self, body: bytes) -> Brought:
        return Brought(self._encoded(_vector(body)), "your vector")

    def _picture(self, body: bytes) -> Brought:
        assert self.prepare is not None  # or it is none of the kinds
        picture = _opened(body)
        try:
            prepared = self.prepare(picture)
        except Exception as error:
            raise InputError(f"prepare= could not read this picture: {type(error).__name__}: {error}") from error
        return Brought(self._encoded(prepared), "your picture", picture_of([picture], 0))

    def _encoded(self, example: Any) -> Encoded:
        from residua.encoding import encode

        one = example[None] if hasattr(example, "shape") else np.asarray(example)[None]
        try:
            with self._lock:
                row = encode(self.model, one, like=self.reader, progress=False)
        except Exception as error:
            raise InputError(f"the model could not read it: {error}") from error
        row.ids = None
        return row


def _words(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"this is no UTF-8 text: {error}") from error


def _vector(body: bytes) -> np.ndarray:
    """The numbers of an ``.npy`` file, of which nothing is run, or of a text."""
    try:
        if body.startswith(b"\x93NUMPY"):
            values = np.load(io.BytesIO(body), allow_pickle=False)
        else:
            values = np.array([float(part) for part in _words(body).replace(",", " ").strip("[] \n").split()])
    except (ValueError, OSError) as error:
        raise InputError(f"these are no numbers: {error}; expected such as 0.5, 1, 2, or an .npy file") from error
    if values.dtype.kind not in "fiub" or not 0 < values.size <= NUMBERS:
        raise InputError(f"an array of {values.size:,} {values.dtype}; expected numbers of one example")
    return values.astype(np.float32)


def _opened(body: bytes) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError('pictures need Pillow: pip install "residua[inspect]"') from error
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > PIXELS:
                raise InputError(f"a picture of {width} x {height}; expected at most {PIXELS:,} pixels")
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"this cannot be read as a picture ({', '.join(FORMATS)}): {error}") from error
