"""RunLengthArray hold exactly the values they were given, in as few runs as a greedy reading finds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.memory.run_length import RunLengthArray

# Small steps make runs, of both kinds and of length one; the extremes wrap around when subtracted.
VALUES = st.one_of(
    st.lists(st.sampled_from([0, 0, 1, 1, 1, -3, 5]), max_size=40).map(lambda steps: np.cumsum(steps).tolist()),
    st.lists(st.sampled_from([-(2**63), 2**63 - 1, 2**63 - 2, 0, 1]), max_size=8),
)


def tensor(values):
    return torch.tensor(values, dtype=torch.int64)


def greedy(values):
    """(start, first, step) of each run, read one value after another."""
    runs, start = [], 0
    while start < len(values):
        end, step = start + 1, 0
        if end < len(values) and values[end] - values[start] in (0, 1):
            step = values[end] - values[start]
            while end < len(values) and values[end] - values[end - 1] == step:
                end += 1
        runs.append((start, values[start], step))
        start = end
    return runs


def as_list(runs):
    return list(zip(*(column.tolist() for column in runs.to_tensors().values())))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(VALUES, st.lists(st.integers(0, 40), max_size=4), st.data())
def test_runs_are_their_values_however_they_came(values, cuts, data):
    n = len(values)
    cuts = sorted(min(cut, n) for cut in cuts)
    runs = RunLengthArray()
    for start, end in zip([0, *cuts], [*cuts, n]):
        runs = runs.appended(tensor(values[start:end]))
    joined = RunLengthArray()
    for start, end in zip([0, *cuts], [*cuts, n]):
        joined = joined.appended(RunLengthArray(tensor(values[start:end])))
    assert as_list(joined) == as_list(runs) and len(joined) == n
    assert len(runs) == n and runs[:].tolist() == values
    assert as_list(runs) == greedy(values)
    wanted = data.draw(st.lists(st.sampled_from([*values, 4, -1]), max_size=4))
    assert runs.rows_with(wanted).tolist() == [row for row, value in enumerate(values) if value in wanted]
    assert RunLengthArray.from_tensors(runs.to_tensors(), n)[:].tolist() == values
    kept = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    left = [value for value, keep in zip(values, kept) if keep]
    other = RunLengthArray(RunLengthArray(tensor(values))[torch.tensor(kept, dtype=torch.bool).nonzero()[:, 0]])
    assert as_list(other) == greedy(left)
    end = data.draw(st.integers(0, n))
    assert runs.distinct(torch.tensor(kept, dtype=torch.bool)) == len(set(left))
    part = runs.first(end)
    assert as_list(part) == greedy(values[:end])
    assert as_list(part.appended(tensor(values))) == greedy(values[:end] + values)
    assert as_list(runs) == greedy(values) and as_list(part) == greedy(values[:end])


def test_rows_of_any_shape():
    runs = RunLengthArray(tensor([7, 7, 7, 20, 21, 22]))
    assert runs.count == 2
    assert runs[torch.tensor([[0, 5], [3, 2]])].tolist() == [[7, 22], [20, 7]]
    assert (runs[4].item(), runs[-1].item(), runs[1:5:2].tolist(), runs[6:].tolist()) == (21, 22, [7, 20], [])
    assert runs[torch.empty((0, 3), dtype=torch.int64)].shape == (0, 3)
    with pytest.raises(IndexError):
        runs[6]


def test_a_corpus_costs_its_documents_not_its_tokens():
    documents = torch.arange(200).repeat_interleave(500)
    offsets = torch.arange(500).repeat(200)
    ids, places = RunLengthArray(documents), RunLengthArray(offsets)
    assert ids.nbytes == places.nbytes == 200 * 24
    assert ids.rows_with([3, 150]).tolist() == [*range(1500, 2000), *range(75_000, 75_500)]
    assert places.rows_with([499]).tolist() == list(range(499, 100_000, 500))
    assert ids.is_compact and RunLengthArray(torch.arange(10**6)).count == 1
    assert not RunLengthArray(torch.arange(10_000) * 2).is_compact


def test_what_are_no_runs_is_refused():
    runs = RunLengthArray(tensor([5, 5, 9]))
    tensors = runs.to_tensors()
    for bad, length in [
        (tensors, 1),
        (tensors, 0),
        ({**tensors, "start": tensor([1, 2])}, 3),
        ({**tensors, "start": tensor([0, 0])}, 3),
        ({**tensors, "first": tensor([5])}, 3),
    ]:
        with pytest.raises(ValueError, match=f"do not describe {length} values"):
            RunLengthArray.from_tensors(bad, length)
