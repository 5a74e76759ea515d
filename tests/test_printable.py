import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import residua as rs
from residua.printable import count, duration, one_line, plain, short, shown, size


@given(st.text(st.characters(exclude_categories=())))
def test_one_line_is_printable_and_keeps_what_was(text):
    safe = one_line(text)
    assert safe.isprintable()
    if text.isprintable():
        assert safe == text


def test_one_line_escapes_terminal_codes_and_stray_bytes():
    assert one_line("a\x1b]0;x\x07\u202e\udcff\r\n\tb") == "a\\x1b]0;x\\x07\\u202e\\udcff\\r\\n\\tb"


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


def test_words():
    assert [count(n, "row") for n in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert shown({"k": 1, "kernel": "gaussian", "sigma": None, "lmbda": 0.25}) == "k=1, kernel=gaussian, lmbda=0.25"


def test_readers_in_words_as_objects_and_as_what_is_saved_of_them():
    memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    share = rs.AdaptiveLambda(edges=[1.0], shares=[0.5, 0.125])
    reader = rs.ContinuousCache(rs.KNNLM(memory, k=2, sigma=1 / 3, lmbda=share), window=5, theta=2.0)
    inner = "KNNLM(k=2, lmbda=0.12 to 0.5 by distance, sigma=0.3333, temperature=1, kernel=gaussian)"
    assert short(reader) == short(reader.to_json()) == f"ContinuousCache(over={inner}, window=5, theta=2, lmbda=0.1)"


def test_size():
    assert [size(n) for n in (999, 123_456, 7 * 10**9)] == ["999 bytes", "123.5 kB", "7.0 GB"]


def test_duration():
    assert [duration(s) for s in (12.34, 1.0, 0.0005, 0.0)] == ["12.3 s", "1 s", "500 µs", "0 µs"]
