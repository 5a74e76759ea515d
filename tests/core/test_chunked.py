import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from residua.core import ChunkedTensor


@st.composite
def cut(draw):
    """A tensor (n, 2), n > 0, and the same in chunks, of which some may be empty."""
    sizes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(sum))
    whole = torch.arange(2 * sum(sizes)).view(-1, 2).half()
    return whole, ChunkedTensor(whole.split(sizes))


@given(cut(), st.data())
def test_it_reads_as_the_tensors_joined(pair, data):
    whole, chunked = pair
    n = len(whole)
    assert (len(chunked), chunked.shape, chunked.dtype, chunked.numel()) == (n, whole.shape, whole.dtype, whole.numel())
    rows = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), max_size=6)), dtype=torch.int64)
    assert torch.equal(chunked[rows], whole[rows])
    assert torch.equal(chunked.index_select(0, rows), whole[rows])
    assert torch.equal(chunked[rows[:, None]], whole[rows[:, None]])
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    assert torch.equal(chunked[mask], whole[mask])
    start, stop = data.draw(st.integers(-n - 2, n + 2)), data.draw(st.integers(-n - 2, n + 2))
    step = data.draw(st.integers(1, 3))
    assert torch.equal(chunked[start:stop:step], whole[start:stop:step])
    row = data.draw(st.integers(-n, n - 1))
    assert torch.equal(chunked[row], whole[row])
    length = data.draw(st.integers(0, n))
    assert len(chunked.first(length)) == length and torch.equal(chunked.first(length)[:], whole[:length])
    assert chunked.nbytes == whole.nbytes


@given(cut(), st.data())
def test_some_of_its_rows_read_as_the_tensors_joined_and_taken(pair, data):
    whole, chunked = pair
    for _ in range(data.draw(st.integers(1, 3))):
        mask = data.draw(st.lists(st.booleans(), min_size=len(whole), max_size=len(whole)))
        rows = torch.tensor(mask, dtype=torch.bool).nonzero()[:, 0]
        whole, chunked = whole[rows], chunked.take(rows)
        length = data.draw(st.integers(0, len(whole)))
        assert torch.equal(chunked.first(length)[:], whole[:length])
        if data.draw(st.booleans()):
            whole, chunked = whole[:length], chunked.first(length)
        more = torch.full((data.draw(st.integers(0, 4)), 2), 0.5).half()
        whole, chunked = torch.cat([whole, more]), chunked.appended(more if len(more) != 2 else ChunkedTensor([more]))
        assert (chunked.shape, chunked.nbytes) == (whole.shape, whole.nbytes) and torch.equal(chunked[:], whole)
        start, stop = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, len(whole)))
        assert torch.equal(chunked[start:stop], whole[start:stop])
        if len(whole):
            rows = torch.tensor(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)), dtype=torch.int64)
            assert torch.equal(chunked[rows], whole[rows])


def test_what_is_taken_of_whole_chunks_is_no_copy():
    chunks = torch.zeros(2, 2), torch.zeros(3, 2), torch.zeros(2, 2)
    taken = ChunkedTensor(chunks).take(torch.tensor([0, 1, 5, 6]))
    assert taken.is_whole and len(taken.chunks) == 2
    chunks[0].fill_(1)
    assert taken[:].tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]
    assert not ChunkedTensor(chunks).take(torch.tensor([0, 5, 6])).is_whole


def test_a_slice_within_one_chunk_and_the_first_rows_are_views():
    chunks = torch.zeros(3, 2), torch.zeros(3, 2)
    chunked = ChunkedTensor(chunks)
    chunked[4:6][:] = 1
    chunked.first(2)[:][:] = 2
    assert chunks[1].tolist() == [[0, 0], [1, 1], [1, 1]] and chunks[0].tolist() == [[2, 2], [2, 2], [0, 0]]


@pytest.mark.parametrize("rows", [[-1], [3], [0, 7]])
def test_rows_that_are_not_there(rows):
    with pytest.raises(IndexError, match="of 3"):
        ChunkedTensor([torch.zeros(1, 2), torch.zeros(2, 2)])[torch.tensor(rows)]


@given(st.lists(st.integers(0, 6), max_size=6))
def test_what_is_appended_leaves_the_older_ones_as_they_were(sizes):
    whole, made = torch.zeros(3, 2), [ChunkedTensor([torch.zeros(3, 2)])]
    for number, size in enumerate(sizes):
        rows = torch.full((size, 2), number + 1.0)
        whole = torch.cat([whole, rows])
        made.append(made[-1].appended(ChunkedTensor([rows]) if number % 3 == 2 else rows))
    for chunked in made:
        assert torch.equal(chunked[:], whole[: len(chunked)])
    assert len(made[-1]) == len(whole)


def test_rows_appended_one_by_one_become_few_chunks():
    chunked = ChunkedTensor([torch.zeros(1, 2)])
    for _ in range(100):
        chunked = chunked.appended(torch.ones(1, 2))
    assert len(chunked.chunks) == 2 and len(chunked) == 101
