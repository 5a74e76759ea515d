"""``residua tune``: choose a reader's settings on validation data, and save it beside the memory."""

from __future__ import annotations

from pathlib import Path

import click

from residua.cli.options import (
    FILE,
    KERNELS,
    NUMBERS,
    READERS,
    SPACES,
    device_option,
    json_option,
    memory_argument,
    text_options,
    text_or_files,
)
from residua.cli.text import report, shown

OBJECTIVES = ("accuracy", "log_loss", "conservative", "squared_error")
OF_TEXT = ("adaptive", "gate", "cache", "max_tokens")


@click.command()
@memory_argument
@click.argument("validation", nargs=-1, type=FILE)
@text_options
@click.option("--reader", type=click.Choice(READERS), help="What is tuned.  [resmem; knnlm for text]")
@click.option("--objective", type=click.Choice(OBJECTIVES), help="accuracy; log_loss for text.")
@click.option("--max-fpr", type=float, default=0.05, show_default=True, help="The conservative objective's bound.")
@click.option("--k", type=NUMBERS, help="Neighbours to try, such as 1,10,50 (0, the base, always competes).")
@click.option("--sigma", type=NUMBERS, help="Kernel widths to try.")
@click.option("--temperature", type=NUMBERS, help="Softmax temperatures to try.")
@click.option("--lmbda", type=NUMBERS, help="Shares of the neighbours to try (knnlm).")
@click.option("--kernel", type=click.Choice(KERNELS), help="The reader's own when left out.")
@click.option("--space", type=click.Choice(SPACES), help="Where residuals are taken (resmem).")
@click.option("--adaptive", type=click.IntRange(min=2), help="Text: a share per bucket of distance, so many of them.")
@click.option("--gate", type=float, help="Text: skip searches for at most this loss of perplexity, such as 0.005.")
@click.option("--cache", is_flag=True, help="Text: then tune a continuous cache on top.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Text: use only the first so many.")
@device_option
@json_option
def tune(memory: Path, validation, text, reader, objective, max_fpr, kernel, space, device, as_json: bool, **options):
    """Choose k, sigma, temperature (and lmbda) on validation data.

    VALIDATION are encoded .npz files, and their rows must not be in the memory; a memory of tokens takes --text, and
    leaves documents that it remembers out by itself. The best reader is saved into the memory's folder, where
    evaluate, explain and generate find it.

    \b
    residua tune mem/ val.npz
    residua tune mem/ --text validation/ --adaptive 64 --gate 0.005
    """
    from residua.cli.opened import memory_at, usual_k
    from residua.readers.load import READERS as CLASSES
    from residua.readers.reader import FILE as SAVED

    of_text = text_or_files(text, validation, "VALIDATION", text_only=OF_TEXT)
    opened = memory_at(memory, device, of_tokens=of_text)
    grid = {name: options[name] for name in ("k", "sigma", "temperature", "lmbda") if options[name] is not None} or None
    cls = {cls.__name__.lower(): cls for cls in CLASSES.values()}[reader or ("knnlm" if of_text else "resmem")]
    own = {"kernel": kernel, "space": space}
    own = {name: value for name, value in own.items() if value is not None and name in cls.names}
    start = cls(opened, k=usual_k(cls, opened), **own)
    if of_text:
        from residua.cli.tune_text import tuned

        best, about, lines = tuned(start, memory, text, grid, objective=objective, max_fpr=max_fpr, **options)
    else:
        best, about, lines = _of_rows(start, validation, grid, objective, max_fpr)
    best.save(memory)
    after = [f"next: residua evaluate {memory} --text TEST     (text that is neither remembered nor tuned on)"]
    report(about, "\n".join([*lines, f"saved as {memory / SAVED}", *(after if of_text else [])]), as_json)


def _of_rows(start, validation: tuple[Path, ...], grid: dict | None, objective: str | None, max_fpr: float):
    """The best reader on encoded rows, and what to say of it for machines and for people."""
    from residua.core import Encoded
    from residua.tuning import tune as choose

    best = choose(start, (Encoded.load(path) for path in validation), grid, objective=objective, max_fpr=max_fpr)
    results, name = best.cv_results_, type(best).__name__
    # The base at every temperature: what the memory had to beat.
    base = float(results["score"][results["k"] == 0].max())
    measure = objective or ("accuracy" if best.memory.task == "classification" else "squared_error")
    about = {"reader": name, "params": best.params, "objective": measure, "settings": len(results["score"])}
    lines = [
        f"{name}: {about['settings']:,} settings compared by {MEASURES[measure]} on validation rows",
        f"  best: {shown(best.best_params_)}",
        f"  {_figure(base)} for the model alone (k=0), {_figure(best.best_score_)} for the best",
        *([NO_HELP] if best.k == 0 else []),
    ]
    return best, {**about, "score": best.best_score_, "base_score": base}, lines


NO_HELP = "  the memory does not help here: the model alone (k=0) is kept"
MEASURES = {
    "accuracy": "accuracy",
    "log_loss": "log-loss",
    "conservative": "share of rows corrected within the bound on those broken",
    "squared_error": "mean squared error",
}


def _figure(score: float) -> str:
    """A score as it is measured; losses are tuned as negative scores."""
    return f"{abs(score):.4g}"
