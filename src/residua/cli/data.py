"""What a verb was given to work on: encoded rows, or texts and prompts before a language model."""

import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from residua.cli.language import model_of
from residua.cli.options import READING
from residua.errors import InputError

log: logging.Logger = logging.getLogger(__name__)


def data_for(memory, path: Path, files: tuple[Path, ...], text: tuple[Path, ...], options: dict) -> Iterable:
    """Batches for a reader of `memory`, which is in folder `path`; they can be read any number of times.

    `options` has the text options of the command line; those that are read are taken out.
    """
    import residua as rs

    model, dtype, batch_size = (options.pop(name) for name in ("model", "dtype", "batch_size"))
    if not text:
        rows = [rs.Encoded.load(file) for file in files]
        for file, one in zip(files, rows):
            log.info("data %s: %r", file, one)
        return rows
    language, tokenizer = model_of(memory, path, model, dtype)
    reading = reading_for(language, options)
    # Without a bar, beside that of the verb that reads this.
    data = rs.encode((language, tokenizer), list(text), like=memory, batch_size=batch_size, progress=False, **reading)
    log.info("data %s: %r", ", ".join(map(str, text)), data)
    return data


class Counted:
    """The same data, no more than `most` rows of them; ``rows`` and ``groups`` (ids) count what the last pass had."""

    data: Iterable[Any]
    most: float
    rows: int
    groups: set[int]

    def __init__(self, data: Iterable[Any], most: int | None = None):
        self.data, self.most = data, most or math.inf
        self.rows, self.groups = 0, set()

    def __iter__(self) -> Iterator[Any]:
        self.rows, self.groups = 0, set()
        for batch in self.data:
            left = self.most - self.rows
            batch = batch[: int(left)] if len(batch) > left else batch
            self.rows += len(batch)
            self.groups.update(() if batch.ids is None else batch.ids.tolist())
            yield batch
            if self.rows >= self.most:
                return


def reading_for(model, options: dict) -> dict:
    """How a model's texts are read, taken out of a verb's options; those for a folder's files are not for pairs."""
    reading = {name: options.pop(name) for name in READING}
    return {"errors": reading["errors"]} if getattr(model.config, "is_encoder_decoder", False) else reading


def prompt_of(text: str | None, file: Path | None) -> str:
    """The prompt, from the command line or a file, and never empty."""
    if (text is None) == (file is None):
        raise InputError("expected a prompt: in quotes, or in a file with --prompt-file, and not both")
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").removesuffix("\n")  # editors end a file with one
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the prompt from {file}: {error}") from error
    if not text:
        raise InputError("the prompt is empty; expected text to go on from")
    return text
