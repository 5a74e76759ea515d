"""A run and what it leaves: ``NAME.json`` with everything, ``NAME.md`` to read, ``NAME.png`` to look at."""

import contextlib
import json
import math
import os
import re
from pathlib import Path

from residua import __version__
from residua.core.atomic import atomic_write
from residua.errors import MemoryFileError, MissingDependencyError, ParameterError
from residua.papers.machine import machine
from residua.papers.registry import load
from residua.papers.table import Table
from residua.papers.work import Work

DIGITS = 6  # significant ones of every number that is kept


def reproduce(
    name: str,
    out: str | os.PathLike = "results",
    *,
    label: str = "",
    fresh: bool = False,
    progress: bool = False,
    **options,
) -> dict:
    """Run a reproduction and write ``NAME.json``, ``NAME.md`` and ``NAME.png`` into folder `out`.

    A run that is stopped leaves its finished cells in ``NAME.part``; the same call goes on from there.

    Parameters
    ----------
    name : str
        One of ``residua.papers.registry.MODULES``.
    out : path, default "results"
    label : str, default ""
        Letters, digits and hyphens; the files are then ``NAME-LABEL.json`` and so on, beside those of another run.
    fresh : bool, default False
        Start over, whatever an earlier run left.
    progress : bool, default False
        Show a bar.
    **options
        The reproduction's own; its defaults are the published run.

    Returns
    -------
    dict
        What the JSON file holds: ``reproduction``, ``label``, ``command``, ``options``, ``seconds``, ``machine``,
        ``results``.

    Raises
    ------
    ParameterError
        When the name or an option does not exist, or the label cannot be part of a file's name.
    MissingDependencyError
        When an optional dependency is missing; known before the work starts.
    MemoryFileError
        When a file cannot be written.

    Examples
    --------
    >>> record = reproduce("theorem33", dims=(1,), sizes=(8, 16, 32, 64), seeds=2, test_points=20)
    >>> record["command"]
    'residua reproduce theorem33 --dims 1 --sizes 8,16,32,64 --seeds 2 --test-points 20'
    >>> sorted(path.name for path in Path("results").iterdir())
    ['theorem33.json', 'theorem33.md', 'theorem33.png']
    """
    reproduction = load(name)
    settings = reproduction.settings(options)
    require_matplotlib()
    if not re.fullmatch("[A-Za-z0-9-]*", label):
        raise ParameterError(f"label={label!r}; expected letters, digits and hyphens, as in a file's name")
    out = Path(out)
    part = out / f"{stem(name, label)}.part"
    if fresh:
        with contextlib.suppress(NotADirectoryError):  # told when something is written there
            part.unlink(missing_ok=True)
    made_on = machine()  # before the run: the checkout may move on under a long one
    work = Work(part, {"reproduction": name, "version": __version__, "commit": made_on["commit"]}, progress)
    results = reproduction.run(work, **settings)
    record = rounded(
        {
            "reproduction": name,
            "label": label,
            "command": command(name, settings, reproduction.options, label),
            "options": settings,
            "seconds": float(f"{work.seconds:.1f}"),
            "machine": made_on,
            "results": results,
        }
    )
    write(out / f"{stem(name, label)}.json", to_json(record))
    tell_and_draw(record, out)
    work.finish()
    return record


def tell_and_draw(record: dict, out: Path) -> None:
    """Write a record's ``NAME.md`` and ``NAME.png`` into folder `out`."""
    name = record["reproduction"]
    path = out / stem(name, record["label"])
    write(path.with_suffix(".md"), markdown(record))
    save_figure(load(name).draw(record["results"]), path.with_suffix(".png"))


def markdown(record: dict, level: int = 1, picture: str | None = None) -> str:
    """A record as a Markdown section that ends with a line feed; nothing but the record is read.

    Parameters
    ----------
    record : dict
    level : int, default 1
        Of the heading.
    picture : str, optional
        Address of the PNG; by default the file beside.
    """
    name, label, about = record["reproduction"], record["label"], record["machine"]
    reproduction = load(name)
    title = f"{reproduction.title} ({label})" if label else reproduction.title
    what = about["gpu"] or f"{about['cores']} cores of {about['cpu']}"
    made = f"commit `{about['commit'][:12]}`" if about["commit"] else f"version {about['versions']['residua']}"
    if about["commit"] and about["commit"].endswith("+"):
        made += " with changes"
    blocks = [
        f"{'#' * level} {title}",
        f"{reproduction.source}. Made by `{record['command']}` in {record['seconds']:.0f} s on {what}, {made}.",
        *(str(block) if isinstance(block, Table) else block for block in reproduction.tell(record["results"])),
        f"![{title}]({picture or stem(name, label) + '.png'})",
    ]
    return "\n\n".join(blocks) + "\n"


def stem(name: str, label: str) -> str:
    """What a record's files are called, without their suffix.

    Examples
    --------
    >>> stem("cifar100", ""), stem("cifar100", "given")
    ('cifar100', 'cifar100-given')
    """
    return f"{name}-{label}" if label else name


def command(name: str, settings: dict, options: dict, label: str = "") -> str:
    """The command line of a run; options at their defaults are left out."""
    words = ["residua", "reproduce", name, *(["--label", label] if label else [])]
    for option, value in settings.items():
        if value != options[option].default:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{option.replace('_', '-')}", text]
    return " ".join(words)


def read(path: str | os.PathLike) -> dict:
    """A record that ``reproduce`` wrote.

    Raises
    ------
    MemoryFileError
        When the file is missing, torn or something else.
    """
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MemoryFileError(f"there is no {path}; make it with: residua reproduce {path.stem}") from error
    except (OSError, ValueError) as error:
        raise MemoryFileError(f"{path} is not whole JSON ({error}); make it again") from error
    missing = {"reproduction", "command", "seconds", "machine", "results"} - set(
        record if isinstance(record, dict) else ()
    )
    if missing:
        raise MemoryFileError(f"{path} has no {sorted(missing)}; expected what residua reproduce writes")
    return {"label": "", **record}  # the first records had none


def rounded(value):
    """`value` in JSON types, its numbers to six significant digits, NaN and infinity as None.

    Examples
    --------
    >>> rounded({"a": (0.12345678, float("nan")), "b": 1234567})
    {'a': [0.123457, None], 'b': 1234567}
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def to_json(record: dict) -> str:
    """JSON with lists of numbers on one line each, so that a change of one number is a change of one line."""
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    inner = re.compile(r"\[\n\s+([^\[\]{}\"]*?)\n\s*\]")
    return inner.sub(lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]", text) + "\n"


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_write(path) as part:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")


def require_matplotlib() -> None:
    """Raise ``MissingDependencyError`` now rather than after the work."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            'a reproduction draws its figure with matplotlib: pip install "residua[plot]"'
        ) from error


def save_figure(figure, path: Path) -> None:
    """Write a matplotlib Figure as PNG, whole or not at all, without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=110, metadata={"Software": None})
