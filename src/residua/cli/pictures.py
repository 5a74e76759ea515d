"""Classifiers of two collections, ``timm:NAME`` and ``hf:FOLDER``, and pictures in folders as each prepares them."""

import os
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from residua.cli.language import first_line, quiet, warn_if_random
from residua.cli.loaders import needed
from residua.errors import InputError, MemoryFileError, MissingDependencyError
from residua.printable import one_line

COLLECTIONS = ("timm", "hf")


class Pictures:
    """The pictures in a folder, by name: in a folder for each class, (picture, class), or flat, without labels."""

    classes: list[str] | None
    samples: list[tuple[str, int]]

    def __init__(self, folder: Path, prepare: Callable[[Any], Any]):
        needed("PIL", "pictures", "vision")
        from PIL import Image

        kinds = Image.registered_extensions()
        folders = sorted(path for path in _visible(folder) if path.is_dir())
        flat = [path for path in _visible(folder) if path.suffix.lower() in kinds]
        if folders and flat:
            raise InputError(f"{folder} holds both folders and pictures; expected a folder for each class, or pictures")
        self.classes, self._prepare, self._open = [path.name for path in folders] or None, prepare, Image.open
        found = [(path, -1) for path in sorted(flat)]
        for place, one in enumerate(folders):
            inside = (path for path in sorted(one.rglob("*")) if path.suffix.lower() in kinds)
            found += [(path, place) for path in inside if not _hidden(path.relative_to(one))]
        self.samples = [(os.fspath(path), place) for path, place in found]
        if not self.samples:
            raise InputError(f"{folder} holds no pictures, nor folders of them; expected one folder for each class")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> Any:
        path, place = self.samples[number]
        try:
            with self._open(path) as picture:
                x = self._prepare(picture.convert("RGB"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as a picture: {error}; remove or mend it") from error
        return x if self.classes is None else (x, place)

    def numbered_as(self, classes: list[str] | None, outputs: int | None) -> None:
        """Number the class folders as a model does its `outputs`: by their names where it has the same, else in order.

        ``InputError`` where they cannot be its outputs; an embedder has None.
        """
        if self.classes is None or outputs is None:
            return
        if classes is not None and set(self.classes) <= set(classes):
            place = [classes.index(name) for name in self.classes]
            self.classes, self.samples = classes, [(path, place[i]) for path, i in self.samples]
        elif len(self.classes) != outputs:
            raise InputError(
                f"there are {len(self.classes)} class folders, such as {one_line(self.classes[0])!r}, and the model "
                f"has {outputs} outputs: expected a folder for each (it may be empty), or folders called as the model "
                "calls its classes; --kind none --key MODULE remembers the pictures by their keys alone"
            )


def classifier_of(spec: str, folder: Path, checkpoint: Path | None, keys_only: bool) -> tuple[Any, Pictures]:
    """The model that `spec` names, and the pictures in `folder` as it was trained to see them.

    `checkpoint` is a file of weights for a timm model; its own are downloaded otherwise. With `keys_only` its classes
    need not be the folders.
    """
    collection, _, name = spec.partition(":")
    if collection == "timm":
        model, prepare, classes, outputs = _of_timm(name, checkpoint)
    else:
        if checkpoint is not None:
            raise InputError(f"--checkpoint {checkpoint} is for timm's models; {spec} has its weights in its folder")
        model, prepare, classes, outputs = _of_transformers(Path(name))
    pictures = Pictures(folder, prepare)
    pictures.numbered_as(classes, None if keys_only else outputs)
    return model.eval(), pictures


def _of_timm(name: str, checkpoint: Path | None) -> tuple[Any, Callable[[Any], Any], None, int]:
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(f"timm is needed for timm:{name}: pip install timm") from error
    if not timm.is_model(name):
        near = ", ".join(get_close_matches(name, timm.list_models(), n=3)) or "timm.list_models() has them all"
        raise InputError(f"timm has no model {name!r}; near names: {near}")
    if checkpoint is None:
        try:
            model = timm.create_model(name, pretrained=True)
        except (RuntimeError, OSError, ValueError) as error:
            how = "expected a model with weights on the hub and a way there, or a file of weights: --checkpoint FILE"
            raise InputError(f"no weights for timm's {name}: {first_line(error)}; {how}") from error
    else:
        model = _with_weights(timm, name, checkpoint)
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return model, prepare, None, model.num_classes


def _with_weights(timm: Any, name: str, checkpoint: Path) -> Any:
    """A timm model with as many outputs as the weights in a file have."""
    if not checkpoint.is_file():
        raise MemoryFileError(f"there is no file {checkpoint}; expected weights that torch.save wrote, or safetensors")
    try:
        state = timm.models.load_state_dict(os.fspath(checkpoint), device="cpu", weights_only=True)
    except Exception as error:  # of what is no file of weights, the unpickler may say anything
        raise MemoryFileError(f"{checkpoint} cannot be read as weights: {first_line(error)}") from error
    model = timm.create_model(name, pretrained=False)
    last = model.pretrained_cfg.get("classifier") or ""
    weight = state.get(f"{last if isinstance(last, str) else last[0]}.weight")
    if weight is not None and len(weight) != model.num_classes:
        model = timm.create_model(name, pretrained=False, num_classes=len(weight))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        what = str(error).splitlines()[1:2] or [str(error)]
        raise InputError(f"{checkpoint} holds the weights of another model than {name}: {what[0].strip()}") from error
    return model


def _of_transformers(folder: Path) -> tuple[Any, Callable[[Any], Any], list[str] | None, int]:
    if not (folder / "config.json").is_file():
        raise InputError(f"hf:{folder}: there is no {folder / 'config.json'}; expected what save_pretrained wrote")
    with quiet():
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        here = {"local_files_only": True}
        try:
            model, found = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True, **here)
            processor = AutoImageProcessor.from_pretrained(folder, **here)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise InputError(
                f"hf:{folder} is no classifier of pictures: {first_line(error)}; expected a model for "
                "AutoModelForImageClassification, and its image processor, in one folder"
            ) from error
    warn_if_random(model, sorted(found["missing_keys"]), f"hf:{folder}")
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    known = None if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names
    return model, lambda picture: processor(picture, return_tensors="pt")["pixel_values"][0], known, len(names)


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not _hidden(Path(path.name))]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
