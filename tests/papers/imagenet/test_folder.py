"""Images come in the layout's order, prepared as they should be."""

import numpy as np
import pytest
import torch
from PIL import Image

from residua.errors import MemoryFileError
from residua.papers.imagenet.folder import Images, Preprocessing, listing


def test_listing_is_sorted_and_numbers_classes(small_imagenet):
    train = listing(small_imagenet / "train")
    assert train.classes == ("n01440764", "n01443537", "n02102040")
    assert len(train) == 36
    assert train.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert list(train.files[:12]) == sorted(train.files[:12])
    assert {name.rsplit(".")[-1] for name in train.files} == {"JPEG", "png"}
    val = listing(small_imagenet / "val", train.classes)
    assert val.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert val.digest != train.digest == listing(small_imagenet / "train").digest


def test_part_of_the_classes_keeps_the_numbering(tmp_path, small_imagenet):
    (tmp_path / "n02102040").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "n02102040" / "a.png")
    assert listing(tmp_path, listing(small_imagenet / "train").classes).labels.tolist() == [2]


def test_folders_that_are_no_imagenet_are_refused(tmp_path, small_imagenet):
    with pytest.raises(MemoryFileError, match="expected folders of classes"):
        listing(tmp_path / "missing")
    with pytest.raises(MemoryFileError, match="no folder of a class"):
        listing(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(MemoryFileError, match="hold no images"):
        listing(tmp_path)
    with pytest.raises(MemoryFileError, match="class 'dog', which is not in the training images"):
        listing(tmp_path, ("cat",))


def test_preprocessing_by_hand():
    # 8 x 4, left half black, right half white: resized to 4 x 2, the middle 2 x 2 is one column of each.
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    prepared = Preprocessing(2, 2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 1.0), interpolation="nearest")
    found = prepared(Image.fromarray(pixels))
    assert found.dtype == torch.float32
    expected = torch.tensor([[[-1, 1]] * 2, [[-2, 2]] * 2, [[-0.5, 0.5]] * 2])
    torch.testing.assert_close(found, expected)


def test_crop_larger_than_the_image_is_bordered_with_black():
    white = Image.new("RGB", (4, 4), "white")
    found = Preprocessing(4, 8, mean=(0, 0, 0), std=(1, 1, 1))(white)
    assert found.shape == (3, 8, 8)
    assert found.sum() == 3 * 16


def test_any_colour_mode_and_orientation_gives_one_shape(small_imagenet):
    images = Images(listing(small_imagenet / "train"), Preprocessing(18, 16))
    assert {tuple(images[i][0].shape) for i in range(len(images))} == {(3, 16, 16)}
    assert images[20][1] == 1
    grey = Image.new("L", (30, 20), 255)
    assert Preprocessing(18, 16)(grey).shape == (3, 16, 16)


def test_damaged_image_is_named(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.JPEG").write_bytes(b"no image")
    with pytest.raises(MemoryFileError, match=r"a\.JPEG cannot be read"):
        Images(listing(tmp_path), Preprocessing())[0]
