"""What a verb was given to work on: encoded rows, or texts and prompts before a language model."""

import json
import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from residua.cli.language import model_of
from residua.errors import InputError

log: logging.Logger = logging.getLogger(__name__)


def data_for(memory, path: Path, files: tuple[Path, ...], text: tuple[Path, ...], options: dict) -> Iterable:
    """Batches for a reader of `memory`, which is in folder `path`; they can be read any number of times.

    `options` are the text options of the command line, which are taken out.
    """
    import residua as rs

    reading = {name: options.pop(name) for name in ("glob", "errors")}
    model, dtype, batch_size = (options.pop(name) for name in ("model", "dtype", "batch_size"))
    if not text:
        rows = [rs.Encoded.load(file) for file in files]
        for file, one in zip(files, rows):
            log.info("data %s: %r", file, one)
        return rows
    language, tokenizer = model_of(memory, path, model, dtype)
    texts, reading = texts_at(text, language, reading)
    # Without a bar, beside that of the verb that reads this.
    data = rs.encode((language, tokenizer), texts, like=memory, batch_size=batch_size, progress=False, **reading)
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


def texts_at(paths: tuple[Path, ...], model, reading: dict) -> tuple[Any, dict]:
    """What ``rs.lm`` reads: `paths` themselves, or, for an encoder-decoder, the pairs in these files; and how.

    Pairs are the lines of ``.jsonl`` files, each an object with "source" and "target", or of ``.tsv`` files, each a
    source, a tab and a target. `reading` (``glob``, ``errors``) is for plain texts alone.
    """
    if not getattr(model.config, "is_encoder_decoder", False):
        return list(paths), reading
    for path in paths:
        if path.suffix not in (".jsonl", ".tsv"):
            pairs = "a .jsonl file with a source and a target per line, or a .tsv file with a tab between them"
            raise InputError(f"{path}: an encoder-decoder reads pairs; expected {pairs}")
    return _pairs(paths, reading["errors"]), {}


def _pairs(paths: tuple[Path, ...], errors: str) -> Iterator[tuple[str, str]]:
    for path in paths:
        parsed, form = _PAIR[path.suffix]
        try:
            with open(path, encoding="utf-8", errors=errors, newline="\n") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        pair = parsed(line.rstrip("\r\n"))
                        if len(pair) != 2:
                            raise InputError(f"{path}, line {number}: no pair; expected {form}")
                        yield pair
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8: {error.reason}; pass errors='replace'") from error


def _json_pair(line: str) -> tuple:
    try:
        row = json.loads(line)
    except ValueError:
        return ()
    return (row["source"], row["target"]) if isinstance(row, dict) and {"source", "target"} <= set(row) else ()


_PAIR = {
    ".jsonl": (_json_pair, '{"source": ..., "target": ...}'),
    ".tsv": (lambda line: tuple(line.split("\t")), "source TAB target"),
}


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
