"""The generated parts of ``docs/results``: prose is written by hand, each table comes from a committed record.

A table stands between ``<!-- theorem33: slopes -->`` and ``<!-- end -->``: record, then the name that the experiment's
``tables`` gives it. ``made`` is the line that says how the record came about.
"""

import re
from pathlib import Path

from experiments.runner import load, png, read, write
from experiments.table import Table
from residua.errors import ParameterError

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGES = ROOT / "results", ROOT / "docs" / "results"
BLOCK = re.compile(r"<!-- ([\w-]+): ([\w -]+) -->\n.*?<!-- end -->", re.DOTALL)


def refill(results: Path = RESULTS, pages: Path = PAGES) -> list[Path]:
    """Fill every page's blocks and draw every record's picture again; the files that were written."""
    paths = sorted(pages.glob("*.md"))
    texts = [filled(path.read_text(encoding="utf-8"), results) for path in paths]  # before anything is written
    for path, text in zip(paths, texts):
        write(path, text.encode())
    for path in sorted(results.glob("*.json")):
        record = read(path)
        paths.append(path.with_suffix(".png"))
        write(paths[-1], png(load(record["reproduction"]).draw(record["results"])))
    return paths


def filled(text: str, results: Path = RESULTS) -> str:
    """A page with every block made anew of its record; nothing else is changed."""

    def fill(found: re.Match) -> str:
        record, name = found.groups()
        known = blocks(read(results / f"{record}.json"))
        if name not in known:
            raise ParameterError(f"{record} has no table {name!r}; expected one of {', '.join(known)}")
        return f"<!-- {record}: {name} -->\n\n{known[name]}\n\n<!-- end -->"

    return BLOCK.sub(fill, text)


def blocks(record: dict) -> dict[str, str | Table]:
    """All that a page may show of a record, by name; ``made`` is how it came about, in one line."""
    about = record["machine"]
    what = about["gpu"] or f"{about['cores']} cores of {about['cpu']}"
    commit = about["commit"]
    source = f"commit `{commit[:12]}`" if commit else f"version {about['versions']['residua']}"
    if commit and commit.endswith("+"):
        source += " with changes"
    made = f"Made by `{record['command']}` in {record['seconds']:,.0f} s on {what}, {source}."
    return {"made": made, **load(record["reproduction"]).tables(record["results"])}
