"""CIFAR-100 (Krizhevsky 2009) as arrays, and as the dataset a network reads."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from residua.errors import MemoryFileError, MissingDependencyError, ParameterError, ShapeError

MEAN = (0.5071, 0.4865, 0.4409)
STD = (0.2673, 0.2564, 0.2762)
SIDE = 32
MOSAIC = {"train": (20, 25), "test": (10, 10)}  # rows and columns of tiles in a class's picture

_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal
shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CLASS_NAMES = tuple(_NAMES.split())


def read(folder, split: str = "train", *, download: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The images, uint8 (n, 32, 32, 3) in RGB, and the labels, int64 (n,): positions in ``CLASS_NAMES``.

    `folder` is above torchvision's ``cifar-100-python``, which torchvision reads (and fetches, with `download`), or
    holds ``train/<class>.webp`` and ``test/<class>.webp``: a lossless mosaic per class, of 20 rows of 25 tiles or 10 of
    10.

    Raises
    ------
    ParameterError
        Another split.
    MemoryFileError
        Neither layout is there, or a file is missing, damaged or of another size.
    MissingDependencyError
        Pillow or torchvision is needed and is not installed, or does not load beside this torch.
    """
    if split not in MOSAIC:
        raise ParameterError(f"split={split!r}; expected 'train' or 'test'")
    folder = Path(folder)
    if (folder / split).is_dir():
        return _read_mosaics(folder / split, *MOSAIC[split])
    if (folder / "cifar-100-python").is_dir() or download:
        return _read_torchvision(folder, split == "train", download)
    raise MemoryFileError(
        f"{folder} holds neither {split}/<class>.webp mosaics nor a cifar-100-python folder; "
        "name the folder above them, or let torchvision fetch the data: --download"
    )


def _read_torchvision(folder: Path, train: bool, download: bool) -> tuple[np.ndarray, np.ndarray]:
    try:
        from torchvision.datasets import CIFAR100
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision built for another torch
        raise MissingDependencyError(
            f"cifar-100-python is read by torchvision, which does not load here ({error}): "
            'pip install "residua[vision]", in the build (CPU or CUDA) that matches torch'
        ) from error
    try:
        dataset = CIFAR100(folder, train=train, download=download)
    except RuntimeError as error:
        raise MemoryFileError(
            f"torchvision cannot read {folder}/cifar-100-python ({error}); remove it and pass --download"
        ) from error
    return dataset.data, np.asarray(dataset.targets, dtype=np.int64)


def _read_mosaics(folder: Path, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError('mosaics are read with Pillow: pip install "residua[vision]"') from error
    tiles = rows * columns
    images = np.empty((len(CLASS_NAMES), tiles, SIDE, SIDE, 3), dtype=np.uint8)
    for label, name in enumerate(CLASS_NAMES):
        path = folder / f"{name}.webp"
        try:
            with Image.open(path) as picture:
                mosaic = np.asarray(picture.convert("RGB"))
        except OSError as error:
            raise MemoryFileError(f"{path} cannot be read as an image ({error}); copy the data again") from error
        if mosaic.shape != (rows * SIDE, columns * SIDE, 3):
            raise MemoryFileError(f"{path} has shape {mosaic.shape}; expected {rows} rows of {columns} tiles of 32×32")
        images[label] = mosaic.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(tiles, SIDE, SIDE, 3)
    return images.reshape(-1, SIDE, SIDE, 3), np.repeat(np.arange(len(CLASS_NAMES)), tiles)


def normalise(images, *, flip: bool = False) -> Tensor:
    """What the network is fed, float32 (..., 3, 32, 32): RGB / 255, less the mean, over the standard deviation of each
    colour; mirrored left and right with `flip`. Images are uint8 (..., 32, 32, 3); a tensor stays on its device.
    """
    pixels = torch.as_tensor(images)
    mean, std = _colours(pixels.device)
    if flip:
        pixels = pixels.flip(-2)
    return ((pixels.float() / 255 - mean) / std).movedim(-1, -3)


@lru_cache
def _colours(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, copied to a device once: a CUDA graph cannot."""
    return torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)


class Cifar100(torch.utils.data.Dataset):
    """Normalised images with their labels, in the order of the arrays; all of them mirrored with `flip`.

    ``Cifar100(*read(folder, "test"))`` is the test set.
    """

    def __init__(self, images, labels, *, flip: bool = False):
        self.images, self.labels, self.flip = np.asarray(images), np.asarray(labels), flip
        if self.images.shape[1:] != (SIDE, SIDE, 3) or self.labels.shape != self.images.shape[:1]:
            raise ShapeError(
                f"images and labels have shapes {self.images.shape} and {self.labels.shape}; "
                "expected (n, 32, 32, 3) and (n,)"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return normalise(self.images[i], flip=self.flip), int(self.labels[i])
