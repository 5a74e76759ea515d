import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residua.cli.output import count, one_line, plain, report, say, shown, size


@given(st.text(st.characters(exclude_categories=())))
def test_one_line_is_printable_and_keeps_what_was(text):
    safe = one_line(text)
    assert safe.isprintable()
    if text.isprintable():
        assert safe == text


def test_one_line_escapes_terminal_codes_and_stray_bytes():
    assert one_line("a\x1b]0;x\x07\u202e\udcff\r\n\tb") == "a\\x1b]0;x\\x07\\u202e\\udcff\\r\\n\\tb"


def test_say_keeps_lines_apart_and_indents_them(capsys):
    say("a\nb\x1b\n", "  ")
    assert capsys.readouterr().out == "  a\n  b\\x1b\n\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.array([[1, 2]]), [[1, 2]]),
        (float("nan"), None),
        ({"a": float("inf"), 2: None}, {"a": None, "2": None}),
        ((1, "b", True), [1, "b", True]),
    ],
)
def test_plain(value, expected):
    assert plain(value) == expected


def test_report_prints_one_or_the_other(capsys):
    report({"a": np.arange(2), "name": "\x1b"}, "text", True)
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": [0, 1], "name": "\x1b"} and "\x1b" not in out
    report({"a": 1}, "text", False)
    assert capsys.readouterr().out == "text\n"


def test_words():
    assert [count(n, "row") for n in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert shown({"k": 1, "kernel": "gaussian", "sigma": None, "lmbda": 0.25}) == "k=1, kernel=gaussian, lmbda=0.25"
    assert [size(n) for n in (999, 123_456, 7 * 10**9)] == ["999 bytes", "123.5 kB", "7.0 GB"]
