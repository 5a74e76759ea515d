"""``residua evaluate``: did the memory help, on data it has not seen."""

from pathlib import Path

import click

from residua.cli import options as shared
from residua.cli.data import data_for
from residua.cli.output import command, report
from residua.cli.store import reader_at
from residua.cli.verbosity import progress

SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command()
@shared.memory_argument
@click.argument("test", nargs=-1, type=shared.FILE)
@shared.text_options
@click.option("--validation", type=shared.FILE, multiple=True, help="To tune label k-NN on, the plain alternative.")
@click.option("--confidence", type=SHARE, default=0.95, show_default=True, help="Of the intervals.")
@click.option("--n-bootstrap", type=shared.AT_LEAST_1, default=2000, show_default=True, help="Their resamples.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the resampling.")
@shared.reader_options
@shared.device_and_json
def evaluate(memory: Path, test, text, validation, confidence, n_bootstrap, seed, reader, device, as_json, **params):
    """Compare the tuned reader with the model alone, and label k-NN.

    TEST are encoded .npz files whose rows were neither remembered nor tuned on; a memory of text takes --text.

    \b
    Examples:
      residua evaluate mem/ test.npz --validation val.npz
      residua evaluate mem/ test.npz --reader resmem --k 53 --sigma 0.7 --temperature 1.4
      residua evaluate mem/ --text test/
    """
    of_text = shared.text_or_files(text, test, "TEST", files_only=("validation",))
    reading = {name: params.pop(name) for name in shared.TEXT_ONLY}
    asked = reader_at(memory, reader, device, params, of_text=of_text, files=(*test, *validation))
    from residua.core import Encoded
    from residua.evaluation import evaluate as compare

    data = data_for(asked.memory, memory, test, text, reading)
    rows = [Encoded.load(path) for path in validation] or None
    resampling = {"confidence": confidence, "n_bootstrap": n_bootstrap, "seed": seed}
    result = compare(asked, data, validation=rows, progress=progress(), **resampling)
    report(result.to_dict(), str(result), as_json, _then(memory, test, data, result))


def _then(memory: Path, test: tuple[Path, ...], data, result) -> list[str]:
    """What one types next: look at the row that the memory helped most, or at what it does to a text."""
    if not test:
        return [command("explain", memory, "--text", "a prompt"), command("generate", memory, "a prompt")]
    row = int(result.row_gain.argmax())
    if not result.row_gain[row] > 0:
        return []
    for file, rows in zip(test, data):
        if row < len(rows):
            return [command("explain", memory, file, "--row", row, why="a row that the memory mended")]
        row -= len(rows)
    return []
