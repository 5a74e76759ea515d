"""``residua tune``: choose a reader's settings on validation data, and save it beside the memory."""

import math
from dataclasses import asdict
from pathlib import Path

import click

from residua.cli import options as shared
from residua.cli.data import Counted, data_for
from residua.cli.output import report
from residua.cli.store import memory_at, next_step, usual_reader
from residua.cli.verbosity import progress
from residua.printable import count, shown

NO_HELP = "  the memory is not surely better here: the model alone (k=0) is kept"
MEASURES = {
    "accuracy": "accuracy",
    "log_loss": "log-loss",
    "conservative": "share of rows corrected within the bound on those broken",
    "squared_error": "mean squared error",
}
OBJECTIVES = tuple(MEASURES)
FITTED = ("pooled", "gated", "ranpac")  # readers that can learn from the memory's own rows
GRID = {"multiple": True, "metavar": "NAME=V[,V...]", "callback": shared.named_values}


@click.command()
@shared.memory_argument
@click.argument("validation", nargs=-1, type=shared.FILE)
@shared.text_options
@click.option("--reader", type=shared.READER, metavar="NAME", help="What is tuned.  [resmem; knnlm for text]")
@click.option(
    "--objective",
    metavar="NAME",
    shell_complete=lambda _context, _option, typed: [name for name in OBJECTIVES if name.startswith(typed)],
    help=f"{', '.join(OBJECTIVES)}, or a scikit-learn scorer such as balanced_accuracy.  [log_loss; squared_error]",
)
@click.option("--max-fpr", type=float, default=0.05, show_default=True, help="The conservative objective's bound.")
@click.option(
    "--evidence",
    type=float,
    default=1.96,
    show_default=True,
    help="Standard errors by which the memory must be better to be used; a negative number: any gain.",
)
@click.option("--k", type=shared.NUMBERS, help="Neighbours to try, such as 1,10,50 (0, the base, always competes).")
@click.option("--sigma", type=shared.NUMBERS, help="Kernel widths to try.")
@click.option("--temperature", type=shared.NUMBERS, help="Softmax temperatures to try.")
@click.option("--lmbda", type=shared.NUMBERS, help="Shares of the neighbours to try (knnlm).")
@click.option("--grid", help="Values to try of any other parameter.", **GRID)
@click.option("--kernel", type=shared.KERNEL, metavar="NAME", help="The reader's own when left out.")
@click.option("--space", type=click.Choice(shared.SPACES), help="Where residuals are added (resmem).")
@click.option("--adaptive", type=click.IntRange(min=2), help="A share per bucket of distance, so many (knnlm).")
@click.option("--skip", type=float, help="Skip searches for at most this loss of perplexity, such as 0.005.")
@click.option("--budget", type=float, help="The quickest setting for at most this loss of perplexity, such as 0.01.")
@click.option("--cache", is_flag=True, help="Text: then tune a continuous cache on top.")
@click.option("--max-tokens", type=shared.AT_LEAST_1, help="Text: use only the first so many.")
@shared.device_and_json
def tune(memory: Path, validation, text, reader, objective, max_fpr, kernel, space, device, as_json: bool, **options):
    """Choose k, sigma, temperature (and lmbda) on validation data; or fit one that is fitted (pooled, gated, ranpac).

    VALIDATION are encoded .npz files, and their rows must not be in the memory; a memory of text takes --text, and
    leaves documents that it remembers out by itself. The best reader is saved into the memory's folder, where
    evaluate, explain and generate find it. Without VALIDATION these are fitted on the memory's own rows.

    \b
    Examples:
      residua tune mem/ val.npz
      residua tune mem/ val.npz --reader knnlm --objective accuracy
      residua tune mem/ --reader pooled
      residua tune mem/ --text validation/ --adaptive 64 --skip 0.005
    """
    own_rows = reader in FITTED and not (text or validation or options["max_tokens"])
    of_text = None
    if not own_rows:
        of_text = shared.text_or_files(text, validation, "VALIDATION", text_only=("cache", "max_tokens"))
    opened = memory_at(memory, device, of_text=of_text, files=validation)
    of_text = opened.schema.is_text
    from residua.readers import ContinuousCache
    from residua.readers.reader import reader_class
    from residua.tuning import tune as choose

    cls = reader_class(reader or usual_reader(of_text))
    own = {"kernel": kernel, "space": space}
    own = {name: value for name, value in own.items() if value is not None and name in cls.parameter_names()}
    grid = {name: options[name] for name in ("k", "sigma", "temperature", "lmbda") if options[name] is not None}
    grid |= options["grid"]
    rows = Counted([] if own_rows else data_for(opened, memory, validation, text, options), options["max_tokens"])
    asked = {"objective": objective, "max_fpr": max_fpr, "adaptive": options["adaptive"], "skip": options["skip"]}
    asked["budget"] = options["budget"]
    asked["evidence"] = None if options["evidence"] < 0 else options["evidence"]
    asked["progress"] = progress()
    if (fit := getattr(cls(opened, **own), "fit", None)) is not None:
        tunes = objective, options["adaptive"], options["skip"], options["budget"]
        if grid or options["cache"] or tunes != (None,) * 4:
            raise click.UsageError(
                f"{cls.__name__} is fitted, and has no grid: only --evidence and --kernel are its own"
            )
        how = {"evidence": asked["evidence"], "progress": asked["progress"]}
        best = _on_own_rows(cls(opened, **own), memory, options, how) if own_rows else fit(rows, **how)
        seen, kind = (best.evidence_.rows, "remembered row") if own_rows else (rows.rows, "validation row")
        about = best.to_json() | {"rows": seen, "evidence": asdict(best.evidence_)}
        _save(best, memory)
        said = f"{cls.__name__}: fitted on {count(seen, kind)}\n  {best.evidence_}\nsaved in "
        report(about, f"{said}{memory}", as_json, [next_step(memory, of_text)])
        return
    best = choose(cls(opened, **own), rows, grid or None, **asked)
    about, lines = _found(best, best.results_["k"] == 0, rows, objective)
    about["evidence"] = asdict(best.evidence_)
    lines.insert(-1 if lines[-1] == NO_HELP else len(lines), f"  {best.evidence_}")
    about["adaptive"], about["skipped"] = getattr(best, "adaptive_", None), getattr(best, "skipped_", None)
    if about["adaptive"]:
        fixed, adapted = about["adaptive"]["fixed"], about["adaptive"]["adaptive"]
        lines.append(
            f"  a share by distance: {'used' if adapted < fixed else 'not used'}; perplexity {adapted:.4g}, and "
            f"{fixed:.4g} with one share for all, on the half of the data it was not fitted on"
        )
    if about["skipped"] is not None:
        threshold = shown({"skip": best.params["skip"]}) or "none"
        lines.append(f"  skipping ({threshold}) saves {about['skipped']:.1%} of the searches")
    about["costs"] = costs = getattr(best, "costs_", None)
    if costs:
        lines.append(
            f"  a row takes {1e6 * costs[best.k]:.0f} µs at k={best.k}, {1e6 * costs[max(costs)]:.0f} at k={max(costs)}"
        )
    if options["cache"]:
        best = choose(ContinuousCache(best), rows, evidence=asked["evidence"], progress=asked["progress"])
        about["cache"], more = _found(best, best.results_["lmbda"] == 0, rows)
        about["cache"]["evidence"] = asdict(best.evidence_)
        lines += [*more, f"  {best.evidence_}"]
    _save(best, memory)
    report(about, "\n".join([*lines, f"saved in {memory}"]), as_json, [next_step(memory, of_text)])


def _on_own_rows(reader, path: Path, options: dict, how: dict):
    """A reader fitted on what its memory remembers, each row or document as if it were not remembered."""
    if not reader.memory.schema.is_text:
        return reader.fit(**how)
    from residua.cli.language import model_of
    from residua.lm import fit

    model, tokenizer = model_of(reader.memory, path, options["model"], options["dtype"])
    return fit(model, tokenizer, reader, **how)


def _save(best, memory: Path) -> None:
    """Save a reader with its memory as that is now: tuning takes long, and others edit meanwhile."""
    from residua.memory.lock import locked

    with locked(memory):
        best.memory.refresh()
        best.save(memory)


def _found(best, without, seen, asked=None) -> tuple[dict, list[str]]:
    """What a sweep chose, for machines and for people; `without` marks the settings that do not use what was tuned."""
    results, name = best.results_, type(best).__name__
    objective = next((one for one in ("squared_error", "log_loss", "accuracy") if one in results), asked)
    if objective == "accuracy" and not (results["score"] == results["accuracy"]).all():
        objective = "conservative"
    # The base at every temperature: what the memory had to beat.
    base, score = float(results["score"][without].max()), best.best_score_
    about = {"reader": name, "params": best.to_json()["params"], "objective": objective, "score": score}
    about |= {"base_score": base, "settings": len(results["score"]), "rows": seen.rows}
    about["documents"] = len(seen.groups) or None
    measure, figures = MEASURES.get(str(objective), str(objective)), (f"{abs(base):.4g}", f"{abs(score):.4g}")
    if objective == "log_loss":
        about |= {"perplexity": math.exp(-score), "base_perplexity": math.exp(-base)}
    if best.memory.schema.objective == "log_loss" == objective:
        measure, figures = "perplexity", (f"{about['base_perplexity']:.4g}", f"{about['perplexity']:.4g}")
    alone = "the reader under it" if hasattr(best, "over") else "the model alone (k=0)"
    where = count(seen.rows, "validation row") + (f" of {count(len(seen.groups), 'document')}" if seen.groups else "")
    lines = [
        f"{name}: {about['settings']:,} settings compared by {measure} on {where}",
        f"  best: {shown(best.best_params_)}",
        f"  {figures[0]} for {alone}, {figures[1]} for the best",
    ]
    if not score > base:
        lines.append("  the cache does not help here: its share is 0" if hasattr(best, "over") else NO_HELP)
    return about, lines
