"""``residua reproduce NAME``: a published table or figure, measured again, *paper* beside *ours*."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from residua.cli.text import say

PAGE = "page"


class Reproductions(click.Group):
    """One command per reproduction, listed without importing any of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from residua.papers.registry import MODULES

        return [*MODULES, *self.commands]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        from residua.papers.registry import MODULES

        return OneReproduction(name, MODULES[name][1]) if name in MODULES else super().get_command(ctx, name)


class OneReproduction(click.Command):
    """Its options are the reproduction's own, read when they are needed."""

    def __init__(self, name: str, help: str):
        folder = click.Path(path_type=Path)
        out = click.Option(["--out"], type=folder, default="results", show_default=True, help="Folder to write into.")
        label = click.Option(["--label"], default="", help="Write NAME-LABEL.json and so on, beside another run's.")
        fresh = click.Option(["--fresh"], is_flag=True, help="Start over, whatever a stopped run left.")
        super().__init__(name, callback=_run, help=help, params=[out, label, fresh])

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from residua.papers.registry import load

        own = [_option(name, option) for name, option in load(self.name).options.items()]
        return [*own, *super().get_params(ctx)]


@click.group(cls=Reproductions)
def reproduce() -> None:
    """Measure a published table or figure again, and print the paper beside ours.

    Writes NAME.json, NAME.md and NAME.png. A run that is stopped goes on from its last finished cell when the same
    command is given again.
    """


@reproduce.command(PAGE)
@click.option(
    "--results", type=click.Path(path_type=Path), default="results", show_default=True, help="Folder of NAME.json."
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default="docs/results.md", show_default=True, help="The page."
)
def page(results: Path, out: Path) -> None:
    """Write one page of all results there are from their JSON files, and NAME.md and NAME.png again."""
    from residua.papers.page import write_page

    say(f"wrote {write_page(results, out)}")


def _run(out: Path, label: str, fresh: bool, **options) -> None:
    from residua.papers.record import markdown, reproduce, stem

    name = click.get_current_context().info_name
    try:
        record = reproduce(name, out, label=label, fresh=fresh, progress=sys.stderr.isatty(), **options)
    except KeyboardInterrupt:
        click.echo("Finished cells are saved: the same command goes on from there.", err=True)
        raise
    say(markdown(record).rstrip())
    say(f"\nwrote {out / stem(name, label)}.json, .md and .png")


class Values(click.ParamType):
    """Several values with commas between them, each like those of the default."""

    name = "value[,value...]"

    def __init__(self, one: type):
        self.one = one

    def convert(self, value, param, ctx) -> tuple:
        """The values in `value`."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.one(part.strip()) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of {self.one.__name__} values with commas between them", param, ctx)


def _option(name: str, option) -> click.Option:
    default = option.default
    if isinstance(default, tuple):
        kind, shown = Values(type(default[0])), ",".join(map(str, default))
    else:
        kind, shown = click.Choice(option.choices) if option.choices else type(default), str(default)
    return click.Option(
        [f"--{name.replace('_', '-')}"], type=kind, default=None, help=f"{option.help} [default: {shown}]"
    )
