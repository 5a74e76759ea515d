"""How much is said beside the result: ``-q``, ``-v``, one meaning for every verb."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from residua.printable import one_line

_SAID = "residua.verbosity"  # in the context's meta, which a verb shares with the group


def _choose(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and ctx.meta.setdefault(_SAID, param.name) != param.name:
        raise click.UsageError("-q and -v exclude each other")


# Before a verb or after it: `residua -q tune ...` is `residua tune ... -q`.
_FLAG = {"is_flag": True, "expose_value": False, "callback": _choose}
QUIET = click.Option(["-q", "--quiet"], help="Print results only.", **_FLAG)
VERBOSE = click.Option(["-v", "--verbose"], help="Say what was decided, too.", **_FLAG)


def _is(flag: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(_SAID) == flag


def is_quiet() -> bool:
    """Whether only results are wanted: no hints, notes or progress. Warnings and errors are always said."""
    return _is("quiet")


def progress() -> bool | None:
    """What the library is told of progress bars: none when quiet, else what it does by itself, on a terminal."""
    return False if is_quiet() else None


def note(text: str) -> None:
    """Say something beside the result, on stderr."""
    if not is_quiet():
        click.echo(one_line(text), err=True)


class _OnStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING or _is("verbose"):
            click.echo(one_line(record.getMessage()), err=True)


@contextmanager
def log_shown() -> Iterator[None]:
    """Within the block the log is shown: its warnings, and with ``-v`` all that is decided, and at the end the time."""
    start, log, handler = time.perf_counter(), logging.getLogger("residua"), _OnStderr()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
        log.info("%.1f seconds", time.perf_counter() - start)
    finally:
        log.setLevel(before)
        log.removeHandler(handler)
