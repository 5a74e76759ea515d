"""What each thing that may be a text means, and what could mean two things."""

from collections import UserList
from pathlib import Path

import numpy as np
import pandas
import pytest

from residua.encoding.documents import Reading, named_texts
from residua.errors import InputError, ParameterError


def read(texts, **options):
    return list(named_texts(texts, Reading(**options), []))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The current folder: ``src/`` with two files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    for name in ("a.py", "b.py"):
        (tmp_path / "src" / name).write_text(f"in {name}")
    return tmp_path


@pytest.mark.parametrize("path", ["src", "src/", Path("src"), [Path("src")], iter([Path("src")])])
def test_a_path_is_read(path):
    assert read(path) == [("a.py", "in a.py"), ("b.py", "in b.py")]


def test_texts_of_every_kind_in_turn(here):
    texts = ["one", ("named", "two"), {"text": "three", "label": 1}, here / "src/b.py", np.str_("five")]
    named = [("0", "one"), ("named", "two"), ("2", "three"), ("b.py", "in b.py"), ("4", "five")]
    assert read(iter(texts)) == read(UserList(texts)) == named
    assert read({"n": "t"}.items()) == [("n", "t")]


class Arrow:
    """Columns as pyarrow has them: names in one attribute, wrapped values in the other."""

    column_names = ("text", "path", "features")
    columns = (object(), object())

    def __getitem__(self, name):
        return ArrowColumn([f"{name} {i}" for i in range(2)])


class ArrowColumn(UserList):
    def __iter__(self):
        return iter([object()] * len(self.data))

    def to_pylist(self):
        return self.data


class Dataset:
    """Rows as a datasets.Dataset has them."""

    column_names = ("text", "path")
    features = None

    def __iter__(self):
        return ({"text": f"text {i}", "path": f"path {i}"} for i in range(2))

    def __getitem__(self, name):
        raise AssertionError("a whole column is read at once")


COLUMNS = {"text": ["text 0", "text 1"], "path": ["path 0", "path 1"], "features": [0, 1]}
TABLES = {
    "dict of lists": COLUMNS,
    "dict of arrays": {name: np.array(column) for name, column in COLUMNS.items()},
    "pandas": pandas.DataFrame(COLUMNS),
    "records": pandas.DataFrame(COLUMNS).to_records(index=False),
    "arrow": Arrow(),
    "datasets": Dataset(),
    "rows": [{"text": f"text {i}", "path": f"path {i}"} for i in range(2)],
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_is_its_column(table):
    assert read(table) == [("0", "text 0"), ("1", "text 1")] == read(table)
    assert read(table, name_column="path") == [("path 0", "text 0"), ("path 1", "text 1")]
    assert read(table, text_column="path") == [("0", "path 0"), ("1", "path 1")]
    with pytest.raises(InputError, match=r"columns \['.*text'\], and no 'code'; pass text_column="):
        read(table, text_column="code")
    with pytest.raises(InputError, match=r"and no 'id'; pass name_column="):
        read(table, name_column="id")


def test_a_column_alone_is_texts():
    frame = pandas.DataFrame({"text": ["a", "b"]}, index=["columns", "features"])
    assert read(frame["text"]) == read(frame["text"].to_numpy()) == [("0", "a"), ("1", "b")]
    assert read(ArrowColumn(["a", "b"])) == read({"text": ("a", "b")}) == [("0", "a"), ("1", "b")]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("sorce/", r"str 'sorce/': a path that does not exist, or a text\? Check the path .*write \[text\]"),
        ("a\0b", "a path that does not exist, or a text"),
        ("def f():\n    return 1\n" * 500, r"'def f.*\.\.\..*': a path that does not exist, or a text"),
        (Path("sorce"), "there is no such file or folder"),
        ([Path("src"), Path("sorce")], "sorce: there is no such file or folder"),
        (
            ["src"],
            r"text 0 is 'src': the path that exists, or the text\? Write pathlib.Path\('src'\), or \('name', 'src'\)",
        ),
        (["a text", "src/a.py"], "text 1 is 'src/a.py': the path that exists"),
        (b"bytes", r"is bytes; expected texts: decode it"),
        ([b"bytes"], "text 0 is a bytes; expected a str"),
        (("a", "b"), r"one pair, or two texts\? Write \[pair\], or a list"),
        ({"a.py": "x", "b.py": "y"}, r"\['a.py', 'b.py'\] to str: names and texts, or one row\? Write texts.items\(\)"),
        ({"text": "x"}, r"or \[texts\]"),
        ({"train": Dataset(), "test": Dataset()}, r"the parts of a dataset.*expected one of them: texts\['train'\]"),
        ({"text": 5}, "column 'text' is a int; expected a list"),
        ({"text": "x", "n": 1}, "column 'text' is a str; expected a list"),
        (7, "texts is a int; expected a path, an iterable of texts, or a table"),
        (None, "texts is a NoneType"),
        ([7], "text 0 is a int"),
        ([["name", "text"]], "text 0 is a list"),
        (["a", {"text": None}], "text 1 is None; expected a str"),
        (pandas.DataFrame({"text": ["a", float("nan")]}), "text 1 is nan; expected a str"),
    ],
)
def test_what_is_no_text_or_could_be_two_things(texts, said):
    with pytest.raises(InputError, match=said):
        read(texts)


def test_columns_of_different_lengths():
    with pytest.raises(InputError, match=r"\['text', 'name'\] have different lengths"):
        read({"text": ["a", "b"], "name": ["c"]}, name_column="name")


def test_words_that_happen_to_be_names_are_texts(here):
    (here / "test").mkdir()
    assert read(["It ended", ".", "test", "/", ""]) == [
        (str(i), text) for i, text in enumerate(["It ended", ".", "test", "/", ""])
    ]


def test_how_they_are_read_is_checked():
    with pytest.raises(ParameterError, match="errors='ignore'; expected one of 'strict', 'replace', 'skip'"):
        read(["a"], errors="ignore")
