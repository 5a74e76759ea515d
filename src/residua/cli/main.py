"""The ``residua`` command: its verbs, and how it fails."""

import io
import re
import sys
import warnings
from difflib import get_close_matches

import click

from residua import __version__
from residua.cli.audit import audit
from residua.cli.build import build
from residua.cli.demo import demo
from residua.cli.documents import update
from residua.cli.edit import add, forget, purge, relabel
from residua.cli.encode import encode
from residua.cli.evaluate import evaluate
from residua.cli.explain import explain
from residua.cli.generate import generate
from residua.cli.history import log, undo
from residua.cli.info import info
from residua.cli.inspect import inspect
from residua.cli.lm_eval import lm_eval
from residua.cli.loaders import imported
from residua.cli.report import report
from residua.cli.serve import serve
from residua.cli.tune import tune
from residua.cli.verbosity import QUIET, VERBOSE, log_shown
from residua.cli.verify import compact, verify
from residua.errors import ResiduaError
from residua.printable import one_line

IMPORT = "Import it first: your own readers and engines."
INTERRUPTED = 130  # 128 + SIGINT, as shells expect
ELSEWHERE = {"reproduce": "the papers' tables are measured again from a checkout of residua: make reproduce NAME=..."}


class Verbs(click.Group):
    """A group in which what residua raises on purpose is one line on stderr, and Ctrl-C is no failure of its own."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.params += [QUIET, VERBOSE]

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """A verb, with the options that all of them have."""
        cmd.params += [QUIET, VERBOSE]
        super().add_command(cmd, name)

    def resolve_command(self, ctx: click.Context, args: list[str]):
        """The verb that is meant; one that is not there is said with those that are called nearly so."""
        name = args[0]
        if name in self.commands or name.startswith("-"):
            return super().resolve_command(ctx, args)
        near = " or ".join(f"'residua {verb}'" for verb in get_close_matches(name, self.commands, n=2))
        hint = ELSEWHERE.get(name) or (f"did you mean {near}?" if near else "'residua --help' lists the verbs")
        raise click.UsageError(f"No such command {name!r}: {hint}", ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of the journey, not of the alphabet."""
        return list(self.commands)

    def invoke(self, ctx: click.Context):
        def worded(message) -> str:
            return one_line(f"{message}{option_hint(str(message), ctx.invoked_subcommand)}")

        with warnings.catch_warnings(), log_shown():
            warnings.showwarning = lambda message, *_: click.echo(f"Warning: {worded(message)}", err=True)
            try:
                return super().invoke(ctx)
            except ResiduaError as error:
                raise click.ClickException(worded(error)) from error
            except PermissionError as error:
                what = f"no permission for {error.filename}; expected a path of your own"
                raise click.ClickException(what) from error

    def main(self, *args, standalone_mode: bool = True, **extra):
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a letter gets its escape
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except click.ClickException as error:
            if isinstance(error, click.UsageError) and error.ctx is not None:
                how = f"Try '{error.ctx.command_path} --help' for help."
                click.echo(f"{error.ctx.get_usage()}\n{how}\n", err=True)
            click.echo(f"Error: {one_line(error.format_message())}", err=True)
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("Interrupted.", err=True)
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="residua")
@click.option("--import", "modules", multiple=True, metavar="MODULE", help=IMPORT)
def main(modules: tuple[str, ...]) -> None:
    """An explicit memory for models you have already trained.

    encode, build, tune, evaluate and explain are the journey; add, update, forget, purge and relabel change a memory;
    log and undo say, and take back, what was done. A model, or data, is named module:factory: a function of your own,
    in a module of this folder or an installed one. Data may also be an .npz file. Language models need no encode:
    build, tune, evaluate and explain take --text, and generate shows what the memory does.
    """
    for module in modules:
        imported(module)


EDITING: tuple[click.Command, ...] = (add, update, forget, purge, relabel, log, undo)
_LOOKING = (explain, inspect, report, generate, serve, audit)
JOURNEY: tuple[click.Command, ...] = (demo, encode, build, tune, evaluate, lm_eval, *_LOOKING)
for verb in (*JOURNEY, *EDITING, info, verify, compact):
    main.add_command(verb)


def option_hint(message: str, verb: str | None) -> str:
    """Errors name Python parameters; this says which option is meant, of this verb or else of another one."""
    named = dict.fromkeys(re.findall(r"\b([a-z]\w*)=", message))
    for name, command in sorted(main.commands.items(), key=lambda item: item[0] != verb):  # its own come first
        options = (option for option in command.params if isinstance(option, click.Option))
        spelled = {option.name: max(option.opts, key=len) for option in options}
        found = ", ".join(spelled[parameter] for parameter in named if parameter in spelled)
        if found:
            where = found if name == verb else f"'residua {name}' with {found}"
            return f" (on the command line: {where})"
    return ""
