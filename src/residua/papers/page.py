"""The results page: every committed record, one section each, from nothing but the JSON files."""

import os
from pathlib import Path

from residua.errors import MemoryFileError
from residua.papers.record import markdown, read, require_matplotlib, tell_and_draw, write
from residua.papers.registry import MODULES

HEAD = """# Results: the papers, and ours

Generated from `results/*.json` by `residua reproduce page`; a test regenerates it and compares. To change it, run a
reproduction again (`residua reproduce NAME`), then that command.
"""


def page(results: str | os.PathLike = "results", at: str | os.PathLike = "docs/results.md") -> str:
    """The text of the page `at`, from the records in folder `results`, in the registry's order, labelled ones after.

    Raises
    ------
    MemoryFileError
        When the folder holds no record, or one that is broken.
    """
    results, at = Path(results), Path(at)
    sections = []
    for path in records(results):
        picture = os.path.relpath(path.with_suffix(".png"), at.parent)
        sections.append(markdown(read(path), level=2, picture=Path(picture).as_posix()))
    if not sections:
        raise MemoryFileError(f"{results} holds no results of {', '.join(MODULES)}; run residua reproduce NAME first")
    return "\n".join([HEAD, *sections])


def write_page(results: str | os.PathLike = "results", at: str | os.PathLike = "docs/results.md") -> Path:
    """Write the page, and each record's own ``NAME.md`` and ``NAME.png`` again; return the page's path.

    Raises
    ------
    MemoryFileError
        As `page`, and when a file cannot be written.
    MissingDependencyError
        Without matplotlib.
    """
    require_matplotlib()
    results, at = Path(results), Path(at)
    text = page(results, at)
    for path in records(results):
        tell_and_draw(read(path), results)
    write(at, text)
    return at


def records(results: Path) -> list[Path]:
    """The records in a folder, in the page's order."""
    found = [[results / f"{name}.json", *sorted(results.glob(f"{name}-*.json"))] for name in MODULES]
    return [path for paths in found for path in paths if path.exists()]
