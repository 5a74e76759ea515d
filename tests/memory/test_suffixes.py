"""Suffixes against a search through every document by hand, whatever is forgotten in between."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.memory.suffixes import DEPTH, MANY, Suffixes, goes_on, match_itself

TOKENS = st.lists(st.integers(0, 2), max_size=2 * DEPTH)


def remembered(documents, tokens=3):
    labels = np.concatenate([np.array(one, np.int64) for one in documents])
    lengths = [len(one) for one in documents]
    return rs.Memory(
        rs.Encoded(
            np.zeros((len(labels), 1)),
            np.zeros((len(labels), tokens)),
            labels,
            np.repeat(np.arange(len(documents)), lengths),
            columns={"offset": np.concatenate([np.arange(length) for length in lengths])},
        )
    )


def by_hand(documents, text):
    """What follows each occurrence of the longest suffix of `text` that a token follows, and its length."""
    for length in range(min(len(text), DEPTH), -1, -1):
        suffix = text[len(text) - length :]
        ends = [(one, end) for one in documents for end in range(max(length, 1), len(one))]
        found = [one[end:] for one, end in ends if one[end - length : end] == suffix]
        if found:
            return sorted(found), length
    return [], 0


def rest(text, place):
    """The tokens after a place until its document's end."""
    found = []
    while (token := int(text[place + 1 + len(found)])) >= 0:
        found.append(token)
    return found


@pytest.mark.slow
@given(st.lists(TOKENS.filter(bool), min_size=1, max_size=5), TOKENS, st.data())
@settings(max_examples=60)
def test_the_longest_suffix_is_found_wherever_it_occurs(documents, text, data):
    memory = remembered(documents)
    gone = data.draw(st.sets(st.integers(0, len(documents) - 1)))
    if gone:
        memory.forget(sorted(gone))
    kept = [one for number, one in enumerate(documents) if number not in gone]
    suffixes = Suffixes(memory)
    places, length = suffixes.match(text)
    found = sorted(rest(suffixes.text, place) for place in places)
    assert (found, length) == by_hand(kept, text)


@given(TOKENS.filter(bool))
def test_a_text_in_itself_is_a_document_that_goes_on(text):
    places, length = match_itself(np.array(text))
    wanted, longest = by_hand([text], text)
    assert sorted(text[place + 1 :] for place in places) == wanted and length == longest


def test_deeper_than_sixteen_tokens_nothing_is_told_apart():
    same = [1] * DEPTH
    memory = remembered([[0, *same, 2], [2, *same, 0]])
    places, length = Suffixes(memory).match([2, *same])
    assert (len(places), length) == (2, DEPTH)


def test_what_follows_is_what_most_say_along_the_way():
    documents = [[5, 1, 2, 9], [5, 1, 3, 9], [5, 1, 3, 8], [5, 1, 3, 8], [5, 4, 4, 4]]
    suffixes = Suffixes(remembered(documents, 10))
    places, length = suffixes.match([7, 5])
    assert length == 1 and goes_on(suffixes.text, places, 9) == [1, 3, 8]  # and there the documents end
    assert goes_on(suffixes.text, places, 2) == [1, 3]
    assert goes_on(suffixes.text, places[:0], 2) == []


def test_a_sample_of_very_many_places_is_heard():
    said = np.tile([1, 2], 5 * MANY)
    assert goes_on(said, np.arange(0, len(said) - 1, 2), 4) == [2, 1, 2, 1]


def test_a_row_that_is_not_remembered_is_a_gap_that_no_suffix_crosses():
    memory = remembered([[0, 1, 2, 0, 1, 2, 2]])
    some = memory.where(offset=[0, 1, 3, 4, 5, 6])  # without the first 2
    suffixes = Suffixes(some)
    places, length = suffixes.match([0, 1])
    assert length == 2 and [rest(suffixes.text, place) for place in places] == [[2, 2]]
    assert suffixes.match([1, 2, 0])[1] == 1


def test_labels_and_order_are_those_of_now():
    memory = remembered([[0, 1], [1, 2, 1]])
    memory.relabel([0], 2)
    memory.add(rs.Encoded(np.zeros((2, 1)), np.zeros((2, 3)), [0, 0], [9, 9], columns={"offset": [0, 1]}))
    memory.forget([1])
    assert Suffixes(memory).text.tolist() == [-1, 2, 2, -1, 0, 0, -1]


@pytest.mark.parametrize("documents", [[[1]], [[1], [2]]])
def test_documents_of_one_token_say_nothing(documents):
    places, length = Suffixes(remembered(documents)).match([1])
    assert (places.tolist(), length) == ([], 0)
