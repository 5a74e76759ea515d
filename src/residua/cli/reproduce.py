"""``residua reproduce NAME``: a published table or figure, measured again, *paper* beside *ours*."""

import sys
from pathlib import Path

import click

from residua.cli.options import FILE, Listed
from residua.cli.output import say
from residua.papers.registry import MODULES, load


class Reproductions(click.Group):
    """One command per reproduction, listed without importing any of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*MODULES, *self.commands]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return OneReproduction(name, MODULES[name][1]) if name in MODULES else super().get_command(ctx, name)


class OneReproduction(click.Command):
    """Its options are the reproduction's own, read when they are needed."""

    def __init__(self, name: str, help: str):
        out = click.Option(["--out"], type=FILE, default="results", show_default=True, help="Folder to write into.")
        label = click.Option(["--label"], default="", help="Write NAME-LABEL.json and so on, beside another run's.")
        fresh = click.Option(["--fresh"], is_flag=True, help="Start over, whatever a stopped run left.")
        super().__init__(name, callback=_run, help=help, params=[out, label, fresh])

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = load(self.name).options.items()
        return [*(_option(name, option) for name, option in own), *super().get_params(ctx)]


@click.group(cls=Reproductions)
def reproduce() -> None:
    """Measure a published table or figure again, and print the paper beside ours.

    Writes NAME.json, NAME.md and NAME.png. A run that is stopped goes on from its last finished cell when the same
    command is given again.
    """


@reproduce.command()
@click.option("--results", type=FILE, default="results", show_default=True, help="Folder of NAME.json.")
@click.option("-o", "--out", type=FILE, default="docs/results.md", show_default=True, help="The page.")
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


def _option(name: str, option) -> click.Option:
    default = option.default
    if isinstance(default, tuple):
        one, shown = type(default[0]), ",".join(map(str, default))
        what = f"{one.__name__} values with commas between them"
        kind = Listed(lambda text: one(text.strip()), "value", what, tuple)
    else:
        kind, shown = click.Choice(option.choices) if option.choices else type(default), str(default)
    help = f"{option.help} [default: {shown}]"
    return click.Option([f"--{name.replace('_', '-')}"], type=kind, default=None, help=help)
