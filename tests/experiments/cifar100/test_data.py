"""CIFAR-100's two layouts are read alike, tile by tile and file by file."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch

from experiments.cifar100.data import CLASS_NAMES, MEAN, STD, Cifar100, normalise, read
from residua.errors import MemoryFileError, MissingDependencyError, ParameterError, ShapeError

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def mosaics(tmp_path_factory):
    """A made-up test split: tile t of class c has colour (c, t, 7), but for its corner (1, 2, 3)."""
    folder = tmp_path_factory.mktemp("cifar100")
    (folder / "test").mkdir()
    for label, name in enumerate(CLASS_NAMES):
        picture = np.empty((320, 320, 3), dtype=np.uint8)
        for tile in range(100):
            y, x = 32 * (tile // 10), 32 * (tile % 10)
            picture[y : y + 32, x : x + 32] = (label, tile, 7)
            picture[y, x + 31] = (1, 2, 3)
        Image.fromarray(picture).save(folder / "test" / f"{name}.webp", lossless=True, exact=True, method=0)
    return folder


def test_mosaics_are_cut_into_tiles_class_by_class(mosaics):
    images, labels = read(mosaics, "test")
    assert (images.shape, images.dtype, labels.dtype) == ((10000, 32, 32, 3), np.uint8, np.int64)
    assert labels.tolist() == [c for c in range(100) for _ in range(100)]
    inside = np.stack([labels, np.tile(np.arange(100), 100), np.full(10000, 7)], axis=1)
    assert np.array_equal(images[:, 16, 16], inside)
    assert np.array_equal(images[:, 0, 31], np.tile([1, 2, 3], (10000, 1)))  # top right, not bottom left
    assert np.array_equal(images[:, 31, 0], inside)
    assert list(CLASS_NAMES) == sorted(set(CLASS_NAMES))


def test_missing_and_damaged_mosaics_are_named(mosaics, tmp_path):
    with pytest.raises(ParameterError, match="split='val'"):
        read(mosaics, "val")
    with pytest.raises(MemoryFileError, match=r"neither train/<class>\.webp mosaics nor a cifar-100-python"):
        read(mosaics, "train")
    (tmp_path / "test").mkdir()
    apple = tmp_path / "test" / "apple.webp"
    apple.write_bytes((mosaics / "test" / "apple.webp").read_bytes()[:50])
    with pytest.raises(MemoryFileError, match=r"apple\.webp cannot be read"):
        read(tmp_path, "test")
    Image.new("RGB", (320, 288)).save(apple, lossless=True)
    with pytest.raises(MemoryFileError, match="expected 10 rows of 10 tiles"):
        read(tmp_path, "test")


@pytest.fixture
def torchvision_files(tmp_path):
    """Three images in the files torchvision reads: channels first, one row of 3072 bytes per image."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    rows = images.transpose(0, 3, 1, 2).reshape(3, 3072)
    (folder / "test").write_bytes(pickle.dumps({"data": rows, "fine_labels": [4, 99, 0]}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list(CLASS_NAMES)}))
    return tmp_path, images


def test_torchvision_files_are_read_by_torchvision(torchvision_files, monkeypatch):
    try:
        from torchvision.datasets import CIFAR100
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision does not load beside this torch: {error}")
    folder, expected = torchvision_files
    with monkeypatch.context() as patch:
        patch.setattr(CIFAR100, "train_list", [])
        patch.setattr(CIFAR100, "test_list", [["test", None]])
        patch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": None})
        images, labels = read(folder, "test")
    assert np.array_equal(images, expected)
    assert (labels.tolist(), labels.dtype) == ([4, 99, 0], np.int64)
    with pytest.raises(MemoryFileError, match="torchvision cannot read"):  # the real files have other checksums
        read(folder, "test")


def test_download_happens_only_when_asked(tmp_path, monkeypatch):
    calls = []

    def recorded(root, *, train, download):
        calls.append((root, train, download))
        return types.SimpleNamespace(data=np.zeros((1, 32, 32, 3), dtype=np.uint8), targets=(8,))

    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", types.SimpleNamespace(CIFAR100=recorded))
    with pytest.raises(MemoryFileError, match="--download"):
        read(tmp_path, "train")
    assert calls == []
    images, labels = read(tmp_path, "train", download=True)
    assert calls == [(tmp_path, True, True)]
    assert (images.shape, labels.tolist()) == ((1, 32, 32, 3), [8])


def test_missing_packages_name_their_extra(mosaics, torchvision_files, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    for folder in (mosaics, torchvision_files[0]):
        with pytest.raises(MissingDependencyError, match=r"residua\[vision\]"):
            read(folder, "test")


def test_normalise_is_the_formula_and_flip_mirrors():
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    expected = ((images / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    fed = normalise(images)
    assert fed.dtype == torch.float32
    np.testing.assert_allclose(fed.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(normalise(images, flip=True).numpy(), expected[..., ::-1], atol=1e-5)


def test_dataset_gives_images_in_order_with_integer_labels():
    images = np.random.default_rng(2).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    plain, flipped = Cifar100(images, [3, 1, 2]), Cifar100(images, np.array([3, 1, 2]), flip=True)
    assert len(plain) == 3
    assert [label for _, label in torch.utils.data.Subset(flipped, [2, 0])] == [2, 3]
    assert torch.equal(plain[1][0], normalise(images)[1])
    assert torch.equal(flipped[1][0], plain[1][0].flip(-1))
    with pytest.raises(ShapeError, match=r"expected \(n, 32, 32, 3\)"):
        Cifar100(images, [3, 1])


def test_training_mosaics_hold_500_images_of_each_class(shared):
    images, labels = read(shared / "data" / "cifar100", "train")
    assert images.shape == (50000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [500] * 100
    # The normalisation constants are this split's own statistics.
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)) / 255, MEAN, atol=2e-4)
