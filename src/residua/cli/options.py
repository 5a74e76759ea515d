"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from residua.cli.language import DTYPES

# Click shows choices without importing the rooms that define them; a test holds the two equal.
READERS = ("resmem", "knnlm")
KERNELS = ("exponential", "gaussian")
SPACES = ("probabilities", "logits")
ERRORS = ("strict", "replace")

FILE = click.Path(path_type=Path)
FOUND = click.Path(path_type=Path, exists=True)

memory_argument = click.argument("memory", type=click.Path(path_type=Path), metavar="MEMORY")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Numbers(click.ParamType):
    """Numbers with commas between them; whole ones become int."""

    name = "number[,number...]"

    def convert(self, value, param, ctx) -> list[int | float]:
        """The numbers in `value`."""
        if isinstance(value, list):
            return value
        try:
            return [_number(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 10,20,50", param, ctx)


NUMBERS = Numbers()


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _device(ctx, param, value: str) -> str:
    if value != "cpu":  # torch is imported only when it must be asked
        import torch

        try:
            torch.empty(0, device=value)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise click.BadParameter(f"{value!r} cannot be used: {str(error).splitlines()[0]}") from error
    return value


device_option = click.option(
    "--device",
    default="cpu",
    show_default=True,
    callback=_device,
    help="Where to search and run models, such as cuda.",
)


def together(*options):
    """One decorator of several options."""

    def add(command):
        for option in reversed(options):
            command = option(command)
        return command

    return add


_READER = (
    click.option("--reader", type=click.Choice(READERS), help="Use this reader, not the tuned one."),
    click.option("--k", type=click.IntRange(min=0), help="Its neighbours."),
    click.option("--sigma", type=float, help="Its kernel width."),
    click.option("--lmbda", type=float, help="The neighbours' share (knnlm)."),
    click.option("--kernel", type=click.Choice(KERNELS), help="Its kernel."),
    click.option("--space", type=click.Choice(SPACES), help="Where residuals are taken (resmem)."),
    click.option("--gate", type=float, help="Do not search where the model is at least this sure, such as 0.9."),
    click.option("--cache-window", type=click.IntRange(min=1), help="Continuous cache: how many tokens back it looks."),
    click.option("--cache-theta", type=float, help="Continuous cache: its sharpness."),
    click.option("--cache-lmbda", type=float, help="Continuous cache: its share. Any of the three puts it on top."),
)
_TEMPERATURE = click.option("--temperature", type=float, help="Its softmax temperature.")

# Options that describe a reader in place of the tuned one; they arrive as ``reader`` and its parameters.
reader_options = together(*_READER[:3], _TEMPERATURE, *_READER[3:])
generating_reader_options = together(*_READER)  # there, --temperature is what the text is sampled at

model_options = together(
    click.option("--model", "model", help="The language model: a folder, a hub name, or module:factory."),
    click.option("--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="The model's."),
)

text_options = together(
    click.option("--text", "text", multiple=True, type=FOUND, help="A text file, or a folder of them; repeatable."),
    click.option("--glob", default="**/*", show_default=True, help="Which files of a folder, such as '**/*.py'."),
    click.option(
        "--errors",
        type=click.Choice(ERRORS),
        default="strict",
        show_default=True,
        help="Of bytes that are not UTF-8: refuse, or read U+FFFD.",
    ),
    click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Texts at a time."),
    model_options,
)
TEXT_ONLY = ("model", "dtype", "glob", "errors", "batch_size")


def text_or_files(text: tuple, files: tuple, metavar: str, text_only: tuple = (), files_only: tuple = ()) -> bool:
    """Whether a verb was given text and not encoded files; options of the other form are refused.

    Raises
    ------
    click.UsageError
        When it was given both or neither, or an option that is not for what it was given.
    """
    if bool(text) == bool(files):
        raise click.UsageError(f"expected either --text PATH or {metavar} (encoded .npz files)")
    folder = next((file for file in files if file.is_dir()), None)
    if folder:
        raise click.UsageError(f"{folder} is a folder; text is given with --text {folder}")
    context = click.get_current_context()
    for name in files_only if text else (*TEXT_ONLY, *text_only):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"--{name.replace('_', '-')} is not for {'--text' if text else 'encoded .npz files'}"
            )
    return bool(text)
