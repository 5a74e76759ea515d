"""``residua explain``: which memories moved one prediction, and how far."""

from dataclasses import fields
from pathlib import Path

import click

from residua.caution import warn
from residua.cli.data import prompt_of
from residua.cli.language import model_of
from residua.cli.options import FILE, device_and_json, memory_argument, model_options, reader_options
from residua.cli.output import command, report
from residua.cli.store import reader_at
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
@device_and_json
def explain(
    memory, encoded, row, prompt, prompt_file, context, exclude_id, model, dtype, reader, device, as_json, **params
):
    """Take one prediction apart, memory by memory.

    The model's own scores, and what each remembered row adds to them: for one row of an encoded .npz file, or for the
    token after a text.

    \b
    Examples:
      residua explain mem/ test.npz --row 7
      residua explain mem/ --text 'def main('
    """
    of_text = prompt is not None or prompt_file is not None
    if of_text == (encoded is not None):
        raise click.UsageError("expected either --text 'a prompt' or ENCODED (an .npz file)")
    if encoded is not None and row is None:
        raise click.UsageError("Missing option '--row': which row of the file?")
    text = prompt_of(prompt, prompt_file) if of_text else ""
    asked = reader_at(memory, reader, device, params, of_text=of_text, files=() if encoded is None else (encoded,))
    from residua.core import Encoded
    from residua.encoding import last_row
    from residua.explanation import explain as take_apart
    from residua.readers import ContinuousCache

    if isinstance(asked, ContinuousCache):
        warn("the continuous cache is left out: there is no text before")
        asked = asked.over
    if encoded is None:
        if prompt is not None and Path(prompt).is_file():
            warn(f"{prompt} is explained as a text; its content would be --prompt-file")
        language, tokenizer = model_of(asked.memory, memory, model, dtype)
        query = last_row((language, tokenizer), text, like=asked)
    else:
        rows, tokenizer = Encoded.load(encoded), None
        if row >= len(rows):
            raise ParameterError(f"--row {row}, and {encoded} holds {len(rows)} rows; expected 0 to {len(rows) - 1}")
        query = rows[row]
    why = take_apart(asked, query, exclude=list(exclude_id) or None, context=context, tokenizer=tokenizer)
    report(_plain(why), str(why), as_json, _then(memory, why))


def _then(memory: Path, why) -> list[str]:
    """What one types next: a memory that misled can be forgotten, or its label corrected."""
    if not (why.ids >= 0).any():
        return []
    moved = abs(why.contributions).sum(axis=1)
    moved[why.ids < 0] = -1  # another source's
    id = int(why.ids[moved.argmax()])
    if why.is_text:
        return [command("forget", memory, "--id", id, why="should the document that moved most mislead")]
    relabel = command("relabel", memory, "--id", id, "--label", "LABEL", why="or if only its label is wrong")
    return [command("forget", memory, "--id", id, why="should the memory that moved most mislead"), relabel]


def _plain(why) -> dict:
    """An explanation in JSON types, with tokens as text too."""
    if not why.is_text:
        names = [field.name for field in fields(why) if field.name not in ("tokenizer", "query")]
        return {name: getattr(why, name) for name in names}
    seen = zip(why.outputs, why.base, why.scores)
    tokens = [{"token": token, "text": why.text(token), "base": base, "score": score} for token, base, score in seen]
    neighbours = []
    for i, document in enumerate(why.ids.tolist()):
        one = {"document": document, "name": why.names.get(document), "offset": why.offsets[i]}
        one |= {"context": why.text(why.contexts[i]), "next": why.text(why.labels[i])}
        one |= {"distance": why.distances[i], "weight": why.weights[i]}
        one["contributions"] = {word: values[i] for word, values in why.contributions_to.items()}
        neighbours.append(one)
    data = {"prediction": why.text(why.prediction), "base_prediction": why.text(why.base_prediction)}
    data |= {"scale": why.scale, "tokens": sorted(tokens, key=lambda token: -token["score"])}
    return {**data, "neighbours": neighbours}
