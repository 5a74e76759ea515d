"""``residua tune``: choose a reader's settings on validation data, and save it beside the memory."""

from __future__ import annotations

from pathlib import Path

import click

from residua.cli.options import FILE, KERNELS, NUMBERS, READERS, SPACES, device_option, json_option, memory_argument
from residua.cli.text import report, shown

OBJECTIVES = ("accuracy", "log_loss", "conservative", "squared_error")


@click.command()
@memory_argument
@click.argument("validation", nargs=-1, required=True, type=FILE)
@click.option("--reader", type=click.Choice(READERS), default="resmem", show_default=True, help="What is tuned.")
@click.option("--objective", type=click.Choice(OBJECTIVES), help="accuracy; squared_error for regression.")
@click.option("--max-fpr", type=float, default=0.05, show_default=True, help="The conservative objective's bound.")
@click.option("--k", type=NUMBERS, help="Neighbours to try, such as 1,10,50 (0, the base, always competes).")
@click.option("--sigma", type=NUMBERS, help="Kernel widths to try.")
@click.option("--temperature", type=NUMBERS, help="Softmax temperatures to try.")
@click.option("--lmbda", type=NUMBERS, help="Shares of the neighbours to try (knnlm).")
@click.option("--kernel", type=click.Choice(KERNELS), help="The reader's own when left out.")
@click.option("--space", type=click.Choice(SPACES), help="Where residuals are taken (resmem).")
@device_option
@json_option
def tune(memory: Path, validation, reader, objective, max_fpr, kernel, space, device, as_json: bool, **grid) -> None:
    """Choose k, sigma, temperature (and lmbda) on validation rows.

    VALIDATION are encoded .npz files, and their rows must not be in the memory. The best reader is saved into the
    memory's folder, where evaluate and explain find it.
    """
    from residua.memory import Memory
    from residua.read.load import READERS as CLASSES
    from residua.read.reader import FILE as SAVED
    from residua.records import Encoded
    from residua.tune import tune as choose

    opened = Memory.load(memory, device)
    cls = {cls.__name__.lower(): cls for cls in CLASSES.values()}[reader]
    own = {
        name: value for name, value in (("kernel", kernel), ("space", space)) if value is not None and name in cls.names
    }
    best = choose(
        cls(opened, k=min(50, len(opened)), **own),
        (Encoded.load(path) for path in validation),
        {name: values for name, values in grid.items() if values is not None} or None,
        objective=objective,
        max_fpr=max_fpr,
    )
    best.save(memory)
    results = best.cv_results_
    # The base at every temperature: what the memory had to beat.
    base = float(results["score"][results["k"] == 0].max())
    measure = objective or ("accuracy" if opened.task == "classification" else "squared_error")
    about = {"reader": cls.__name__, "params": best.params, "objective": measure, "settings": len(results["score"])}
    lines = [
        f"{cls.__name__}: {about['settings']:,} settings compared by {MEASURES[measure]} on validation rows",
        f"  best: {shown(best.best_params_)}",
        f"  {_figure(base)} for the model alone (k=0), {_figure(best.best_score_)} for the best",
        *(["  the memory does not help here: the model alone (k=0) is kept"] if best.k == 0 else []),
        f"saved as {memory / SAVED}",
    ]
    report({**about, "score": best.best_score_, "base_score": base}, "\n".join(lines), as_json)


MEASURES = {
    "accuracy": "accuracy",
    "log_loss": "log-loss",
    "conservative": "share of rows corrected within the bound on those broken",
    "squared_error": "mean squared error",
}


def _figure(score: float) -> str:
    """A score as it is measured; losses are tuned as negative scores."""
    return f"{abs(score):.4g}"
