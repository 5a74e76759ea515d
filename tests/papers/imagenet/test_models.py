"""Models by name; what is missing or unknown is said. timm and torchvision are stood in for, as neither may load."""

import sys
import types

import pytest
import torch
from safetensors.torch import save_file

from residua.errors import EncodeError, MemoryFileError, MissingDependencyError, ParameterError
from residua.papers.imagenet.folder import Preprocessing
from residua.papers.imagenet.models import load_model


def test_own_factory_brings_its_preprocessing(small_model):
    model, preprocessing = load_model(small_model)
    assert not model.training
    assert (preprocessing.resize, preprocessing.crop) == (18, 16)


def test_weights_from_a_file(small_model, tmp_path):
    model, _ = load_model(small_model)
    changed = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    save_file(changed, tmp_path / "w.safetensors")
    again, _ = load_model(small_model, str(tmp_path / "w.safetensors"))
    assert all(torch.equal(tensor, changed[name]) for name, tensor in again.state_dict().items())
    save_file({"other": torch.zeros(1)}, tmp_path / "o.safetensors")
    with pytest.raises(MemoryFileError, match="is no state_dict"):
        load_model(small_model, str(tmp_path / "o.safetensors"))
    with pytest.raises(MemoryFileError, match="is no state_dict"):
        load_model(small_model, "nowhere.safetensors")


@pytest.mark.parametrize("name", ["resnet", "timm/", "nowhere:make", "small_models:nothing"])
def test_unknown_names(small_model, name):
    with pytest.raises(ParameterError, match="expected"):
        load_model(name)


def test_a_factory_of_something_else(small_model):
    with pytest.raises(EncodeError, match="returned a int"):
        load_model("small_models:seven")


@pytest.mark.parametrize("library", ["timm", "torchvision.models"])
def test_missing_library_says_how_to_get_it(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        load_model(f"{library.split('.')[0]}/mobilenet_v2")


def test_timm_model_with_its_own_preprocessing(monkeypatch):
    config = {
        "input_size": (3, 192, 192),
        "crop_pct": 0.875,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
    }
    asked = []
    timm = types.ModuleType("timm")
    timm.is_model = lambda name: name == "mobilenetv2_100"
    timm.create_model = lambda name, pretrained: asked.append((name, pretrained)) or torch.nn.Linear(2, 2)
    timm.data = types.SimpleNamespace(resolve_model_data_config=lambda model: config)
    monkeypatch.setitem(sys.modules, "timm", timm)
    _, preprocessing = load_model("timm/mobilenetv2_100")
    assert preprocessing == Preprocessing(219, 192, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    load_model("timm/mobilenetv2_100", "random")
    assert asked == [("mobilenetv2_100", True), ("mobilenetv2_100", False)]
    with pytest.raises(ParameterError, match="timm has no model"):
        load_model("timm/nonesuch")


def test_torchvision_model_with_its_own_preprocessing(monkeypatch):
    about = types.SimpleNamespace(
        resize_size=[232],
        crop_size=[224],
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        interpolation=types.SimpleNamespace(value="bilinear"),
    )
    weights = types.SimpleNamespace(transforms=lambda: about)
    asked = []
    models = types.ModuleType("torchvision.models")
    models.list_models = lambda: ["mobilenet_v2"]
    models.get_model_weights = lambda name: types.SimpleNamespace(DEFAULT=weights)
    models.get_model = lambda name, weights: asked.append(weights) or torch.nn.Linear(2, 2)
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    _, preprocessing = load_model("torchvision/mobilenet_v2")
    assert preprocessing == Preprocessing(232)
    load_model("torchvision/mobilenet_v2", "random")
    assert asked == [weights, None]
    with pytest.raises(ParameterError, match="torchvision has no model"):
        load_model("torchvision/nonesuch")
