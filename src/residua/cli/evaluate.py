"""``residua evaluate``: did the memory help, on data it has not seen."""

from __future__ import annotations

from pathlib import Path

import click

from residua.cli.options import FILE, device_option, json_option, memory_argument, reader_of, reader_options
from residua.cli.text import report


@click.command()
@memory_argument
@click.argument("test", nargs=-1, required=True, type=FILE)
@click.option("--validation", type=FILE, multiple=True, help="To tune label k-NN on, the plain alternative.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of the gain's interval.")
@click.option("--n-bootstrap", type=click.IntRange(min=1), default=2000, show_default=True, help="Its resamples.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the resampling.")
@reader_options
@device_option
@json_option
def evaluate(memory: Path, test, validation, confidence, n_bootstrap, seed, reader, device, as_json: bool, **params):
    """Compare the tuned reader with the model alone and label k-NN.

    TEST are encoded .npz files whose rows were neither remembered nor tuned on.

    \b
    residua evaluate mem/ test.npz --validation val.npz
    residua evaluate mem/ test.npz --reader resmem --k 53 --sigma 0.7 --temperature 1.4
    """
    from residua.evaluate import evaluate as compare
    from residua.records import Encoded

    result = compare(
        reader_of(memory, reader, device, params),
        (Encoded.load(path) for path in test),
        validation=[Encoded.load(path) for path in validation] or None,
        confidence=confidence,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
    report(result.to_dict(), str(result), as_json)
