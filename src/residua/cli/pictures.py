"""Pictures in folders, as a model was trained to see them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from residua.cli.loaders import needed
from residua.errors import InputError
from residua.printable import one_line


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


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not _hidden(Path(path.name))]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
