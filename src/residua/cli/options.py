"""Arguments and options that several verbs share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click import Choice, IntRange, option
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from residua.cli.language import DTYPES

# Click shows choices without importing the rooms that define them; a test holds the two equal.
SPACES = ("probabilities", "exponent")
ERRORS = ("strict", "replace", "skip")
# Those made of a memory alone: a cache is put on top by its own options; students and edits are made in Python.
READERS = ("resmem", "knnlm", "pooled", "gated", "ranpac")
KERNELS = ("exponential", "gaussian")

FILE = click.Path(path_type=Path)
AT_LEAST_1 = IntRange(min=1)


class Registered(click.ParamType):
    """The name of a `kind` of thing: one of `known`, or one's own where ``--import`` has brought modules."""

    name: str
    known: tuple[str, ...]

    def __init__(self, kind: str, known: tuple[str, ...]):
        self.name, self.known = kind, known

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, if it can be one."""
        if value.lower() in self.known:
            return value.lower()
        if not has_imports(ctx):
            expected = f"expected {', '.join(self.known)}, or your own: residua --import MODULE VERB ..."
            self.fail(f"there is no {self.name} {value!r}; {expected}", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The known ones that begin so."""
        return [CompletionItem(name) for name in self.known if name.startswith(incomplete)]


def has_imports(ctx: click.Context | None) -> bool:
    """Whether modules were named with ``--import``, which may have registered anything."""
    return ctx is not None and bool(ctx.find_root().params.get("modules"))


READER: Registered = Registered("reader", READERS)
KERNEL: Registered = Registered("kernel", KERNELS)


class Listed(click.ParamType):
    """Values with commas between them, each read by `one`: a list, or whatever `made` makes."""

    one: Callable[[str], Any]
    name: str
    what: str
    made: Callable[[Iterable[Any]], Any]

    def __init__(self, one: Callable[[str], Any], name: str, what: str, made: Callable[[Iterable[Any]], Any] = list):
        self.one, self.name, self.what, self.made = one, f"{name}[,{name}...]", what, made

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The values in `value`."""
        try:
            return self.made(map(self.one, value.split(","))) if isinstance(value, str) else value
        except ValueError:
            self.fail(f"{value!r} is not a list of {self.what}", param, ctx)


def number(text: str) -> int | float:
    """The number that `text` is, whole ones as int; ``ValueError`` when it is none."""
    try:
        return int(text)
    except ValueError:
        return float(text)


NUMBERS: Listed = Listed(number, "number", "numbers such as 10,20,50")


def named_values(ctx, param, items: tuple[str, ...]) -> dict[str, list]:
    """``NAME=VALUE[,VALUE...]`` options as a dictionary; values are numbers where they look like some."""
    found = {}
    for item in items:
        name, _, text = item.partition("=")
        if not (name and text):
            raise click.BadParameter(f"{item!r} is not NAME=VALUE, such as beta=0.5")
        found[name] = [_number_or_word(part) for part in text.split(",")]
    return found


def _number_or_word(text: str) -> int | float | str:
    try:
        return number(text)
    except ValueError:
        return text


def _device(ctx, param, value: str) -> str:
    if value != "cpu":  # torch is imported only when it must be asked
        import torch

        try:
            torch.empty(0, device=value)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise click.BadParameter(f"{value!r} cannot be used: {str(error).splitlines()[0]}") from error
    return value


def together(*options):
    """One decorator of several options."""

    def add(command):
        for one in reversed(options):
            command = one(command)
        return command

    return add


def _folders(ctx, param, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="dir")]


def _of_the_verb(name: str, help: str, **how: Any) -> tuple[Callable, Callable[[], Any]]:
    """An option (a flag, if `how` says no other) that no verb takes as an argument, and what opens a memory asks
    for it."""
    key = f"residua.{name}"  # in the context's meta

    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        ctx.meta[key] = value

    def given() -> Any:
        context = click.get_current_context(silent=True)
        return nothing if context is None else context.meta.get(key, nothing)

    how, nothing = how or {"is_flag": True}, None if how else False
    return option(f"--{name}", expose_value=False, callback=keep, help=help, **how), given


trust_option, trusted = _of_the_verb("trust", "Also open index files that another user or machine wrote.")
_MAPPED, mapped = _of_the_verb("mmap", "Leave the memory's keys in their files: a memory larger than RAM.")
_PLACE = "Where the index is, of a memory whose index lies on a server: milvus://HOST:PORT/COLLECTION, "
_PLACE += "postgresql://HOST/DATABASE/COLLECTION; or another."
index_option, indexed = _of_the_verb("index", _PLACE, metavar="ADDRESS")
memory_argument = together(
    click.argument("memory", type=FILE, metavar="MEMORY", shell_complete=_folders),
    trust_option,
    index_option,
)
note_option = option("--note", "why", metavar="TEXT", help="What the log says of this edit.")
json_option = option("--json", "as_json", is_flag=True, help="Print JSON.")
_WHERE = "Where to search and run models, such as cuda."
_DEVICE = option("--device", default="cpu", show_default=True, callback=_device, help=_WHERE)
device_and_json = together(_DEVICE, json_option)

_OWN = {"multiple": True, "metavar": "NAME=VALUE", "callback": named_values}
_READER = (
    option("--reader", type=READER, metavar="NAME", help="Instead of the saved one: resmem, knnlm, or your own."),
    option("--k", type=IntRange(min=0), help="Its neighbours."),
    option("--sigma", type=float, help="Its kernel width."),
    option("--lmbda", type=float, help="The neighbours' share (knnlm)."),
    option("--kernel", type=KERNEL, metavar="NAME", help="Its kernel: exponential, gaussian, or your own."),
    option("--space", type=Choice(SPACES), help="Where residuals are added (resmem)."),
    option("--skip", type=float, help="Do not search where the model is at least this sure, such as 0.9."),
    option("--set", "own", help="Any other parameter of the reader.", **_OWN),
    _MAPPED,
    option("--cache-window", type=AT_LEAST_1, help="Continuous cache: how many tokens back it looks."),
    option("--cache-theta", type=float, help="Continuous cache: its sharpness."),
    option("--cache-lmbda", type=float, help="Continuous cache: its share. Any of the three puts it on top."),
)
# Options that describe a reader in place of the tuned one; they arrive as ``reader`` and its parameters.
_TEMPERATURE = option("--temperature", type=float, help="Its softmax temperature.")
reader_options = together(*_READER[:3], _TEMPERATURE, *_READER[3:])
generating_reader_options = together(*_READER)  # there, --temperature is what the text is sampled at

model_options = together(
    option("--model", "model", help="The language model: a folder, a hub name, or module:factory."),
    option("--dtype", type=Choice(DTYPES), default="auto", show_default=True, help="The model's."),
)

_FOUND = click.Path(path_type=Path, exists=True)
_UNREADABLE = "Of files that are not UTF-8: refuse, read U+FFFD, or leave out."
text_options = together(
    option("--text", "text", multiple=True, type=_FOUND, help="A text file, or a folder of them; repeatable."),
    option("--glob", default="**/*", show_default=True, help="Which files of a folder, such as '**/*.py'."),
    option("--hidden", is_flag=True, help="Also hidden files, and those that git ignores."),
    option("--errors", type=Choice(ERRORS), default="strict", show_default=True, help=_UNREADABLE),
    option("--batch-size", type=AT_LEAST_1, default=16, show_default=True, help="Texts at a time."),
    model_options,
)
READING = ("glob", "hidden", "errors")
TEXT_ONLY = ("model", "dtype", *READING, "batch_size")


def text_or_files(text: tuple, files: tuple, metavar: str, text_only: tuple = (), files_only: tuple = ()) -> bool:
    """Whether a verb was given text and not encoded files: never both, and no option of the other form."""
    if bool(text) == bool(files):
        raise click.UsageError(f"expected either --text PATH or {metavar} (encoded .npz files)")
    folder = next((file for file in files if file.is_dir()), None)
    if folder:
        raise click.UsageError(f"{folder} is a folder; text is given with --text {folder}")
    context, given = click.get_current_context(), "--text" if text else "encoded .npz files"
    for name in files_only if text else (*TEXT_ONLY, *text_only):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} is not for {given}")
    return bool(text)
