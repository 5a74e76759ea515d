import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from residua.index.nearest import blocks, missing, ordered, pack, root, scan, squared_distances, unpack


def nearest(queries, keys, rows, k):
    return ordered(squared_distances(queries, keys, rows), rows, k)


def test_squared_distances_by_hand():
    keys = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    found = squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), keys, torch.tensor([[1, 2, -1], [0, 1, 2]]))
    assert found.tolist() == [[25.0, 100.0, torch.inf], [25.0, 0.0, 25.0]]


def test_distances_keep_their_digits_far_from_the_origin():
    rng = np.random.default_rng(0)
    keys = (rng.normal(size=(30, 8)) + 1e4).astype(np.float32)
    query = (rng.normal(size=(1, 8)) + 1e4).astype(np.float32)
    true = np.sqrt(((query.astype(np.float64) - keys) ** 2).sum(axis=1))
    found = squared_distances(torch.from_numpy(query), torch.from_numpy(keys), torch.arange(30)[None])
    np.testing.assert_allclose(root(found)[0].numpy(), true, rtol=1e-6)


def test_a_distance_does_not_depend_on_what_is_computed_beside_it():
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(300, 67, generator=generator), torch.randn(500, 67, generator=generator)
    rows = torch.randint(500, (300, 90), generator=generator)
    whole = squared_distances(queries, keys, rows)
    for i in range(0, 300, 37):
        assert torch.equal(squared_distances(queries[i : i + 1], keys, rows[i : i + 1]), whole[i : i + 1])
        assert torch.equal(squared_distances(queries[i : i + 1], keys, rows[i : i + 1, 5:6]), whole[i : i + 1, 5:6])


finite = st.floats(0, 2.0**127, width=32)
neighbour = st.tuples(finite | st.just(float("inf")), st.integers(-1, 2**32 - 2))


@given(st.lists(neighbour, min_size=1, max_size=20))
def test_packing_orders_by_distance_then_row_and_loses_nothing(items):
    items = [(float("inf"), -1) if row < 0 else (distance, row) for distance, row in items]
    packed = pack(torch.tensor([[d for d, _ in items]]), torch.tensor([[r for _, r in items]])).sort(dim=1).values
    found = unpack(packed)
    in_order = sorted(items, key=lambda item: (item[0], item[1] < 0, item[1]))
    assert list(zip(found.squared[0].tolist(), found.rows[0].tolist())) == in_order


def test_nearest_pads_and_orders_ties_by_row():
    keys = torch.tensor([[1.0], [-1.0], [5.0]])
    found = nearest(torch.tensor([[0.0]]), keys, torch.tensor([[2, 1, -1, 0]]), 5)
    assert found.rows.tolist() == [[0, 1, 2, -1, -1]]
    assert found.squared.tolist() == [[1.0, 1.0, 25.0, torch.inf, torch.inf]]
    assert found.neighbours().distances.tolist() == [[1.0, 1.0, 5.0, torch.inf, torch.inf]]


def test_scan_looks_at_the_given_rows_only():
    keys = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    found = scan(torch.tensor([[0.0], [3.0]]), keys, torch.tensor([1, 3]), 3)
    assert found.rows.tolist() == [[1, 3, -1], [3, 1, -1]]


@pytest.mark.slow
def test_scan_in_tiles_equals_scan_at_once():
    generator = torch.Generator().manual_seed(1)
    keys = torch.randint(0, 3, (9000, 4096), generator=generator).float()  # three tiles
    queries = keys[[5, 8000]] + 1
    found = scan(queries, keys, torch.arange(9000), 7)
    squared = (keys[None] - queries[:, None]).square().sum(dim=2)
    assert torch.equal(found.rows, squared.sort(dim=1, stable=True).indices[:, :7])


def test_blocks_cover_everything_once():
    assert [list(range(7))[part] for part in blocks(7, 10, 30)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(list(blocks(3, 10**9, 1))) == 3


def test_missing():
    none = missing(2, 3, torch.device("cpu"))
    assert none.rows.dtype == torch.int64 and (none.rows == -1).all() and torch.isinf(none.squared).all()


def test_the_root_is_correctly_rounded_whatever_the_processor():
    """A vendor's root that is one unit off lets ties fall elsewhere on another machine."""
    squared = torch.arange(0, 5000, dtype=torch.float32)
    true = np.sqrt(np.arange(0, 5000, dtype=np.float64)).astype(np.float32)  # rounded twice, and still right for these
    np.testing.assert_array_equal(root(squared).numpy(), true)


def test_squared_distances_decide_where_their_roots_are_equal():
    """2^24 and 2^24 + 2 have the same float32 root: the nearer row comes first, though it has the higher number."""
    keys = torch.tensor([[4096.0, 2.0**0.5], [4096.0, 0.0]])
    found = nearest(torch.zeros(1, 2), keys, torch.tensor([[0, 1]]), 2)
    assert found.squared[0, 0] < found.squared[0, 1] and found.neighbours().distances[0].unique().numel() == 1
    assert found.rows.tolist() == [[1, 0]]
