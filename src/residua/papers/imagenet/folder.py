"""ImageNet's layout, one folder of images per class, read with Pillow."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from residua.errors import MemoryFileError, MissingDependencyError

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input: its shorter side resized, the middle cropped, colours normalised.

    Attributes
    ----------
    resize, crop : int
        Pixels.
    mean, std : tuple of three floats
        Of RGB in [0, 1].
    interpolation : str
        Pillow's filter, in small letters.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    interpolation: str = "bilinear"

    def __call__(self, picture) -> Tensor:
        """A Pillow image as float32 (3, crop, crop)."""
        from PIL import Image

        picture = picture.convert("RGB")
        width, height = picture.size
        short = min(width, height)
        # The longer side is truncated, as torchvision does.
        size = tuple(self.resize if side == short else int(self.resize * side / short) for side in (width, height))
        picture = picture.resize(size, Image.Resampling[self.interpolation.upper()])
        left, top = (round((side - self.crop) / 2) for side in size)
        picture = picture.crop((left, top, left + self.crop, top + self.crop))  # black where it reaches outside
        pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
        return ((pixels - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class Listing:
    """The images of one split: ``files`` relative to ``folder``, ``labels`` (positions in the sorted ``classes``)."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: np.ndarray

    @property
    def digest(self) -> str:
        """Of the names in their order: the same list of images has the same."""
        return hashlib.sha256("\n".join((*self.classes, "", *self.files)).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.files)


def listing(folder: str | os.PathLike, classes: tuple[str, ...] | None = None) -> Listing:
    """What a folder of class folders holds, sorted by class and name.

    Parameters
    ----------
    folder : path
        Of ``<class>/.../<name>.JPEG`` (or .png, .webp, .bmp).
    classes : tuple of str, optional
        The classes of another split, whose numbering this one shares.

    Raises
    ------
    MemoryFileError
        When the folder is missing, holds no class folders or images, or a class that is not among `classes`.
    """
    folder = Path(folder)
    try:
        own = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    except OSError as error:
        raise MemoryFileError(
            f"cannot list {folder} ({error.strerror or error}); expected folders of classes"
        ) from error
    unknown = sorted(set(own) - set(classes or own))
    if not own or unknown:
        what = f"class {unknown[0]!r}, which is not in the training images" if unknown else "no folder of a class"
        raise MemoryFileError(f"{folder} holds {what}; expected ImageNet's layout, <class>/<image>.JPEG")
    files, labels = [], []
    for name in own:
        found = sorted(
            path.relative_to(folder).as_posix()
            for path in (folder / name).rglob("*")
            if path.suffix.lower() in SUFFIXES
        )
        files += found
        labels += [(classes or own).index(name)] * len(found)
    if not files:
        raise MemoryFileError(f"the class folders of {folder} hold no images; expected files that end in {SUFFIXES}")
    return Listing(folder, classes or own, tuple(files), np.array(labels, dtype=np.int64))


class Images(torch.utils.data.Dataset):
    """The images of a listing, preprocessed, with their labels.

    Raises
    ------
    MissingDependencyError
        Without Pillow.
    """

    def __init__(self, images: Listing, preprocessing: Preprocessing):
        try:
            import PIL.Image  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError('images are read with Pillow: pip install "residua[vision]"') from error
        self.images, self.preprocessing = images, preprocessing

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        path = self.images.folder / self.images.files[i]
        try:
            with Image.open(path) as picture:
                return self.preprocessing(picture), int(self.images.labels[i])
        except OSError as error:
            raise MemoryFileError(
                f"{path} cannot be read as an image ({error}); copy it again, or remove it"
            ) from error
