"""``residua explain``: which memories moved one prediction, and how far."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click

from residua.cli.options import FILE, device_option, json_option, memory_argument, reader_of, reader_options
from residua.cli.text import report
from residua.errors import ParameterError


@click.command()
@memory_argument
@click.argument("encoded", type=FILE)
@click.option("--row", type=click.IntRange(min=0), required=True, help="Which row of the file, counted from 0.")
@click.option("--exclude-id", type=int, multiple=True, help="An id that is no neighbour, such as the row's own.")
@reader_options
@device_option
@json_option
def explain(memory: Path, encoded: Path, row: int, exclude_id, reader, device, as_json: bool, **params) -> None:
    """Take one prediction apart, memory by memory.

    The model's own scores, and what each remembered row adds to them, for one row of an encoded .npz file.
    """
    from residua.explain import explain as take_apart
    from residua.records import Encoded

    rows = Encoded.load(encoded)
    if row >= len(rows):
        raise ParameterError(f"--row {row}, and {encoded} holds {len(rows)} rows; expected 0 to {len(rows) - 1}")
    why = take_apart(reader_of(memory, reader, device, params), rows[row], exclude_ids=list(exclude_id) or None)
    report({field.name: getattr(why, field.name) for field in fields(why)}, str(why), as_json)
