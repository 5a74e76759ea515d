"""What was found is a file of the kind that its name says."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

import residua as rs
from residua.errors import ParameterError

CLASSES = ("<script>alert(1)</script>", 'a,"b"\nc')


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)
    rows = rs.Encoded(rng.normal(size=(60, 4)), rng.normal(size=(60, 2)), np.arange(60) % 2, classes=CLASSES)
    memory = rs.Memory(rows, names={3: "caf\udce9 <i>.png"})
    reader = rs.ResMem(memory, k=3)
    test = rs.Encoded(rng.normal(size=(20, 4)), rng.normal(size=(20, 2)), np.arange(20) % 2)
    return {
        "evaluate": rs.evaluate(reader, test),
        "explain": rs.explain(reader, test[0]),
        "audit": rs.audit(memory),
    }


KINDS = pytest.mark.parametrize("kind", ["evaluate", "explain", "audit"])


class Tags(HTMLParser):
    """Every tag and attribute of a page, and whether all are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.links = [], set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.links |= {value for name, value in attrs if name in ("src", "href", "onload", "onclick")}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@KINDS
def test_a_page_that_needs_nothing_else(found, kind, tmp_path):
    file = tmp_path / "found.html"
    found[kind].save(file)
    text = file.read_text(encoding="utf-8")
    tags = Tags(text)
    assert not tags.open and not tags.links and not tags.seen & {"script", "link", "img", "i"}
    assert text.startswith("<!doctype html>") and found[kind]._repr_html_() in text


@KINDS
def test_a_table_that_pandas_reads_back(found, kind, tmp_path):
    pandas = pytest.importorskip("pandas")
    file = tmp_path / "found.csv"
    found[kind].save(file)
    frame, index = found[kind].to_frame(), {"index_col": "row"} if kind == "audit" else {}
    again = pandas.read_csv(file, **index)
    assert again.columns.tolist() == frame.columns.tolist()
    assert again.index.tolist() == frame.index.tolist()
    assert again["label"].tolist() == frame["label"].tolist()
    numbers = frame.select_dtypes("number")
    np.testing.assert_allclose(again[numbers.columns], numbers, rtol=1e-6)


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("suffix", [".png", ".svg", ".PDF"])
def test_a_picture(found, kind, suffix, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / f"found{suffix}"
    found[kind].save(file)
    begin = {".png": b"\x89PNG", ".svg": b"<?xml", ".PDF": b"%PDF"}[suffix]
    assert file.read_bytes().startswith(begin) and file.stat().st_size > 5000


def test_options_go_where_they_belong(found, tmp_path):
    pytest.importorskip("matplotlib")
    found["explain"].save(tmp_path / "few.png", memories=1)
    found["explain"].save(tmp_path / "more.png", memories=3)
    assert (tmp_path / "few.png").read_bytes() != (tmp_path / "more.png").read_bytes()
    found["evaluate"].save(tmp_path / "named.csv", classes=["cat", "dog"])
    assert set(re.findall(r"^(\w+),", (tmp_path / "named.csv").read_text(), flags=re.MULTILINE)) == {
        "label",
        "cat",
        "dog",
    }
    with pytest.raises(ParameterError, match=r"memories= is not for \.html"):
        found["explain"].save(tmp_path / "x.html", memories=1)


@pytest.mark.parametrize("name", ["found", "found.xlsx", "found.PNG.txt", ".csv"])
def test_another_kind_of_file_is_refused(found, name, tmp_path):
    with pytest.raises(ParameterError, match=r"expected \.html, \.csv, \.png"):
        found["evaluate"].save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(found, tmp_path):
    with pytest.raises(FileNotFoundError):
        found["evaluate"].save(tmp_path / "none" / "x.html")
