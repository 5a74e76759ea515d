"""``residua evaluate``: did the memory help, on data it has not seen."""

from __future__ import annotations

from pathlib import Path

import click

from residua.cli.options import (
    FILE,
    device_option,
    json_option,
    memory_argument,
    reader_options,
    text_options,
    text_or_files,
)
from residua.cli.text import report


@click.command()
@memory_argument
@click.argument("test", nargs=-1, type=FILE)
@text_options
@click.option("--validation", type=FILE, multiple=True, help="To tune label k-NN on, the plain alternative.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of the gain's interval.")
@click.option("--n-bootstrap", type=click.IntRange(min=1), default=2000, show_default=True, help="Its resamples.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the resampling.")
@reader_options
@device_option
@json_option
def evaluate(
    memory: Path,
    test,
    text,
    model,
    dtype,
    glob,
    errors,
    batch_size,
    validation,
    confidence,
    n_bootstrap,
    seed,
    reader,
    device,
    as_json: bool,
    **params,
):
    """Compare the tuned reader with the model alone, and label k-NN.

    TEST are encoded .npz files whose rows were neither remembered nor tuned on; a memory of tokens takes --text.

    \b
    residua evaluate mem/ test.npz --validation val.npz
    residua evaluate mem/ test.npz --reader resmem --k 53 --sigma 0.7 --temperature 1.4
    residua evaluate mem/ --text test/
    """
    from residua.cli.opened import reader_at

    of_text = text_or_files(text, test, "TEST", files_only=("validation",))
    asked = reader_at(memory, reader, device, params, of_tokens=of_text)
    drawn = {"confidence": confidence, "n_bootstrap": n_bootstrap, "seed": seed}
    if of_text:
        import residua as rs
        from residua.cli.language import model_of
        from residua.cli.texts import texts_at

        language, tokenizer = model_of(asked.memory, memory, model, dtype)
        texts, reading = texts_at(text, language, {"glob": glob, "errors": errors})
        result = rs.lm.evaluate(language, tokenizer, texts, asked, batch_size=batch_size, **drawn, **reading)
    else:
        from residua.core import Encoded
        from residua.evaluation import evaluate as compare

        rows = (Encoded.load(path) for path in test)
        result = compare(asked, rows, validation=[Encoded.load(path) for path in validation] or None, **drawn)
    report(result.to_dict(), str(result), as_json)
