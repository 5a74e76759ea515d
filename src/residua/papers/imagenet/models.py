"""A model by name with the preprocessing it was trained for: timm's, torchvision's, or one's own factory."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from residua.errors import EncodeError, MemoryFileError, MissingDependencyError, ParameterError
from residua.papers.imagenet.folder import FILTERS, Preprocessing


def load_model(name: str, weights: str = "pretrained") -> tuple[nn.Module, Preprocessing]:
    """The model called `name`, in evaluation mode, and how its images are prepared.

    Parameters
    ----------
    name : str
        ``"timm/NAME"``, ``"torchvision/NAME"``, or ``"package.module:factory"``, where ``factory()`` returns the
        module; a ``preprocessing`` attribute of it (``Preprocessing``) is taken, else ImageNet's usual 224 pixels.
    weights : str, default "pretrained"
        ``"pretrained"`` (of a factory: as it gives them), ``"random"``, or a ``.safetensors`` file of the
        ``state_dict``.

    Raises
    ------
    MissingDependencyError
        When timm or torchvision is needed and does not load.
    ParameterError
        When there is no model of that name.
    EncodeError
        When a factory returns something else than a module.
    MemoryFileError
        When the file cannot be read or does not fit the model.
    """
    source, _, rest = name.partition("/")
    if source in SOURCES and rest:
        model, preprocessing = SOURCES[source](rest, weights == "pretrained")
    elif ":" in name:
        model, preprocessing = _own(name)
    else:
        raise ParameterError(f"model={name!r}; expected torchvision/NAME, timm/NAME or package.module:factory")
    if weights not in ("pretrained", "random"):
        try:
            model.load_state_dict(load_file(Path(weights)))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise MemoryFileError(f"{weights} is no state_dict of {name} ({error})") from error
    return model.eval(), preprocessing


def _timm(name: str, pretrained: bool) -> tuple[nn.Module, Preprocessing]:
    timm = _imported("timm", "pip install timm")
    if not timm.is_model(name):
        raise ParameterError(f"timm has no model {name!r}; timm.list_models('mobilenetv2*') lists some")
    model = timm.create_model(name, pretrained=pretrained)
    about = timm.data.resolve_model_data_config(model)
    crop = about["input_size"][-1]
    return model, Preprocessing(
        resize=int(crop / about["crop_pct"]),
        crop=crop,
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        interpolation=_filter(about["interpolation"]),
    )


def _torchvision(name: str, pretrained: bool) -> tuple[nn.Module, Preprocessing]:
    models = _imported("torchvision.models", 'pip install "residua[vision]", in the build that matches torch')
    if name not in models.list_models():
        raise ParameterError(f"torchvision has no model {name!r}; torchvision.models.list_models() lists them")
    weights = models.get_model_weights(name).DEFAULT
    about = weights.transforms()
    return models.get_model(name, weights=weights if pretrained else None), Preprocessing(
        resize=about.resize_size[0],
        crop=about.crop_size[0],
        mean=tuple(about.mean),
        std=tuple(about.std),
        interpolation=_filter(about.interpolation.value),
    )


SOURCES: dict[str, Callable] = {"timm": _timm, "torchvision": _torchvision}


def _own(name: str) -> tuple[nn.Module, Preprocessing]:
    where, _, factory = name.partition(":")
    try:
        make = getattr(import_module(where), factory)
    except (ImportError, AttributeError) as error:
        raise ParameterError(
            f"model={name!r}: {error}; expected package.module:factory that can be imported"
        ) from error
    model = make()
    if not isinstance(model, torch.nn.Module):
        raise EncodeError(f"{name} returned a {type(model).__name__}; expected a torch.nn.Module")
    return model, getattr(model, "preprocessing", Preprocessing())


def _imported(module: str, remedy: str):
    try:
        return import_module(module)
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision built for another torch
        raise MissingDependencyError(f"{module} does not load here ({error}): {remedy}") from error


def _filter(name: str) -> str:
    return name if name in FILTERS else "bicubic"  # timm's "random" and the like are for training
