"""CIFAR-100 (Krizhevsky 2009) as arrays, and as the dataset a network reads."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from residua.errors import LabelError, MemoryFileError, MissingDependencyError, ParameterError, ShapeError

MEAN = (0.5071, 0.4865, 0.4409)
STD = (0.2673, 0.2564, 0.2762)
SPLITS = {"train": (20, 25), "test": (10, 10)}  # rows and columns of tiles in a class's mosaic
SIDE = 32

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
    """The images and labels of one split, from either of two layouts.

    Parameters
    ----------
    folder : path
        Either the folder that holds torchvision's ``cifar-100-python``, or one of ``train/<class>.webp`` and
        ``test/<class>.webp``: a lossless mosaic per class, 20 rows of 25 tiles (train) or 10 of 10 (test).
    split : {"train", "test"}
    download : bool
        Let torchvision fetch the data into `folder` when they are not there.

    Returns
    -------
    images : uint8 array of shape (50000, 32, 32, 3), or (10000, 32, 32, 3) for the test split
        RGB. Mosaics are read class by class, torchvision's files in their own shuffled order.
    labels : int64 array of shape (50000,) or (10000,)
        Positions in ``CLASS_NAMES``, which is alphabetical and torchvision's order too.

    Raises
    ------
    ParameterError
        Another split.
    MemoryFileError
        Neither layout is there, or a file is missing, damaged or of another size.
    MissingDependencyError
        Pillow or torchvision is needed and is not installed, or does not load beside this torch.
    """
    if split not in SPLITS:
        raise ParameterError(f"split={split!r}; expected 'train' or 'test'")
    folder = Path(folder)
    if (folder / split).is_dir():
        return _read_mosaics(folder / split, *SPLITS[split])
    if (folder / "cifar-100-python").is_dir() or download:
        return _read_torchvision(folder, split == "train", download)
    raise MemoryFileError(
        f"{folder} holds neither {split}/<class>.webp mosaics nor a cifar-100-python folder; "
        "name the folder above them, or pass download=True to let torchvision fetch the data"
    )


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
            height, width, _ = mosaic.shape
            raise MemoryFileError(
                f"{path} is {width}×{height} pixels; expected {columns * SIDE}×{rows * SIDE}: "
                f"{rows} rows of {columns} tiles of {SIDE}×{SIDE}"
            )
        grid = mosaic.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2)
        images[label] = grid.reshape(tiles, SIDE, SIDE, 3)
    return images.reshape(-1, SIDE, SIDE, 3), np.repeat(np.arange(len(CLASS_NAMES)), tiles)


def _read_torchvision(folder: Path, train: bool, download: bool) -> tuple[np.ndarray, np.ndarray]:
    try:
        from torchvision.datasets import CIFAR100
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision built for another torch
        raise MissingDependencyError(
            f"cifar-100-python is read by torchvision, which does not load here ({error}): "
            'pip install "residua[vision]", in the build (CPU or CUDA) that matches torch'
        ) from error
    try:
        dataset = CIFAR100(str(folder), train=train, download=download)
    except RuntimeError as error:
        raise MemoryFileError(
            f"torchvision cannot read {folder}/cifar-100-python ({error}); remove it and pass download=True"
        ) from error
    return dataset.data, np.asarray(dataset.targets, dtype=np.int64)


def normalise(images, *, flip: bool = False) -> Tensor:
    """What the network is fed: RGB / 255, less the mean and over the standard deviation of each colour.

    Parameters
    ----------
    images : uint8 array or Tensor of shape (..., 32, 32, 3)
        A tensor stays on its device.
    flip : bool
        Mirror left and right.

    Returns
    -------
    float32 Tensor of shape (..., 3, 32, 32)

    Examples
    --------
    >>> import numpy as np
    >>> pixel = np.array([[[0, 128, 255]]], dtype=np.uint8)
    >>> normalise(pixel).flatten().tolist()
    [-1.897..., 0.060..., 2.024...]
    """
    pixels = torch.as_tensor(images)
    mean = torch.tensor(MEAN, device=pixels.device)
    std = torch.tensor(STD, device=pixels.device)
    if flip:
        pixels = pixels.flip(-2)
    return ((pixels.float() / 255 - mean) / std).movedim(-1, -3)


class Cifar100(torch.utils.data.Dataset):
    """Normalised images with their labels, in the order of the arrays.

    Parameters
    ----------
    images : uint8 array of shape (n, 32, 32, 3)
    labels : integer array of shape (n,)
    flip : bool
        Every image mirrored left and right (always, not at random): the second view of the same examples.

    Raises
    ------
    ShapeError, LabelError
        Images of another shape or dtype; labels that are not one class index per image.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    >>> data = Cifar100(images, [3, 5])
    >>> x, y = data[1]
    >>> len(data), tuple(x.shape), y
    (2, (3, 32, 32), 5)

    ``Cifar100(*read(folder, "test"))`` is the test set.
    """

    def __init__(self, images, labels, *, flip: bool = False):
        self.images = np.asarray(images)
        if self.images.dtype != np.uint8 or self.images.shape[1:] != (SIDE, SIDE, 3):
            raise ShapeError(
                f"images have shape {self.images.shape} and dtype {self.images.dtype}; "
                "expected uint8 of shape (n, 32, 32, 3)"
            )
        self.labels = np.asarray(labels)
        if self.labels.shape != (len(self.images),) or self.labels.dtype.kind not in "iu":
            raise LabelError(
                f"labels have shape {self.labels.shape} and dtype {self.labels.dtype}; "
                f"expected one class index per image, ({len(self.images)},)"
            )
        self.flip = flip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return normalise(self.images[i], flip=self.flip), int(self.labels[i])
