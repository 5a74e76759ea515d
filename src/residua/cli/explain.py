"""``residua explain``: which memories moved one prediction, and how far."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click

from residua.cli.options import (
    FILE,
    device_option,
    json_option,
    memory_argument,
    model_options,
    reader_options,
)
from residua.cli.text import report
from residua.errors import ParameterError


@click.command()
@memory_argument
@click.argument("encoded", type=FILE, required=False)
@click.option("--row", type=click.IntRange(min=0), help="Which row of the file, counted from 0.")
@click.option("--text", "prompt", help="The text whose next token is explained.")
@click.option("--prompt-file", type=FILE, help="A file with that text.")
@click.option("--context", type=click.IntRange(min=0), default=12, show_default=True, help="Text: tokens shown before.")
@click.option("--exclude-id", type=int, multiple=True, help="An id that is no neighbour, such as the row's own.")
@model_options
@reader_options
@device_option
@json_option
def explain(
    memory: Path,
    encoded: Path | None,
    row: int | None,
    prompt: str | None,
    prompt_file: Path | None,
    context: int,
    exclude_id,
    model,
    dtype,
    reader,
    device,
    as_json: bool,
    **params,
) -> None:
    """Take one prediction apart, memory by memory.

    The model's own scores, and what each remembered row adds to them: for one row of an encoded .npz file, or for the
    token after a text.

    \b
    residua explain mem/ test.npz --row 7
    residua explain mem/ --text 'def main('
    """
    from residua.cli.opened import reader_at

    of_text = prompt is not None or prompt_file is not None
    if of_text == (encoded is not None):
        raise click.UsageError("expected either --text 'a prompt' or ENCODED (an .npz file)")
    if encoded is not None and row is None:
        raise click.UsageError("Missing option '--row': which row of the file?")
    asked = reader_at(memory, reader, device, params, of_tokens=of_text)
    excluded = list(exclude_id) or None
    if of_text:
        from residua.cli.explain_text import explained

        why, about = explained(asked, memory, prompt, prompt_file, context, excluded, model, dtype)
        report(about, str(why), as_json)
        return
    from residua.core import Encoded
    from residua.explanation import explain as take_apart

    rows = Encoded.load(encoded)
    if row >= len(rows):
        raise ParameterError(f"--row {row}, and {encoded} holds {len(rows)} rows; expected 0 to {len(rows) - 1}")
    why = take_apart(asked, rows[row], exclude_ids=excluded)
    report({field.name: getattr(why, field.name) for field in fields(why)}, str(why), as_json)
