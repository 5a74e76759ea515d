import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import residua as rs
from residua.errors import EmptyMemoryError, IdError, ParameterError, StorageError


def rows(n, seed=0, at=0.0, **options):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 3)) + at
    return rs.Encoded(keys, keys[:, :2] * 0, (keys[:, 0] + rng.normal(size=n) > 0).astype(int), **options)


@pytest.mark.parametrize("k", [0, 5, 80])
def test_p_values_are_counted_beside_the_memorys_own_rows(k):
    memory = rs.Memory(rows(300))
    found = rs.ResMem(memory, k=k).familiarity(rows(40, 1, at=0.5))
    far = max(k, 50)
    own = memory.search(memory.keys, far + 1).distances[:, -1].numpy()  # beyond the row itself
    asked = memory.search(rows(40, 1, at=0.5).keys, far).distances[:, -1].numpy()
    assert_allclose(found.distance, asked, rtol=1e-6)
    assert_allclose(found.unfamiliar, (1 + (own >= asked[:, None]).sum(axis=1)) / 301, atol=2 / 301)
    assert (found.k, found.m) == (far, 300)


@pytest.mark.parametrize("make", [rs.ResMem, rs.KNNLM])
def test_fresh_rows_have_uniform_p_values_and_far_ones_small(make):
    reader = make(rs.Memory(rows(1500)), k=30)
    fresh = reader.familiarity(rows(1500, 1))
    for p in (fresh.unfamiliar, fresh.unsure):
        for level in (0.05, 0.2, 0.5):
            assert abs((p <= level).mean() - level) < 4 * np.sqrt(2 * level * (1 - level) / 1500)
    assert (reader.familiarity(rows(100, 2, at=4.0)).unfamiliar < 0.01).mean() > 0.95
    assert "at p = 0.05" in repr(fresh) and len(fresh) == 1500
    assert list(fresh.to_frame()) == ["distance", "unfamiliar", "unsure"]


def test_between_the_classes_one_is_unsure_and_not_unfamiliar():
    reader = rs.ResMem(rs.Memory(rows(2000)), k=100)
    between = rs.Encoded([[0.0, 0, 0], [2.0, 0, 0], [9.0, 0, 0]], np.zeros((3, 2)))
    found = reader.familiarity(between)
    assert found.unsure[0] < 0.15 < found.unsure[1]
    assert (found.unfamiliar < 0.02).tolist() == [False, False, True]


def test_a_remembered_row_is_answered_without_itself():
    enc = rows(200, ids=np.arange(200))
    reader = rs.ResMem(rs.Memory(enc), k=60)
    own, itself = reader.familiarity(enc), reader.familiarity(enc, exclude=None)
    assert (own.distance > itself.distance).all()
    ranks = np.sort(own.unfamiliar)
    assert_allclose(ranks, (np.arange(200) + 2) / 201, atol=1e-9)


def test_unknown_rows_are_answered_so():
    reader = rs.ResMem(rs.Memory(rows(500)), k=20)
    mixed = [rows(30, 1), rows(5, 2, at=6.0)]
    said = reader.predict(iter(mixed), unknown=0.01)
    assert (said[-5:] == -1).all() and (said[:30] == -1).mean() < 0.1
    assert_array_equal(said[said >= 0], reader.predict(mixed)[said >= 0])
    memory = rs.Memory(rs.Encoded(rows(500).keys, np.zeros(500), rows(500).keys[:, 0]))
    query = rs.Encoded(np.array([[0.0, 0, 0], [9.0, 9, 9]]), np.zeros(2))
    assert np.isnan(rs.ResMem(memory, k=5).predict(query, unknown=0.01)).tolist() == [False, True]
    for wrong in (0, 1, -1):
        with pytest.raises(ParameterError, match="expected a p-value between 0 and 1"):
            reader.predict(mixed, unknown=wrong)


def test_a_memory_too_small_for_the_threshold_says_so():
    reader = rs.ResMem(rs.Memory(rows(50)), k=5)
    with pytest.warns(UserWarning, match=r"50 remembered rows give none under 0.02. Remember more rows, or raise it"):
        assert (reader.predict(rows(5, 1, at=9.0), unknown=0.01) >= 0).all()
    assert (reader.predict(rows(5, 1, at=9.0), unknown=0.02) == -1).all()


def test_an_edited_memory_is_measured_again():
    memory = rs.Memory(rows(300))
    reader = rs.ResMem(memory, k=20)
    query = rows(10, 1, at=5.0)
    before = reader.familiarity(query).unfamiliar
    memory.add(rows(200, 2, at=5.0))
    assert (before < 0.05).all() and (reader.familiarity(query).unfamiliar > 0.05).any()
    memory.forget(np.arange(300, 500))
    assert_array_equal(reader.familiarity(query).unfamiliar, before)


def test_numbers_are_unsure_where_the_neighbours_residuals_are_large():
    x = np.random.default_rng(0).uniform(-1, 1, size=(600, 1))
    noise = np.random.default_rng(1).normal(size=(600, 2)) * (0.1 + (x > 0))
    reader = rs.ResMem(rs.Memory(rs.Encoded(x, np.zeros((600, 2)), noise)), k=40)
    unsure = reader.familiarity(rs.Encoded([[-0.6], [0.6]], np.zeros((2, 2)))).unsure
    assert unsure[1] < 0.5 < unsure[0]


def test_several_labels_and_label_memories():
    enc = rows(200)
    several = rs.Encoded(enc.keys, enc.logits, np.stack([enc.labels, enc.keys[:, 1] > 0], axis=1).astype(int))
    asked = rs.Encoded(rows(20, 1).keys, np.zeros((20, 2)))
    found = rs.ResMem(rs.Memory(several), k=20).familiarity(asked)
    assert ((found.unsure > 0) & (found.unsure <= 1)).all()
    said = rs.ResMem(rs.Memory(several), k=20).predict(rs.Encoded(asked.keys[:5] + 9, np.zeros((5, 2))), unknown=0.02)
    assert said.shape == (5, 2) and (said == -1).all()
    alone = rs.KNNLM(rs.Memory(enc, storage="none"), k=20, lmbda=1.0).familiarity(rows(20, 1))
    assert (
        alone.unsure is None and (alone.unfamiliar > 0).all() and list(alone.to_frame()) == ["distance", "unfamiliar"]
    )


def test_large_offsets_and_short_keys_keep_their_distances():
    enc, query = rows(300), rows(50, 1)
    shifted = rs.Memory(rs.Encoded(enc.keys * 1e-3 + 4.5e6, enc.logits, enc.labels))
    plain = rs.ResMem(rs.Memory(enc), k=20).familiarity(query)
    moved = rs.ResMem(shifted, k=20).familiarity(rs.Encoded(query.keys * 1e-3 + 4.5e6, query.logits))
    assert_allclose(moved.unfamiliar, plain.unfamiliar, atol=0.02)
    half = rs.ResMem(rs.Memory(enc, key_dtype="float16"), k=20).familiarity(query)
    assert_allclose(half.unfamiliar, plain.unfamiliar, atol=0.02)


def test_degenerate_memories():
    one = rs.Memory(rows(1))
    found = rs.ResMem(one, k=1).familiarity(rows(4, 1))
    assert found.unfamiliar.tolist() == [1.0] * 4
    assert rs.ResMem(one, k=1).familiarity(rows(4, 1)[:0]).unfamiliar.shape == (0,)
    constant = rs.Memory(rs.Encoded(np.ones((80, 3)), np.zeros((80, 2)), np.arange(80) % 2))
    found = rs.ResMem(constant, k=3, sigma=1.0).familiarity(rs.Encoded([[1.0, 1, 1], [2, 1, 1]], np.zeros((2, 2))))
    assert found.unfamiliar.tolist() == [1.0, 1 / 81]
    reader = rs.ResMem(one, k=1)
    one.forget([0])
    with pytest.raises(EmptyMemoryError, match="the memory is empty"):
        reader.familiarity(rows(4, 1))


def test_documents_are_judged_as_a_whole():
    memory = rs.Memory(rows(600, ids=np.arange(600) // 20))
    reader = rs.ResMem(memory, k=10)
    near, far = rows(40, 1, ids=np.arange(40) // 20 + 100), rows(20, 2, at=1.5, ids=np.full(20, 200))
    found = reader.familiarity([far, near]).documents()
    assert found.ids.tolist() == [100, 101, 200] and found.m == 30
    assert found.unfamiliar[2] == 1 / 31 < found.unfamiliar[:2].min()
    with pytest.raises(IdError, match="have no ids"):
        reader.familiarity(rows(5, 1)).documents()


def test_discarded_keys_cannot_be_compared():
    enc = rows(400)
    memory = rs.Memory(enc, index="IVF4,SQ8", index_params={"nprobe": 4})
    memory.discard_keys()
    with pytest.raises(StorageError, match="keys were discarded"):
        rs.ResMem(memory, k=5, sigma=1.0).familiarity(rows(5, 1))


def test_a_cache_is_as_familiar_as_the_reader_under_it():
    enc = rows(200, ids=np.arange(200) // 50)
    reader = rs.KNNLM(rs.Memory(enc), k=20)
    query = rows(20, 1, ids=np.full(20, 9))
    under, over = reader.familiarity(query), rs.ContinuousCache(reader, theta=1.0).familiarity(query)
    assert_array_equal(under.unfamiliar, over.unfamiliar)
    assert_array_equal(under.unsure, over.unsure)
    assert (rs.ContinuousCache(reader, theta=1.0).predict(rows(5, 1, at=9.0, ids=[9] * 5), unknown=0.02) == -1).all()
