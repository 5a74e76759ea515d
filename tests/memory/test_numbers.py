"""Keys of any offset and scale are searched as float64 would, or refused."""

import numpy as np
import pytest

import residua as rs
from residua.errors import NonFiniteError

OFFSETS = [0, 1e6, -4.5e6, 1e9, 1e12]
SCALES = [1e-16, 1e-8, 1.0, 1e8, 1e18]


def made(n, seed, offset, scale):
    return offset + scale * np.random.default_rng(seed).normal(size=(n, 3))


def remembered(keys, **options):
    return rs.Memory(rs.Encoded(keys, np.zeros((len(keys), 2)), np.arange(len(keys)) % 2), **options)


def nearest(keys, queries, k):
    distances = np.sqrt(np.square(queries[:, None] - keys).sum(axis=2))
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(distances, rows, axis=1)


def same_as_float64(keys, queries, found):
    rows, distances = nearest(keys, queries, found.k)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-4, atol=1e-4 * distances.max())
    assert (found.rows.numpy() == rows).mean() > 0.99  # what float32 distances cannot tell apart may change places


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("index", ["exact", "HNSW16"])
def test_what_is_large_beside_its_spread_is_subtracted_before_it_is_rounded(offset, index):
    keys, queries = made(400, 0, offset, 1.0), made(50, 1, offset, 1.0)
    memory = remembered(keys[:300], index=index)
    memory.add(rs.Encoded(keys[300:], np.zeros((100, 2)), np.arange(100) % 2))
    same_as_float64(keys, queries, memory.search(queries, 5))
    reader = rs.ResMem(memory, k=1)
    assert (reader.predict(rs.Encoded(queries, np.zeros((50, 2)))) == (nearest(keys, queries, 1)[0][:, 0] % 2)).all()


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_that_float32_distances_hold(scale):
    keys, queries = made(300, 0, 0, scale), made(50, 1, 0, scale)
    memory = remembered(keys)
    same_as_float64(keys, queries, memory.search(queries, 5))
    assert 0 < memory.median_nn_distance() / scale < 1


@pytest.mark.parametrize("scale", [1e-23, 1e-20, 1e19, 1e25, 1e60])
def test_what_they_do_not_hold_is_refused(scale):
    with pytest.raises(NonFiniteError, match=r"scale them|float32"):
        remembered(made(300, 0, 0, scale))


def test_seconds_and_metres_survive_a_file(tmp_path):
    keys = made(100, 0, 1.7e9, 30.0)
    rs.Encoded(keys, np.zeros((100, 2)), np.arange(100) % 2).save(tmp_path / "rows.npz")
    memory = rs.Memory(rs.Encoded.load(tmp_path / "rows.npz"))
    memory.save(tmp_path / "mem")
    same_as_float64(keys, keys[:20] + 0.5, rs.Memory.load(tmp_path / "mem").search(keys[:20] + 0.5, 5))


@pytest.mark.parametrize("key_dtype", ["float16", "bfloat16"])
def test_half_precision_keys_that_collapse_are_refused(key_dtype):
    near = np.linspace(0, 1e-4, 500)[:, None]
    keys = np.concatenate([near + 7, -near + 9])  # two places, far apart beside what differs within each
    assert len(remembered(keys)) == 1000
    with pytest.raises(NonFiniteError, match=f"different keys become the same in {key_dtype}"):
        remembered(keys, key_dtype=key_dtype)
    assert len(remembered(made(300, 0, 1e6, 1.0), key_dtype=key_dtype)) == 300


@pytest.mark.parametrize("key_dtype", ["float16", "bfloat16"])
def test_a_few_rows_that_are_near_to_each_other_are_no_collapse(key_dtype):
    memory = remembered(made(300, 0, 0, 1.0), key_dtype=key_dtype)
    pair = np.full((2, 3), 1.5) + np.array([[0], [1e-6]])
    memory.add(rs.Encoded(pair, np.zeros((2, 2)), [0, 1]))
    assert len(memory) == 302


@pytest.mark.parametrize("column", [0, 2])
def test_what_does_not_fit_is_named_by_its_row_and_column(column):
    keys = made(30, 0, 0, 1.0)
    keys[7, column] = 1e30
    with pytest.raises(NonFiniteError, match=f"row 7, column {column}"):
        remembered(keys)
    keys[7, column] = np.nan
    with pytest.raises(NonFiniteError, match=f"row 7, column {column}"):
        remembered(keys)
