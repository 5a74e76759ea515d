"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path

import click

from residua.errors import MemoryFileError, ParameterError

# Click shows choices without importing the rooms that define them; a test holds the two equal.
READERS = ("resmem", "knnlm")
KERNELS = ("exponential", "gaussian")
SPACES = ("probabilities", "logits")

FILE = click.Path(path_type=Path)

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
    "--device", default="cpu", show_default=True, callback=_device, help="Where to search, such as cuda."
)


def reader_options(command):
    """Options that describe a reader in place of the tuned one; they arrive as ``reader`` and its parameters."""
    for option in reversed(
        (
            click.option("--reader", type=click.Choice(READERS), help="Use this reader, not the tuned one."),
            click.option("--k", type=click.IntRange(min=0), help="Its neighbours."),
            click.option("--sigma", type=float, help="Its kernel width."),
            click.option("--temperature", type=float, help="Its softmax temperature."),
            click.option("--lmbda", type=float, help="The neighbours' share (knnlm)."),
            click.option("--kernel", type=click.Choice(KERNELS), help="Its kernel."),
            click.option("--space", type=click.Choice(SPACES), help="Where residuals are taken (resmem)."),
        )
    ):
        command = option(command)
    return command


def reader_of(path: Path, name: str | None, device: str, params: dict):
    """The reader saved beside the memory in folder `path`; with a `name`, a new one with these parameters.

    Raises
    ------
    MemoryFileError
        When there is no memory, or no saved reader and no name.
    ParameterError
        When parameters come without a name, or are not that reader's.
    """
    from residua.memory import Memory
    from residua.read import load
    from residua.read.load import READERS as CLASSES
    from residua.read.reader import FILE as SAVED

    given = {parameter: value for parameter, value in params.items() if value is not None}
    if name is None:
        if given:
            options = ", ".join(f"--{parameter}" for parameter in given)
            raise ParameterError(f"{options} given without a reader; name the one they describe with --reader resmem")
        if path.is_dir() and not (path / SAVED).exists():
            memory = Memory.load(path)
            raise MemoryFileError(
                f"{path} holds {len(memory)} rows and no tuned reader; run 'residua tune {path} VALIDATION.npz' "
                "first, or name a reader with --reader resmem"
            )
        return load(path, device)
    classes = {cls.__name__.lower(): cls for cls in CLASSES.values()}
    unknown = set(given) - set(classes[name].names)
    if unknown:
        raise ParameterError(f"--reader {name} has no {', '.join(f'--{parameter}' for parameter in sorted(unknown))}")
    return classes[name](Memory.load(path, device), **given)
