"""What a notebook shows is a few plain tags around text, whatever the text is."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import residua as rs
from residua.core import Source
from residua.html import facts, paragraph, table
from residua.printable import one_line
from residua.readers import KNNLM

TAGS = {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
EVIL = "<script>alert('1')</script>&amp;\"'\x1b[31m\u202e\udcff\n" + "&" * 1000


class Page(HTMLParser):
    """The texts between the tags; every tag must be one of a few, closed, and carry no more than a layout."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.texts = [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert tag in TAGS
        assert {name for name, _ in attributes} <= {"style", "scope", "colspan"}
        for name, value in attributes:
            assert name != "style" or not re.search(r"url|color|background", value)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def shown(thing) -> str:
    """The text of what a notebook shows of `thing`, after looking at its HTML."""
    html = thing._repr_html_()
    assert len(html.encode()) < 20_000
    return "\n".join(Page(html).texts)


@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=60))
def test_text_stays_text(text):
    assert Page(paragraph(text)).texts == [one_line(text)] or len(one_line(text)) > 400
    assert "".join(Page(facts(text, {text: text})).texts).startswith(one_line(text)[:60])
    for row in (("", text), (text, "")):
        cells = "".join(Page(table([("a", "b"), row])).texts)
        assert cells.startswith("ab" + one_line(text)[:60])


def test_what_is_long_is_cut():
    assert Page(paragraph("x" * 400)).texts == ["x" * 400]
    assert Page(paragraph("x" * 401)).texts == ["x" * 399 + "…"]
    assert Page(table([("a",), ("x" * 65,)])).texts == ["a", "x" * 63 + "…"]
    texts = Page(table([("n", "square"), *((i, i * i) for i in range(1042))])).texts
    assert texts[:4] == ["n", "square", "0", "0"]
    assert texts[-3:] == ["39", "1521", "and 1,002 more"]
    assert paragraph("") == ""


def rows(n=60, classes=4, **more):
    rng = np.random.default_rng(0)
    return rs.Encoded(rng.normal(size=(n, 3)), rng.normal(size=(n, classes)), rng.integers(0, classes, n), **more)


def text_rows(document):
    rng, columns = np.random.default_rng(document), {"offset": np.arange(30)}
    labels, ids = rng.integers(0, 5, 30), np.full(30, document)
    return rs.Encoded(rng.normal(size=(30, 3)), rng.normal(size=(30, 5)), labels, ids, columns=columns)


class Evil:
    def decode(self, tokens):
        return EVIL * len(tokens)


def test_a_memory():
    memory = rs.Memory(rows())
    memory.forget([3, 4])
    text = shown(memory)
    assert "58 (2 more are forgotten)" in text
    assert "classification, 4 outputs" in text
    memory.forget(memory.ids)
    assert "0 (60 more are forgotten)" in shown(memory)


def test_a_memory_of_text_whose_maker_has_an_evil_name():
    part = text_rows(1)
    columns = part.columns | {EVIL: np.zeros(30)}
    part = rs.Encoded(part.keys, part.logits, part.labels, part.ids, columns=columns, source=Source(EVIL, EVIL))
    text = shown(rs.Memory(part, storage="none", names={1: EVIL}))
    assert "tokens\n30\ndocuments\n1" in text
    assert "made by\n<script>alert('1')</script>&amp;" in text
    assert "columns\noffset, <script>" in text


def test_readers():
    memory = rs.Memory(rows())
    assert "ResMem\nk\n5" in shown(rs.ResMem(memory, k=5, sigma=1.0))
    assert "k\n0" in shown(rs.ResMem(memory, k=0))
    share = rs.AdaptiveLambda([1.0, 2.5], [0.75, 0.5, 0.0])
    assert shown(share).split("\n") == [
        "nearest distance",
        "share",
        "up to 1",
        "0.75",
        "up to 2.5",
        "0.5",
        "beyond",
        "0",
    ]
    wide = rs.AdaptiveLambda(np.arange(1000.0), np.linspace(0, 1, 1001))
    assert "and 961 more" in shown(wide)
    assert repr(wide) == "AdaptiveLambda(0 to 1 by distance)"
    reader = rs.ContinuousCache(rs.KNNLM(memory, k=5, sigma=1.0, lmbda=share), theta=2.0)
    assert "over\nKNNLM(k=5, lmbda=0 to 0.75 by distance" in shown(reader)
    assert len(repr(reader)) < 300


def test_a_reader_of_ones_own_with_an_evil_parameter():
    class Own(KNNLM):
        def __init__(self, memory, title=EVIL):
            super().__init__(memory, k=2, sigma=1.0)
            self.title = title

    Own.__name__ = "<Own>"
    assert "<Own>\ntitle\n<script>alert('1')</script>&amp;" in shown(Own(rs.Memory(rows())))


@pytest.mark.parametrize("k", [0, 5])
def test_a_result(k):
    memory = rs.Memory(rows())
    result = rs.evaluate(rs.ResMem(memory, k=k), rows(20, ids=np.arange(20) + 100))
    text = shown(result)
    for line in (result.verdict, "accuracy", "wrong made right (TPR)"):
        assert line in text
    assert "20 test points" in shown(rs.evaluate(rs.ResMem(memory, k=k), rows(20)))
    assert "1 test point" in shown(rs.evaluate(rs.ResMem(memory, k=k), rows(1)))


def test_a_result_of_text_and_of_a_vocabulary():
    memory = rs.Memory(text_rows(1), storage="none")
    assert "perplexity" in shown(rs.evaluate(rs.KNNLM(memory, k=3), text_rows(2)))
    wide = rs.Memory(rows(60, 10_000))
    assert "accuracy" in shown(rs.evaluate(rs.ResMem(wide, k=3), rows(20, 10_000)))


def test_an_explanation():
    reader = rs.ResMem(rs.Memory(rows()), k=14)
    why = rs.explain(reader, rows()[7])
    text = shown(why)
    assert text.startswith(
        f"prediction {why.prediction} (base alone {why.base_prediction}, truth {why.label})\nclass\nbase"
    )
    assert f"\n{why.ids[0]}\n{why.labels[0]}\n" in text and f"\n{why.ids[10]}\n{why.labels[10]}\n" not in text
    assert text.endswith("and 4 more, of weight " + f"{why.weights[10:].sum():.4f} together")
    alone = rs.explain(rs.ResMem(reader.memory, k=0), rows()[7])
    assert shown(alone).endswith("no neighbours: this is the model alone")


def test_an_explanation_of_evil_text():
    memory = rs.Memory([text_rows(1), text_rows(2)], storage="none", names={1: EVIL, 2: "b" * 1000})
    why = rs.explain(rs.KNNLM(memory, k=12), text_rows(3)[4], tokenizer=Evil())
    text = shown(why)
    assert "<script>alert('1')</script>&amp;\"'\\x1b[31m\\u202e\\udcff\\n&&" in text
    assert "next token\ncontext\ndistance" in text
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("outputs", [1, 3, 1500])
def test_an_explanation_of_a_regression(outputs):
    rng = np.random.default_rng(0)
    memory = rs.Memory(rs.Encoded(rng.normal(size=(20, 2)), *rng.normal(size=(2, 20, outputs))))
    why = rs.explain(rs.ResMem(memory, k=12), rs.Encoded([[0.0, 0.0]], np.zeros((1, outputs))))
    text = shown(why)
    assert ("and 1,490 more outputs" in text) == ("and 1,490 more outputs" in str(why)) == (outputs == 1500)
    assert len(repr(why)) < 400


def test_an_explanation_of_ten_thousand_classes():
    why = rs.explain(rs.ResMem(rs.Memory(rows(60, 10_000)), k=12), rows(60, 10_000)[3])
    assert f"class\nbase\nmemory\nscore\n{why.prediction}\n" in shown(why)
