"""Is the image itself in the memory? CIFAR-100 holds test images whose near-duplicates are in its training set
(Barz and Denzler 2020, arXiv 1902.00423), and a memory must not be praised for those alone."""

import numpy as np
import torch
from torch import Tensor

BLOCK = 200  # test images at a time


def likeness(images: np.ndarray, remembered: np.ndarray, rows: Tensor) -> np.ndarray:
    """How alike each image is to the most alike of its neighbours, mirrored or not: float32 (n,).

    It is the largest correlation of their grey levels, each 2 × 2 pixels averaged so that small shifts count little.
    Images are uint8 (n, 32, 32, 3) and (m, 32, 32, 3); `rows` (n, k) are rows of `remembered`, -1 is none.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    >>> mirrored = np.ascontiguousarray(images[:, :, ::-1])
    >>> found = likeness(images, mirrored, torch.tensor([[0], [0]]))
    >>> bool(found[0] > 0.999), bool(found[1] < 0.5)
    (True, True)
    """
    grey = _standardised(remembered, flip=False)
    best = []
    for first in range(0, len(images), BLOCK):
        near = rows[first : first + BLOCK]
        found = grey[near.clamp_min(0).numpy()]  # (b, k, 256)
        views = [_standardised(images[first : first + BLOCK], flip) for flip in (False, True)]
        alike = torch.stack([torch.einsum("bkp,bp->bk", found, view) for view in views]).amax(dim=0)
        best.append(alike.masked_fill(near < 0, -1).amax(dim=1))
    return torch.cat(best).numpy()


def _standardised(images: np.ndarray, flip: bool) -> Tensor:
    """Grey levels of mean 0 and length 1, float32 (n, 256)."""
    grey = torch.from_numpy(np.ascontiguousarray(images)).float().mean(dim=3)
    grey = torch.nn.functional.avg_pool2d(grey[:, None], 2)[:, 0]
    grey = (grey.flip(2) if flip else grey).flatten(1)
    grey = grey - grey.mean(dim=1, keepdim=True)
    return grey / grey.norm(dim=1, keepdim=True).clamp_min(1e-6)
