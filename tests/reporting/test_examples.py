"""Which rows are shown, and what stands before a token."""

from types import SimpleNamespace

import numpy as np

import residua as rs
from residua.reporting.examples import answers_alone, before, choose, picked


def result(label, base, now, clear):
    label, base, now = map(np.array, (label, base, now))
    gain = (now == label) * 1.0 - (base == label)
    rows = {"label": label, "base_prediction": base, "prediction": now, "gain": gain}
    rows |= {"base_log_prob": np.zeros(len(label)), "log_prob": np.array(clear, float)}
    return SimpleNamespace(task="classification", per_row=rows)


def test_the_clearest_of_each_confusion_the_most_frequent_first():
    # 0 taken for 1 three times, 0 for 2 once, all mended; the last row is as it was.
    found = result([0, 0, 0, 0, 1], [1, 1, 2, 1, 1], [0, 0, 0, 0, 1], [0.1, 0.9, 5.0, 0.2, 0])
    assert choose(found, True, 2) == [1, 2]
    assert choose(found, True, 9) == [1, 2, 3, 0]
    assert choose(found, False, 9) == [] and choose(found, True, 0) == []


def test_what_broke_is_sorted_by_how_much_it_fell():
    found = result([0, 0, 1], [0, 0, 1], [1, 1, 0], [-0.1, -3.0, -1.0])
    assert choose(found, False, 2) == [1, 2]


def test_numbers_are_sorted_by_their_gain():
    found = SimpleNamespace(task="regression", per_row={"gain": np.array([0.0, 2.0, -1.0, 3.0, -5.0])})
    assert choose(found, True, 9) == [3, 1] and choose(found, False, 1) == [4]


def test_rows_are_found_in_batches_and_what_follows_is_not_read(rows):
    whole, seen = rows(0, 30), []

    def stream():
        for begin in range(0, 30, 10):
            seen.append(begin)
            yield whole[begin : begin + 10]

    found = picked(stream(), [12, 3, 3])
    assert seen == [0, 10] and sorted(found) == [3, 12]
    assert all((found[row].keys == whole.keys[row]).all() for row in found)
    assert picked(stream(), []) == {}


def test_a_token_stands_after_those_of_its_own_document_without_a_gap():
    rows = {"id": np.array([7, 7, 8, 8, 8, 8]), "label": np.array([1, 2, 3, 4, 5, 6])}
    text = SimpleNamespace(per_row=rows, columns={"offset": np.array([0, 1, 0, 1, 3, 4])})
    assert before(text, 1).tolist() == [1] and before(text, 2).tolist() == [] and before(text, 3).tolist() == [3]
    assert before(text, 5).tolist() == [5]  # 2 is missing
    assert before(text, 3, most=0).tolist() == []
    assert before(SimpleNamespace(per_row=rows, columns={}), 3).tolist() == []


def test_a_reader_that_looks_back_is_left_for_the_one_under_it(reader):
    assert answers_alone(reader) is reader
    assert answers_alone(rs.ContinuousCache(rs.ContinuousCache(reader))) is reader
