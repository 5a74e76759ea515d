"""Small images inside a JSON record: a strip of tiles as base64 of a PNG."""

import base64
import io

import numpy as np

from residua.errors import MissingDependencyError


def pack(tiles: np.ndarray) -> str:
    """Tiles uint8 (n, side, side, 3) as one line of text, losslessly.

    Examples
    --------
    >>> tiles = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    >>> bool((unpack(pack(tiles)) == tiles).all())
    True
    """
    strip = np.ascontiguousarray(tiles.swapaxes(0, 1).reshape(tiles.shape[1], -1, 3))
    file = io.BytesIO()
    _pillow().fromarray(strip).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def unpack(text: str) -> np.ndarray:
    """What ``pack`` packed, uint8 (n, side, side, 3)."""
    with _pillow().open(io.BytesIO(base64.b64decode(text))) as picture:
        strip = np.asarray(picture.convert("RGB"))
    side = strip.shape[0]
    return strip.reshape(side, -1, side, 3).swapaxes(0, 1)


def _pillow():
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError('images are packed with Pillow: pip install "residua[vision]"') from error
    return Image
