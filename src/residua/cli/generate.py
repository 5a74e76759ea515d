"""``residua generate``: a text goes on without the memory, and with it."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import click

from residua.caution import warn
from residua.cli import options as shared
from residua.cli.data import prompt_of
from residua.cli.language import model_of, quiet
from residua.cli.output import command, report
from residua.cli.store import reader_at
from residua.errors import ParameterError
from residua.printable import count, short

LINES = 12  # of a long prompt, shown
ABOVE_0 = click.FloatRange(min=0, min_open=True)


@click.command()
@shared.memory_argument
@click.argument("prompt", required=False)
@click.option("--prompt-file", type=shared.FILE, help="A file with the prompt.")
@click.option("--max-new-tokens", type=shared.AT_LEAST_1, default=60, show_default=True, help="At most.")
@click.option("--temperature", type=ABOVE_0, help="Sample; below 1, likelier tokens more.")
@click.option("--top-k", type=shared.AT_LEAST_1, help="Sample from so many of the likeliest tokens.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Sample from the likeliest of this share.")
@click.option("--seed", type=click.IntRange(min=0), help="Sample, from this seed.  [0]")
@click.option("--beams", type=shared.AT_LEAST_1, default=1, show_default=True, help="Of beam search.")
@click.option("--base-only", "only", flag_value="base", help="Only without the memory.")
@click.option("--memory-only", "only", flag_value="memory", help="Only with the memory.")
@shared.generating_reader_options
@shared.model_options
@shared.device_and_json
def generate(memory: Path, prompt, prompt_file, only, reader, model, dtype, device, as_json: bool, **options) -> None:
    """Let the model go on from a prompt, without its memory and with it.

    The likeliest token is taken each time, unless --temperature, --top-k, --top-p or --seed says to sample.

    \b
    Examples:
      residua generate mem/ 'def main('
      residua generate mem/ --prompt-file start.py --temperature 0.8 --seed 3
    """
    text = prompt_of(prompt, prompt_file)
    own = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "beams")
    writing = {name: options.pop(name) for name in own}
    asked = reader_at(memory, reader, device, options, of_text=True)
    language, tokenizer = model_of(asked.memory, memory, model, dtype)
    write = writer(language, tokenizer, asked.memory, text, **writing)
    with quiet():
        found = {name: write(one) for name, one in (("base", None), ("memory", asked)) if only in (None, name)}
    words = ("--text", prompt) if prompt_file is None else ("--prompt-file", prompt_file)
    then = [command("explain", memory, *words, why="which memories decide what comes next")]
    report({"prompt": text, "reader": asked.to_json(), **found}, _shown(text, found, asked), as_json, then)


def writer(model, tokenizer, memory, prompt: str, *, max_new_tokens, beams, seed, **sampling) -> Callable[..., dict]:
    """A function that writes on from `prompt` with a reader, or with None; it begins as the memory's documents do.

    It gives ``text``, how many ``tokens`` that is, and ``tokens_per_second``, the prompt's own reading included. Any
    of `seed` and `sampling` (``temperature``, ``top_k``, ``top_p``) that is not None means sampling.
    """
    import torch

    from residua.encoding import prompt as as_remembered
    from residua.encoding.language_model import position_limit
    from residua.hooks import attach

    pairs = bool(model.config.is_encoder_decoder)
    tokens = as_remembered((model, tokenizer), prompt, like=memory)["input_ids"][0].tolist()
    if not pairs:
        tokens = _cut(tokens, max_new_tokens, position_limit(model))
    inputs = torch.tensor([tokens], device=model.device)
    sampling = {name: value for name, value in sampling.items() if value is not None}
    ends = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    options = {"num_beams": beams, "do_sample": bool(sampling) or seed is not None, **sampling}
    options["pad_token_id"] = next(token for token in ends if token is not None)

    def generated(most: int) -> list[int]:
        with torch.random.fork_rng():
            torch.manual_seed(seed or 0)
            made = model.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=most, **options)[0]
        return made[1 if pairs else len(tokens) :].tolist()

    def write(reader=None) -> dict:
        with nullcontext() if reader is None else attach(model, reader):
            generated(1)  # what is made once (caches, an exact index's sums) is not the text's time
            start = time.perf_counter()
            new = generated(max_new_tokens)
            seconds = time.perf_counter() - start
        text = tokenizer.decode(new, skip_special_tokens=True)
        return {"text": text, "tokens": len(new), "tokens_per_second": len(new) / seconds}

    return write


def _cut(tokens: list[int], new: int, limit: int | None) -> list[int]:
    if limit is None or len(tokens) + new <= limit:
        return tokens
    if new >= limit:
        raise ParameterError(f"max_new_tokens={new}, and the model has {limit} positions; expected fewer")
    both = f"the prompt's {len(tokens)} tokens and {new} new ones"
    used = f"only its last {limit - new} tokens are used"
    warn(f"{both} are more than the model's {limit} positions: {used}")
    return tokens[new - limit :]


def _shown(prompt: str, found: dict[str, dict], reader) -> str:
    """Prompt and continuations, each under its heading, as they stand in the text."""
    *before, last = prompt.split("\n")
    started = [*(["..."] if len(before) >= LINES else []), *before[-LINES + 1 :], last]
    heads = {"base": "The model alone", "memory": f"With the memory, {short(reader)}"}
    blocks = [("The prompt", "\n".join(started))]
    for name, one in found.items():
        speed = f"{count(one['tokens'], 'token')}, {one['tokens_per_second']:.3g} per second"
        blocks.append((f"{heads[name]}: {speed}", last + one["text"].rstrip()))
    shown = [head + ("\n\n" + text.expandtabs(4)).replace("\n", "\n    ") for head, text in blocks]
    if len({one["text"] for one in found.values()}) < len(found):
        shown.append("Both are the same here.")
    return "\n\n".join(shown)
