"""``residua generate``: a text goes on without the memory, and with it."""

from __future__ import annotations

from pathlib import Path

import click

from residua.cli.options import (
    FILE,
    device_option,
    generating_reader_options,
    json_option,
    memory_argument,
    model_options,
)
from residua.cli.text import count, described, report

LINES = 12  # of a long prompt, shown


@click.command()
@memory_argument
@click.argument("prompt", required=False)
@click.option("--prompt-file", type=FILE, help="A file with the prompt.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=60, show_default=True, help="At most.")
@click.option(
    "--temperature", type=click.FloatRange(min=0, min_open=True), help="Sample; below 1, likelier tokens more."
)
@click.option("--top-k", type=click.IntRange(min=1), help="Sample from so many of the likeliest tokens.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Sample from the likeliest of this share.")
@click.option("--seed", type=click.IntRange(min=0), help="Sample, from this seed.  [0]")
@click.option("--beams", type=click.IntRange(min=1), default=1, show_default=True, help="Of beam search.")
@click.option("--base-only", "only", flag_value="base", help="Only without the memory.")
@click.option("--memory-only", "only", flag_value="memory", help="Only with the memory.")
@generating_reader_options
@model_options
@device_option
@json_option
def generate(memory: Path, prompt, prompt_file, only, reader, model, dtype, device, as_json: bool, **options) -> None:
    """Let the model go on from a prompt, without its memory and with it.

    The likeliest token is taken each time, unless --temperature, --top-k, --top-p or --seed says to sample.

    \b
    residua generate mem/ 'def main('
    residua generate mem/ --prompt-file start.py --temperature 0.8 --seed 3
    """
    from residua.cli.language import model_of, quiet
    from residua.cli.opened import reader_at
    from residua.cli.texts import prompt_of
    from residua.cli.writing import Writer

    text = prompt_of(prompt, prompt_file)
    own = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "beams")
    writing = {name: options.pop(name) for name in own}
    asked = reader_at(memory, reader, device, options, of_tokens=True)
    language, tokenizer = model_of(asked.memory, memory, model, dtype)
    writer = Writer(language, tokenizer, asked.memory, text, **writing)
    with quiet():
        found = {
            name: writer(asked if name == "memory" else None) for name in ("base", "memory") if only in (None, name)
        }
    about = {"prompt": text, "reader": asked.to_json(), **found}
    report(about, _shown(text, found, asked), as_json)


def _shown(prompt: str, found: dict[str, dict], reader) -> str:
    """Prompt and continuations, each under its heading, as they stand in the text."""
    *before, last = prompt.split("\n")
    started = [*(["..."] if len(before) >= LINES else []), *before[-LINES + 1 :], last]
    heads = {"base": "The model alone", "memory": f"With the memory, {described(reader)}"}
    blocks = [_block("The prompt", "\n".join(started))]
    for name, one in found.items():
        speed = f"{count(one['tokens'], 'token')}, {one['tokens_per_second']:.3g} per second"
        blocks.append(_block(f"{heads[name]}: {speed}", last + one["text"].rstrip()))
    if len({one["text"] for one in found.values()}) < len(found):
        blocks.append("Both are the same here.")
    return "\n\n".join(blocks)


def _block(head: str, text: str) -> str:
    return "\n".join([head, "", *(f"    {line}" for line in text.expandtabs(4).split("\n"))])
