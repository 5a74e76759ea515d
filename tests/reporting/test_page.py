"""Whatever names and texts hold, a page is a page: nothing of theirs becomes markup, runs, or is fetched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.reporting.page import SIDE, ending, picture

EVIL = "</p><script>alert(1)</script>\"'><img src=//x onerror=alert(1)>{{ 7 * 7 }}{% if %}\x1b[31m\u202e\udc80"


def named(rows, word):
    classes = [word + letter for letter in "abc"]
    try:
        return rows(
            1, 60, classes=classes, columns={word or "x": np.arange(60.0)}, names=[f"{word}{i}" for i in range(60)]
        )
    except UnicodeEncodeError:
        return rows(1, 60, classes=classes)


def test_names_are_text_and_nothing_else(rows, parsed):
    train, test = named(rows, EVIL), rows(2, 60, names=[f"C:\\pictures\\{EVIL}{i}.txt" for i in range(60)])
    reader = rs.ResMem(rs.Memory(train), k=5, sigma=1.0)
    found = rs.report(reader, test, path=None, title=EVIL)
    page = parsed(found)
    assert "<script>alert(1)</script>" in page.text and "img" not in page.tags and "{{ 7 * 7 }}" in page.text
    assert "\\x1b[31m\\u202e\\udc80" in page.text and "C:\\pictures" in page.text
    assert "<script>" not in found._repr_html_()


def test_tokens_are_text_too(parsed):
    class Evil:
        def decode(self, ids):
            return EVIL * len(ids)

    rng = np.random.default_rng(0)

    def text(document):
        return rs.Encoded(
            rng.normal(size=(40, 2)),
            rng.normal(size=(40, 5)),
            rng.integers(0, 5, 40),
            ids=[document] * 40,
            columns={"offset": np.arange(40)},
        )

    memory = rs.Memory(text(1), names={1: EVIL})
    page = parsed(rs.report(rs.KNNLM(memory, k=3, lmbda=0.5), text(2), tokenizer=Evil(), path=None))
    assert "<script>alert(1)</script>" in page.text and "img" not in page.tags


@pytest.mark.slow
@settings(max_examples=15)
@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_any_name(rows, parsed, word):
    reader = rs.ResMem(rs.Memory(named(rows, word)), k=3, sigma=1.0)
    parsed(rs.report(reader, rows(2, 30), path=None, title=word, examples=2, memories=2, review=False))


def test_a_name_without_end_is_cut(rows, parsed):
    reader = rs.ResMem(rs.Memory(rows(1, 60, classes=["x" * 10**5, "b", "c"])), k=3, sigma=1.0)
    assert len(rs.report(reader, rows(2, 60), path=None).html) < 200_000


@pytest.mark.slow
def test_pictures_are_within_the_page_and_small(reader, rows, parsed):
    rng = np.random.default_rng(0)
    large = rng.random((60, 3, 300, 200)).astype(np.float32)
    remembered = {id: rng.integers(0, 255, (8, 8), dtype=np.uint8) for id in range(0, 90, 2)}
    found = rs.report(reader, rows(2, 60), images=large, remembered=remembered, path=None, examples=3)
    page = parsed(found)
    shown = len(found.corrected) + len(found.broken)
    assert page.tags.count("img") > shown and len([link for link in page.links if link[0] != "#"]) == page.tags.count(
        "img"
    )
    assert len(found.html) < 500_000
    assert picture(np.zeros((4 * SIDE, 2 * SIDE), np.uint8)) == picture(np.zeros((SIDE, SIDE // 2), np.uint8))


def test_a_folder_of_pictures_is_read_by_name_and_not_left(reader, rows, tmp_path, parsed):
    from PIL import Image

    for at in range(30):
        Image.fromarray(np.full((8, 8), at, np.uint8)).save(tmp_path / f"{at}.png")
    test = rows(2, 30, names=[f"{at}.png" for at in range(30)])
    page = parsed(rs.report(reader, test, images=tmp_path, path=None))
    assert page.tags.count("img") >= 3


def test_the_end_of_a_text():
    assert ending("abc", 3) == "abc" and ending("abcd", 3) == "…cd"
