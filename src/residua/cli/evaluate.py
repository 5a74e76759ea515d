"""``residua evaluate``: did the memory help, on data it has not seen."""

from pathlib import Path

import click

from residua.cli import options as shared
from residua.cli.data import data_for
from residua.cli.output import report
from residua.cli.store import reader_at


@click.command()
@shared.memory_argument
@click.argument("test", nargs=-1, type=shared.FILE)
@shared.text_options
@click.option("--validation", type=shared.FILE, multiple=True, help="To tune label k-NN on, the plain alternative.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of the intervals.")
@click.option("--n-bootstrap", type=shared.AT_LEAST_1, default=2000, show_default=True, help="Their resamples.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the resampling.")
@shared.reader_options
@shared.device_and_json
def evaluate(memory: Path, test, text, validation, confidence, n_bootstrap, seed, reader, device, as_json, **params):
    """Compare the tuned reader with the model alone, and label k-NN.

    TEST are encoded .npz files whose rows were neither remembered nor tuned on; a memory of text takes --text.

    \b
    residua evaluate mem/ test.npz --validation val.npz
    residua evaluate mem/ test.npz --reader resmem --k 53 --sigma 0.7 --temperature 1.4
    residua evaluate mem/ --text test/
    """
    from residua.core import Encoded
    from residua.evaluation import evaluate as compare

    of_text = shared.text_or_files(text, test, "TEST", files_only=("validation",))
    reading = {name: params.pop(name) for name in shared.TEXT_ONLY}
    asked = reader_at(memory, reader, device, params, of_text=of_text)
    data = data_for(asked.memory, memory, test, text, reading)
    rows = [Encoded.load(path) for path in validation] or None
    result = compare(asked, data, validation=rows, confidence=confidence, n_bootstrap=n_bootstrap, seed=seed)
    report(result.to_dict(), str(result), as_json)
