"""Kneser-Ney by hand: what it says, that it says one in all, and what it remembers."""

import numpy as np
import pytest

from experiments.gains.ngrams import NGrams

V = 6


@pytest.fixture(scope="module")
def text():
    rng = np.random.default_rng(0)
    return rng.integers(0, V, 300), np.repeat(np.arange(10), 30)


def test_a_bigram_by_hand():
    # Bigrams, | begins: |1 once, 12 twice, 21 once, 23 once, so that the discount is 3 / (3 + 2) = .6. In how many
    # places each token ends one: 1 in two, 2 and 3 in one, so that the lower discount is 2 / (2 + 2) = .5.
    model = NGrams(np.array([1, 2, 1, 2, 3]), np.zeros(5), vocabulary=4, orders=(2,))
    lower = {token: (places - 0.5) / 4 + 0.5 * 3 / 4 / 4 for token, places in {1: 2, 2: 1, 3: 1}.items()}
    lower[0] = 0.5 * 3 / 4 / 4
    expected = [0.4 + 0.6 * lower[1], (2 - 0.6) / 2 + 0.6 / 2 * lower[2], 0.6 * 2 / 2 * lower[0]]
    said = model.probabilities(np.array([1, 2, 0]), np.zeros(3))
    np.testing.assert_allclose(said, [expected])


@pytest.mark.parametrize("context", [[], [1], [1, 2], [3, 3, 3], [5, 1, 2, 4, 0]])
def test_probabilities_of_all_tokens_add_up_to_one(text, context):
    model = NGrams(*text, vocabulary=V + 1)  # one token was never seen
    said = [model.probabilities(np.array([*context, token]), np.zeros(len(context) + 1)) for token in range(V + 1)]
    np.testing.assert_allclose(np.sum(said, axis=0)[:, -1], 1)
    assert np.min(said) > 0


def test_the_longest_remembered_ngram_is_the_longest_in_any_document(text):
    tokens, documents = text
    model = NGrams(tokens, documents, V, orders=(1, 2, 3, 4))
    asked = np.random.default_rng(1).integers(0, V + 1, 60)
    padded = [[-1] * 4 + tokens[documents == one].tolist() for one in range(10)]
    seen = {tuple(one[i - n + 1 : i + 1]) for one in padded for n in range(1, 5) for i in range(4, len(one))}
    said = [-1] * 4 + asked.tolist()
    expected = [
        max([n for n in range(1, 5) if tuple(said[i - n + 1 : i + 1]) in seen], default=0) for i in range(4, 64)
    ]
    assert model.longest(asked, np.zeros(60)).tolist() == expected


def test_a_match_is_of_what_stands_before_a_token_and_never_of_it(text):
    model = NGrams(*text, V, orders=(1, 2, 3, 4))
    asked = np.random.default_rng(1).integers(0, V + 1, 60)
    match, longest = (of(asked, np.zeros(60)) for of in (model.match, model.longest))
    assert (match[1:] <= np.minimum(longest[:-1], 3)).all()  # less where a document ends there
    for last in range(V + 1):
        other = np.r_[asked[:-1], last]
        assert np.array_equal(model.match(other, np.zeros(60)), match)
    assert match[0] == 3  # marks of a beginning: every document has them


def test_context_ends_where_a_document_does():
    model = NGrams(np.array([1, 2, 1, 2]), np.zeros(4), vocabulary=4, orders=(2,))
    together, apart = (model.probabilities(np.array([1, 2]), np.array(ids)) for ids in ([0, 0], [0, 1]))
    assert together[0, 1] > apart[0, 1]
