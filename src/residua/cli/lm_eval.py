"""``residua lm-eval``: a language model with and without its memory, on lm-evaluation-harness's tasks."""

import contextlib
import sys
from pathlib import Path

import click

from residua.cli.language import model_of
from residua.cli.loaders import needed
from residua.cli.options import AT_LEAST_1, FILE, device_and_json, memory_argument, model_options, reader_options
from residua.cli.output import command, report
from residua.cli.store import reader_at
from residua.errors import InputError


@click.command("lm-eval")
@memory_argument
@click.option("--tasks", required=True, metavar="NAME[,NAME...]", help="Tasks of the harness, or of --include-path.")
@click.option("--include-path", type=FILE, help="A folder of task definitions of your own (YAML).")
@click.option("--limit", type=AT_LEAST_1, help="Score only the first N examples of each task.")
@click.option("--num-fewshot", type=click.IntRange(min=0), help="Examples in the prompt; the task's own by default.")
@click.option("--batch-size", type=AT_LEAST_1, default=1, show_default=True, help="Examples at a time.")
@model_options
@reader_options
@device_and_json
def lm_eval(
    memory: Path, tasks, include_path, limit, num_fewshot, batch_size, model, dtype, reader, device, as_json, **params
):
    """Score lm-evaluation-harness tasks with the model alone and with its memory.

    \b
    Examples:
      residua lm-eval mem/ --tasks arc_easy,lambada_openai --limit 100
      residua lm-eval mem/ --model model/ --tasks mine --include-path tasks/
    """
    needed("lm_eval", "residua lm-eval", "lm-eval")
    if include_path is not None and not include_path.is_dir():
        raise InputError(f"--include-path: {str(include_path)!r} is no folder; expected the one with the tasks' YAML")
    chosen = reader_at(memory, reader, device, params, of_text=True)
    from residua.hooks.lm_eval import ResiduaLM, compare, quiet

    network, tokenizer = model_of(chosen.memory, memory, model, dtype)
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    # The harness may print, and standard output is for the result.
    with quiet(), contextlib.redirect_stdout(sys.stderr):
        lm = ResiduaLM(network, chosen, tokenizer=tokenizer, batch_size=batch_size)
        scores = compare(lm, names, include_path=include_path, limit=limit, num_fewshot=num_fewshot)
    then = [command("generate", memory, "a prompt", why="what the memory does to a text")]
    report({"tasks": scores, "reader": chosen.to_json(), "limit": limit}, _table(scores, repr(chosen)), as_json, then)


def _table(scores: dict, reader: str) -> str:
    from residua.evaluation.cells import aligned

    def cell(found: dict, side: str) -> str:
        error = found[f"{side}_stderr"]
        return f"{found[side]:.4f}" + ("" if error is None else f" ± {error:.4f}")

    rows = [("", "base", "memory", "change")]
    for task, metrics in scores.items():
        for metric, found in metrics.items():
            direction = {True: " (higher is better)", False: " (lower is better)"}.get(found["higher_is_better"], "")
            change = f"{found['memory'] - found['base']:+.4g}"
            rows.append((f"{task} {metric}{direction}", cell(found, "base"), cell(found, "memory"), change))
    return f"{reader}\n\n{aligned(rows)}"
