"""Small images inside a JSON record: a strip of tiles as base64 of a PNG."""

import base64
import io

import numpy as np
from PIL import Image


def pack(tiles: np.ndarray) -> str:
    """Tiles uint8 (n, side, side, 3) as one line of text, losslessly.

    Examples
    --------
    >>> tiles = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    >>> bool((unpack(pack(tiles)) == tiles).all())
    True
    """
    file = io.BytesIO()
    Image.fromarray(np.hstack(tiles)).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def unpack(text: str) -> np.ndarray:
    """What ``pack`` packed, uint8 (n, side, side, 3)."""
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        strip = np.asarray(picture.convert("RGB"))
    return np.stack(np.hsplit(strip, strip.shape[1] // strip.shape[0]))
