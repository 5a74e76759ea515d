"""Every table on a page, and every decimal quoted beside it, is what a committed record says."""

import re

import pytest

from experiments import NAMES, published
from experiments.pages import BLOCK, PAGES, RESULTS, blocks, filled, refill
from experiments.runner import load, png, read
from residua.errors import MemoryFileError, ParameterError

RECORDS = sorted(RESULTS.glob("*.json"))
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(PAGES.glob("*.md"))}
DECIMAL = re.compile(r"(?<![\d.,/])\d[\d,]*\.\d+(?:e[-+]\d+)?(?![\d.])")


def decimals(text: str) -> set[str]:
    return set(DECIMAL.findall(text))


def quoted(text: str) -> set[str]:
    """The decimals of hand-written prose."""
    code, numbered = r"(?s:```.*?```|`[^`]*`)", r"(?:arXiv|version|[Tt]heorem|section) \S+"
    return decimals(re.sub(rf"{code}|\]\([^)]*\)|{numbered}", "", BLOCK.sub("", text)))


@pytest.mark.parametrize("page", TEXTS)
def test_tables_are_what_the_records_give(page):
    assert filled(TEXTS[page]) == TEXTS[page], "run: python -m experiments --pages"
    assert "-->" not in BLOCK.sub("", TEXTS[page]), "a block without its name, colon or end"


@pytest.mark.parametrize("page", TEXTS)
def test_quoted_decimals_are_the_records_or_the_papers(page):
    every = page in ("README", "debts")
    own = [path for path in RECORDS if every or page in (path.stem, path.stem.partition("-")[0])]
    printed = decimals(repr([value for name, value in vars(published).items() if name.isupper()]))
    known = printed | {f"{float(number):.2f}" for number in printed}
    for path in own:
        known |= decimals("\n".join(map(str, blocks(read(path)).values())))
    assert quoted(TEXTS[page]) <= known


def test_decimals_are_found_where_they_are_quoted():
    text = (
        "At σ = 0.7 it is 59.66 % (1,234.5; 2.8e-05), arXiv 2302.01576.\n<!-- a: b -->\n\n9.99\n\n<!-- end -->\n`1.5`"
    )
    assert quoted(text) == {"0.7", "59.66", "1,234.5", "2.8e-05"}


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_has_a_page_that_begins_with_a_summary(name):
    summary, *details = TEXTS[name].split("<details>")
    assert len(summary.splitlines()) <= 60
    assert summary.startswith("# ")
    assert all("</details>" in one for one in details)
    assert f"({name}.md)" in TEXTS["README"]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_committed_record_is_whole_and_is_shown(path):
    record = read(path)
    name, label = record["reproduction"], record["label"]
    assert path.stem == (f"{name}-{label}" if label else name)
    assert record["command"].startswith((f"residua reproduce {name}", f"python -m experiments {name}"))
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    page = TEXTS.get(path.stem, TEXTS[name])  # a labelled record has its own, or stands on the other's
    assert f"(../../results/{path.stem}.png)" in page
    assert f"<!-- {path.stem}: made -->" in page
    assert png(load(name).draw(record["results"])).startswith(b"\x89PNG")


def test_refilling_writes_blocks_and_pictures_and_nothing_else(tmp_path):
    results, pages = tmp_path / "results", tmp_path / "pages"
    results.mkdir()
    pages.mkdir()
    (results / "theorem33.json").write_bytes((RESULTS / "theorem33.json").read_bytes())
    page = pages / "some.md"
    page.write_text("Words.\n<!-- theorem33: slopes -->\nold\n<!-- end -->\nMore words.\n", encoding="utf-8")
    written = refill(results, pages)
    assert written == [page, results / "theorem33.png"]
    text = page.read_text(encoding="utf-8")
    table = load("theorem33").tables(read(RESULTS / "theorem33.json")["results"])["slopes"]
    assert text == f"Words.\n<!-- theorem33: slopes -->\n\n{table}\n\n<!-- end -->\nMore words.\n"
    assert filled(text, results) == text


def test_a_block_of_nothing_is_refused():
    with pytest.raises(ParameterError, match="no table 'slope'; expected one of made, slopes"):
        filled("<!-- theorem33: slope -->\n<!-- end -->")
    with pytest.raises(MemoryFileError, match="nonesuch"):
        filled("<!-- nonesuch: slopes -->\n<!-- end -->")
