"""``python -m experiments NAME``: measure a published table or figure again, and print the paper beside ours."""

import ast
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import click

from experiments import NAMES
from residua.cli.options import FILE, Listed
from residua.errors import ResiduaError

INTERRUPTED = 130  # 128 + SIGINT, as shells expect


class Experiments(click.Group):
    """One command per experiment, listed without importing any of them.

    What residua raises on purpose is one line on stderr.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NAMES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return Experiment(name) if name in NAMES else None

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except ResiduaError as error:
            raise click.ClickException(noted(str(error), error)) from error
        except KeyboardInterrupt as error:
            click.echo(noted("Interrupted.", error), err=True)
            sys.exit(INTERRUPTED)


class Experiment(click.Command):
    """Its options are the parameters of its ``measure``, read when they are needed."""

    def __init__(self, name: str):
        out = click.Option(["--out"], type=FILE, default="results", show_default=True, help="Folder to write into.")
        label = click.Option(["--label"], default="", help="Write NAME-LABEL.json and so on, beside another run's.")
        fresh = click.Option(["--fresh"], is_flag=True, help="Start over, whatever a stopped run left.")
        super().__init__(name, callback=measured, help=first_line(name), params=[out, label, fresh])

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from experiments.runner import load  # here and below: a list or a help text needs no torch

        measure = load(self.name).measure
        _, *own = inspect.signature(measure).parameters.values()
        said = described(inspect.getdoc(measure) or "")
        return [*(option(one, said.get(one.name, "")) for one in own), *super().get_params(ctx)]


@click.group(cls=Experiments, invoke_without_command=True)
@click.option("--list", "listed", is_flag=True, help="Name the experiments, each with one line about it.")
@click.option("--pages", is_flag=True, help="Fill the tables of docs/results and draw the pictures again; run nothing.")
@click.pass_context
def main(context: click.Context, listed: bool, pages: bool) -> None:
    """Measure a published table or figure again, and print the paper beside ours.

    Writes NAME.json and NAME.png. A run that is stopped goes on from its last finished cell when the same command is
    given again.
    """
    if pages:
        from experiments.pages import refill

        for path in refill():
            click.echo(f"wrote {path}")
    elif listed:
        for name in NAMES:
            click.echo(f"{name:{max(map(len, NAMES))}}  {first_line(name)}")
    elif context.invoked_subcommand is None:
        click.echo(context.get_help())


def measured(out: Path, label: str, fresh: bool, **options) -> None:
    """Run the experiment that was named, and print its tables."""
    from experiments.pages import blocks
    from experiments.runner import run, stem

    name = click.get_current_context().info_name
    record = run(name, out, label=label, fresh=fresh, progress=sys.stderr.isatty(), **options)
    for title, block in blocks(record).items():
        click.echo(f"{title}\n\n{block}\n")
    click.echo(f"wrote {out / stem(name, label)}.json and .png")


def noted(words: str, error: BaseException) -> str:
    """`words`, and under them the notes of an error."""
    return "\n".join([words, *getattr(error, "__notes__", [])])


def option(parameter: inspect.Parameter, help: str) -> click.Option:
    """The command-line option of one parameter: its type from the annotation, such as ``tuple[int, ...]``."""
    flag = f"--{parameter.name.replace('_', '-')}"
    default, kind = parameter.default, parameter.annotation
    if kind is bool:
        return click.Option([flag], is_flag=True, default=default, help=help)
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    if get_origin(kind) is tuple:
        one = get_args(kind)[0]
        what = f"{one.__name__} values with commas between them"
        kind = Listed(lambda text: one(text.strip()), one.__name__, what, tuple)
    elif get_origin(kind) is Literal:
        kind = click.Choice(get_args(kind))
    return click.Option([flag], type=kind, default=default, help=f"{help} [default: {shown}]".strip())


def described(docstring: str) -> dict[str, str]:
    """The first line of each parameter's description in a numpydoc docstring.

    Examples
    --------
    >>> described("Run.\\n\\nParameters\\n----------\\nk : int\\n    Neighbours.\\n    Many.\\nn, m : int\\n    Sizes.")
    {'k': 'Neighbours.', 'n': 'Sizes.', 'm': 'Sizes.'}
    """
    found = re.findall(r"^(\w[\w, ]*) : .*\n    (.*)", docstring, re.MULTILINE)
    return {name: words.strip() for names, words in found for name in names.split(", ")}


def first_line(name: str) -> str:
    """The first line of an experiment's docstring, without importing it."""
    source = Path(importlib.util.find_spec(f"experiments.{name}").origin).read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)).splitlines()[0]


if __name__ == "__main__":
    main(prog_name="python -m experiments")
