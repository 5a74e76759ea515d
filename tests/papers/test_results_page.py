"""The committed results and the page made of them."""

from pathlib import Path

import pytest

from residua.papers.page import page
from residua.papers.record import markdown, read, stem
from residua.papers.registry import MODULES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"


def test_page_is_what_regenerating_gives():
    committed = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert committed == page(RESULTS, ROOT / "docs" / "results.md"), "run: residua reproduce page"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_result_is_whole(path):
    record = read(path)
    assert record["reproduction"] in MODULES
    assert stem(record["reproduction"], record["label"]) == path.stem
    assert record["command"].startswith(f"residua reproduce {record['reproduction']}")
    assert path.with_suffix(".md").read_text(encoding="utf-8") == markdown(record)
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
