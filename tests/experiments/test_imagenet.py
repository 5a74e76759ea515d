"""The whole path on a generated folder and random weights: encoding goes on where it stopped, answers are right.

torchvision loads beside few builds of torch, and none need be here: what is used of it is stood in for.
"""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import residua as rs
from experiments import imagenet
from experiments.imagenet import draw, encode, measure, network_and_images, tables
from experiments.published import IMAGENET_MOBILENET_V2
from experiments.runner import rounded
from experiments.work import Work
from residua.errors import MemoryFileError, MissingDependencyError, ParameterError

CLASSES = ("n01440764", "n01443537", "n02102040")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 training and 6 validation images of each of three classes, each of a colour."""
    folder = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                colours = np.full((24, 24, 3), 40) + rng.integers(0, 60, (24, 24, 3))
                colours[..., label] += 120
                Image.fromarray(colours.astype(np.uint8)).save(folder / split / name / f"{i}.png")
    return folder


class ImageFolder(torch.utils.data.Dataset):
    def __init__(self, root, transform):
        self.root, self.transform = root, transform
        self.classes = sorted(path.name for path in Path(root).iterdir())
        found = ((path, self.classes.index(path.parent.name)) for path in sorted(Path(root).glob("*/*")))
        self.samples = [(str(path), label) for path, label in found]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        path, label = self.samples[i]
        return self.transform(Image.open(path)), label


class Transform:
    def __call__(self, picture):
        return torch.from_numpy(np.asarray(picture, np.float32) / 255).permute(2, 0, 1)

    def __repr__(self):
        return "Transform()"


class Small(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(3, 12, 3), torch.nn.Linear(12, classes)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean(dim=(2, 3)))


def mobilenet_v2(weights=None, width_mult=1.0, num_classes=1000):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if weights is None else 1)
        return Small(num_classes)


@pytest.fixture(autouse=True)
def torchvision(monkeypatch):
    published = types.SimpleNamespace(transforms=Transform)
    models = types.ModuleType("torchvision.models")
    models.mobilenet_v2, models.MobileNet_V2_Weights = mobilenet_v2, types.SimpleNamespace(IMAGENET1K_V1=published)
    datasets = types.ModuleType("torchvision.datasets")
    datasets.ImageFolder = ImageFolder
    for name, module in (("", types.ModuleType("torchvision")), (".models", models), (".datasets", datasets)):
        monkeypatch.setitem(sys.modules, f"torchvision{name}", module)


@pytest.fixture
def options(folder, tmp_path):
    own = {"data": str(folder), "weights": "random", "alpha": 0.35, "encoded": str(tmp_path / "keys")}
    return {**own, "file_rows": 10, "batch_size": 4}


def test_answers_are_the_verbs(options):
    results = rounded(measure(Work(), **options))
    assert (results["classes"], results["train"], results["n"], results["dim"]) == (3, 36, 18, 12)
    chosen = {name: IMAGENET_MOBILENET_V2[0.35][name] for name in ("k", "sigma", "temperature")}
    network, train, val = network_and_images(options["data"], 0.35, "random")
    remembered, test = rs.encode(network, train), rs.encode(network, val)
    result = rs.evaluate(rs.ResMem(rs.Memory(remembered), **chosen), test)
    ours = results["readers"]["resmem_paper"]
    assert ours["settings"] == chosen
    assert ours["accuracy"] == pytest.approx(100 * result.accuracy, rel=1e-5)
    assert (ours["tpr"], ours["fpr"]) == pytest.approx((100 * result.tpr, 100 * result.fpr), rel=1e-5)
    assert results["base"] == pytest.approx(100 * result.base_accuracy, rel=1e-5)
    # Colours tell these classes apart, which random weights keep and their logits do not know.
    assert results["readers"]["resmem_tuned"]["accuracy"] > results["base"] + 20

    rows = tables(results)["accuracy"].rows
    assert [row[1] for row in rows] == [60.2, 61.2, ""]
    assert rows[1][2] == f"{ours['accuracy']:.2f}"
    assert "randomly initialised" in draw(results).get_suptitle()


def test_a_stopped_encoding_goes_on_and_is_the_whole_one(folder, tmp_path, monkeypatch):
    network, train, _ = network_and_images(str(folder), 0.35, "random")
    whole, calls, original = rs.encode(network, train), [], rs.encode

    def counted(*arguments, ids):
        calls.append(ids[0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, ids=ids)

    monkeypatch.setattr(imagenet.rs, "encode", counted)
    with pytest.raises(KeyboardInterrupt):
        list(encode(network, train, tmp_path, 10, batch_size=4))
    parts = list(encode(network, train, tmp_path, 10, batch_size=4))
    assert calls == [0, 10, 20, 20, 30]
    np.testing.assert_allclose(np.concatenate([part.keys for part in parts]), whole.keys, atol=1e-5)
    logits = np.concatenate([part.logits.dense().numpy() for part in parts])
    np.testing.assert_allclose(logits, np.asarray(whole.logits), atol=1e-4)
    assert np.concatenate([part.ids for part in parts]).tolist() == list(range(36))
    assert np.concatenate([part.labels for part in parts]).tolist() == whole.labels.tolist()


def test_keys_of_other_images_networks_and_sizes_are_never_read(folder, tmp_path):
    network, train, val = network_and_images(str(folder), 0.35, "random")
    list(encode(network, val, tmp_path, 10, batch_size=4))
    list(encode(network, val, tmp_path, 9, batch_size=4))
    list(encode(network, train, tmp_path, 10, batch_size=4))
    network.fc.weight.data *= 2
    list(encode(network, val, tmp_path, 10, batch_size=4))
    assert len(list(tmp_path.iterdir())) == 4


def test_weights_come_from_a_file(folder, tmp_path):
    network = Small(1000)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    again, _, _ = network_and_images(str(folder), 1.3, str(tmp_path / "w.safetensors"))
    assert torch.equal(again.fc.weight, network.fc.weight)
    assert not again.training
    for wrong in ({"other": torch.zeros(1)}, None):
        path = tmp_path / f"{wrong is None}.safetensors"
        if wrong:
            save_file(wrong, path)
        with pytest.raises(MemoryFileError, match="is no state_dict"):
            network_and_images(str(folder), 1.3, str(path))


def test_what_cannot_be_measured_is_said(options, folder, tmp_path, monkeypatch):
    for wrong in ({"alpha": 2.0}, {"weights": "pretrained"}, {"file_rows": 0}, {"workers": -1}):
        with pytest.raises(ParameterError, match="expected"):
            measure(Work(), **{**options, **wrong})
    with pytest.raises(MemoryFileError, match="expected train/<class>/"):
        measure(Work(), **{**options, "data": str(tmp_path / "nowhere")})
    (tmp_path / "val" / "dog").mkdir(parents=True)
    (tmp_path / "train").symlink_to(folder / "train")
    with pytest.raises(MemoryFileError, match="folders of other classes"):
        measure(Work(), **{**options, "data": str(tmp_path)})
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(MissingDependencyError, match=r"pip install \"residua\[vision\]\""):
        measure(Work(), **options)
