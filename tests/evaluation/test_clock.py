"""Time is counted where it is spent."""

import time
from collections import defaultdict

import numpy as np
import pytest

import residua as rs
from residua.evaluation.evaluate import timed


def slow(n, seconds=0.01):
    for i in range(n):
        time.sleep(seconds)
        yield i


def test_only_making_the_items_counts():
    seconds = defaultdict(float)
    for _ in timed("making", slow(3), seconds):
        time.sleep(0.05)
    assert 0.03 <= seconds["making"] < 0.1


def test_the_inner_is_part_of_the_outer():
    seconds = defaultdict(float)
    assert list(timed("outer", (i for i in timed("inner", slow(3), seconds)), seconds)) == [0, 1, 2]
    assert seconds["outer"] >= seconds["inner"] >= 0.03


def test_errors_pass():
    seconds = defaultdict(float)
    with pytest.raises(ZeroDivisionError):
        list(timed("bad", (1 // i for i in (1, 0)), seconds))
    assert seconds["bad"] >= 0


def test_a_rows_time_is_that_of_searching_and_reading():
    def slowly(n):
        for _ in slow(n, 0.05):
            yield rs.Encoded(np.ones((2, 2)), np.zeros((2, 2)), [0, 1])

    reader = rs.ResMem(rs.Memory(rs.Encoded(np.eye(2), np.zeros((2, 2)), [0, 1])), k=1, sigma=1.0)
    found = rs.evaluate(reader, slowly(3), n_bootstrap=10)
    assert 0 < found.seconds_per_row < 1 / found.tokens_per_second
    assert found.seconds_per_row == pytest.approx(1 / found.tokens_per_second - 1 / found.base_tokens_per_second)
