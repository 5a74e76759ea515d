"""Classifiers of two collections, ``timm:NAME`` and ``hf:FOLDER``, and data as each was trained to read them."""

import os
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from residua.cli.language import first_line, quiet, warn_if_random
from residua.cli.pictures import Pictures
from residua.cli.sentences import TABLES, Sentences, Tokenized
from residua.errors import InputError, MemoryFileError, MissingDependencyError

COLLECTIONS: tuple[str, ...] = ("timm", "hf")


def classifier_of(spec: str, data: Path, checkpoint: Path | None, keys_only: bool) -> tuple[Any, Any]:
    """The model that `spec` names, and what is in `data` as it was trained to read it.

    `data` is a folder of pictures, or a table of text for a transformers model. `checkpoint` is a file of weights for a
    timm model; its own are downloaded otherwise. With `keys_only` its classes need not be the folders.
    """
    collection, _, name = spec.partition(":")
    if collection == "hf" and checkpoint is not None:
        raise InputError(f"--checkpoint {checkpoint} is for timm's models; {spec} has its weights in its folder")
    if collection == "hf" and data.suffix.lower() in TABLES:
        return _of_text(Path(name), data, keys_only)
    if not data.is_dir():
        tables = ", or a .csv or .tsv file of texts" if collection == "hf" else ""
        raise InputError(f"DATA is {str(data)!r}; expected a folder of pictures, or of folders of them{tables}")
    model, prepare, classes, outputs = _of_timm(name, checkpoint) if collection == "timm" else _of_pictures(Path(name))
    pictures = Pictures(data, prepare)
    pictures.numbered_as(classes, None if keys_only else outputs)
    return model.eval(), pictures


def reader_of_pictures(spec: str, checkpoint: Path | None) -> tuple[Any, Callable[[Any], Any]]:
    """The model of pictures that `spec` names, and what makes its input of a picture."""
    collection, _, name = spec.partition(":")
    model, prepare, _, _ = _of_timm(name, checkpoint) if collection == "timm" else _of_pictures(Path(name))
    return model.eval(), prepare


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


def _of_pictures(folder: Path) -> tuple[Any, Callable[[Any], Any], list[str] | None, int]:
    what = ("classifier of pictures", "AutoModelForImageClassification", "AutoImageProcessor", "image processor")
    model, processor = _of_transformers(folder, *what)
    classes = _classes_of(model)
    return model, lambda picture: processor(picture, return_tensors="pt")["pixel_values"][0], *classes


def _of_text(folder: Path, file: Path, keys_only: bool) -> tuple[Any, Any]:
    what = ("classifier of text", "AutoModelForSequenceClassification", "AutoTokenizer", "tokenizer")
    model, tokenizer = _of_transformers(folder, *what)
    if model.config.problem_type == "multi_label_classification":
        raise InputError(
            f"hf:{folder} gives a text several labels, and a row of {file} has one; use rs.encode(model, dataset), "
            "with labels of 0 and 1 for each"
        )
    if tokenizer.pad_token_id is None or model.config.pad_token_id is None:
        raise InputError(
            f"hf:{folder} has no padding token, for texts of different lengths; set tokenizer.pad_token and "
            "model.config.pad_token_id, and save both again"
        )
    classes, outputs = _classes_of(model)
    sentences: Any = Sentences(file, classes, None if keys_only else outputs)
    from torch.utils.data import DataLoader

    return model.eval(), DataLoader(sentences, batch_size=32, collate_fn=Tokenized(tokenizer, model.config))


def _of_transformers(folder: Path, what: str, kind: str, processor_kind: str, processor: str) -> tuple[Any, Any]:
    """A model, and what prepares its inputs, out of a folder."""
    if not (folder / "config.json").is_file():
        raise InputError(f"hf:{folder}: there is no {folder / 'config.json'}; expected what save_pretrained wrote")
    with quiet():
        import transformers

        here = {"local_files_only": True}
        try:
            model, found = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True, **here)
            prepare = getattr(transformers, processor_kind).from_pretrained(folder, **here)
        except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
            raise InputError(
                f"hf:{folder} is no {what}: {first_line(error)}; expected a model for {kind}, and its {processor}, in "
                "one folder"
            ) from error
    warn_if_random(model, sorted(found["missing_keys"]), f"hf:{folder}")
    return model, prepare


def _classes_of(model: Any) -> tuple[list[str] | None, int]:
    """What a model calls its outputs, if it says so, and how many there are."""
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    return None if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names, len(names)
