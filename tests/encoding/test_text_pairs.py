"""What a pair of texts is."""

import pytest

from residua.encoding.text_pairs import text_pairs
from residua.errors import InputError, ParameterError

PAIRS = [("one", "eins"), ("two", "zwei")]


@pytest.mark.parametrize(
    "texts",
    [
        PAIRS,
        iter(map(list, PAIRS)),
        [{"source": source, "target": target} for source, target in PAIRS],
        {"target": [target for _, target in PAIRS], "source": [source for source, _ in PAIRS]},
    ],
)
def test_pairs_of_every_kind(texts):
    assert list(text_pairs(texts)) == PAIRS


def test_files_of_pairs(tmp_path):
    (tmp_path / "a.tsv").write_text("one\teins\r\n\ntwo\tzwei", newline="")
    (tmp_path / "b.jsonl").write_text('\ufeff{"en": "one", "de": "eins"}\n\n{"en": "two", "de": "zwei"}\n', "utf-8")
    columns = {"source_column": "en", "target_column": "de"}
    assert list(text_pairs(tmp_path / "a.tsv")) == list(text_pairs(str(tmp_path / "b.jsonl"), **columns)) == PAIRS
    assert list(text_pairs([tmp_path / "a.tsv", ("a", "b"), tmp_path / "b.jsonl"], **columns)) == [
        *PAIRS,
        ("a", "b"),
        *PAIRS,
    ]


def test_lines_that_are_not_utf8(tmp_path):
    file = tmp_path / "a.tsv"
    file.write_bytes(b"one\teins\ncaf\xe9\tKaffee\n")
    with pytest.raises(InputError, match=r"a\.tsv, line 2 is not UTF-8: pass errors='replace', or errors='skip'"):
        list(text_pairs(file))
    assert list(text_pairs(file, errors="replace")) == [("one", "eins"), ("caf\ufffd", "Kaffee")]
    with pytest.warns(UserWarning, match=r"1 of 2 lines of .*a\.tsv are no UTF-8 and were left out"):
        assert list(text_pairs(file, errors="skip")) == [("one", "eins")]
    with pytest.raises(ParameterError, match="errors='ignore'"):
        next(text_pairs(file, errors="ignore"))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("a pair", "a path that does not exist, or a text"),
        (["a"], "item 0 is str; expected a pair"),
        ([("a", "b"), ("a", None)], "item 1 is tuple"),
        (("a", "b"), r"one pair, or two texts\? Write \[pair\]"),
        ([{"source": "a"}], r"\['source'\], and no 'target'; pass target_column="),
        ({"target": ["a"]}, r"\['target'\], and no 'source'; pass source_column="),
    ],
)
def test_what_is_no_pair(texts, said):
    with pytest.raises(InputError, match=said):
        list(text_pairs(texts))


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("a.tsv", "no tab", r"a\.tsv, line 1: no pair; expected source TAB target"),
        ("a.jsonl", "{", r"a\.jsonl, line 1: no pair; expected an object"),
        ("a.jsonl", "5", r"a\.jsonl, line 1 is int; expected a pair"),
        ("a.jsonl", '{"source": "a"}', r"and no 'target'"),
        ("a.txt", "a", r"reads pairs; expected a \.jsonl file"),
    ],
)
def test_files_without_pairs(name, line, said, tmp_path):
    (tmp_path / name).write_text(line)
    with pytest.raises(InputError, match=said):
        list(text_pairs(tmp_path / name))
