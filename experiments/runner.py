"""A run and what it leaves: ``NAME.json``, the record of all numbers, and ``NAME.png``, the picture."""

import contextlib
import inspect
import io
import json
import os
import re
import shlex
from importlib import import_module
from pathlib import Path
from types import ModuleType

from experiments import NAMES
from experiments.machine import machine
from experiments.work import Work
from residua import __version__
from residua.core.atomic import atomic_write
from residua.errors import MemoryFileError, MissingDependencyError, ParameterError
from residua.printable import plain

DIGITS = 6  # significant ones of every number that is kept
UNFINISHED = ".unfinished"  # folder of the finished cells of unfinished runs, inside the folder of results


def run(
    name: str,
    out: str | os.PathLike = "results",
    *,
    label: str = "",
    fresh: bool = False,
    progress: bool = False,
    **options,
) -> dict:
    """Run an experiment and write ``NAME.json`` and ``NAME.png`` into folder `out`: both, whole, or nothing.

    With a `label` (letters, digits, hyphens) they are ``NAME-LABEL.json`` and so on, beside those of another run.
    `options` are those of the experiment's ``measure``; its defaults are the published run. `progress` shows a bar.

    A run that fails leaves nothing. Only cells that were finished before it was stopped, by Ctrl-C, by a kill or by an
    error, are kept, in ``.unfinished/NAME.jsonl`` of that folder, which git ignores: the same call at the same commit
    goes on from there (with `fresh` it starts over), and removes them when it has written the results.

    Returns what the JSON file holds: ``reproduction`` (the name), ``label``, ``command``, ``options``, ``seconds``,
    ``machine``, ``results``.

    Examples
    --------
    >>> record = run("theorem33", dims=(1,), sizes=(8, 16, 32, 64), seeds=2, test_points=20)
    >>> record["command"]
    'python -m experiments theorem33 --dims 1 --sizes 8,16,32,64 --seeds 2 --test-points 20'
    >>> sorted(path.name for path in Path("results").iterdir())
    ['theorem33.json', 'theorem33.png']
    """
    experiment = load(name)
    if not re.fullmatch("[A-Za-z0-9-]*", label):
        raise ParameterError(f"label={label!r}; expected letters, digits and hyphens, as in a file's name")
    out, file = Path(out), stem(name, label)
    kept = out / UNFINISHED / f"{file}.jsonl"
    made_on = machine()  # before the run: the checkout may move on under a long one
    if fresh:
        with contextlib.suppress(NotADirectoryError):  # told when it is read
            kept.unlink(missing_ok=True)
    work = Work(kept, {"reproduction": name, "version": __version__, "commit": made_on["commit"]}, progress)
    default = defaults(experiment)
    options = default | options
    try:
        results = experiment.measure(work, **options)
        record = {
            "reproduction": name,
            "label": label,
            "command": command(name, options, default, label),
            "options": options,
            "seconds": round(work.seconds, 1),
            "machine": made_on,
            "results": results,
        }
        record = rounded(record)
        experiment.tables(record["results"])
        picture = png(experiment.draw(record["results"]))
        write(out / f"{file}.json", to_json(record).encode())
        write(out / f"{file}.png", picture)
    except BaseException as error:
        if work.kept:
            error.add_note(
                f"{work.kept} finished cells are kept in {kept}: the same command goes on from there, with --fresh it "
                "starts over"
            )
        raise
    work.finish()
    return record


def stem(name: str, label: str) -> str:
    """How the files of a run are called, without ``.json`` or ``.png``."""
    return f"{name}-{label}" if label else name


def load(name: str) -> ModuleType:
    """The experiment called `name`; the error says which there are, or what is to be installed for it."""
    if name not in NAMES:
        raise ParameterError(f"there is no experiment {name!r}; expected one of {', '.join(NAMES)}")
    try:
        return import_module(f"experiments.{name}")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'{error}; in the checkout, install what experiments need: pip install -e ".[experiments]"'
        ) from error


def defaults(experiment: ModuleType) -> dict:
    """The options of an experiment and their defaults."""
    _, *options = inspect.signature(experiment.measure).parameters.values()
    return {option.name: option.default for option in options}


def command(name: str, options: dict, default: dict, label: str = "") -> str:
    """The command line of a run; options at their defaults are left out.

    Examples
    --------
    >>> command("tabular", {"data": ("wine", "iris"), "splits": 20}, {"data": (), "splits": 20})
    'python -m experiments tabular --data wine,iris'
    """
    words = ["python", "-m", "experiments", name, *(["--label", label] if label else [])]
    for option, value in options.items():
        if value != default[option]:
            flag = f"--{option.replace('_', '-')}"
            text = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
            words += [flag] if value is True else [flag, text]
    return shlex.join(words)


def read(path: str | os.PathLike) -> dict:
    """A record that ``run`` wrote; ``MemoryFileError`` when the file is missing, torn or something else."""
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MemoryFileError(f"there is no {path}; make it with: python -m experiments {path.stem}") from error
    except (OSError, ValueError) as error:
        raise MemoryFileError(f"{path} is not whole JSON ({error}); make it again") from error
    needed = {"reproduction", "command", "seconds", "machine", "results"}
    missing = needed - set(record if isinstance(record, dict) else ())
    if missing:
        raise MemoryFileError(f"{path} has no {sorted(missing)}; expected what python -m experiments writes")
    return {"label": "", **record}  # the first records had none


def rounded(value):
    """`value` in JSON types, its numbers to six significant digits, NaN and infinity as None.

    Examples
    --------
    >>> rounded({"a": (0.12345678, float("nan")), "b": 1234567})
    {'a': [0.123457, None], 'b': 1234567}
    """
    return json.loads(json.dumps(plain(value)), parse_float=lambda text: float(f"{float(text):.{DIGITS}g}"))


def to_json(record: dict) -> str:
    """JSON with lists of numbers on one line each, so that a change of one number is a change of one line."""
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    inner = re.compile(r"\[\n\s+([^\[\]{}\"]*?)\n\s*\]")
    return inner.sub(lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]", text) + "\n"


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and its folder where there is none."""
    with atomic_write(path) as part:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)


def png(figure) -> bytes:
    """A matplotlib Figure as a PNG file's content."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()
