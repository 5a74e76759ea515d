"""What is large beside its spread keeps its digits: keys and targets are stored as differences from a centre."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import residua as rs
from residua.core import AbsentLogits, Head, HeadLogits
from residua.memory.schema import centre_of

RNG = np.random.default_rng(0)


def encoded(keys, labels=None, **more):
    """Rows whose keys stay float64, whatever an Encoded makes of them."""
    keys = np.asarray(keys, np.float64)
    labels = np.arange(len(keys)) % 2 if labels is None else labels
    rows = rs.Encoded(keys, np.zeros((len(keys), 2)), labels, **more)
    rows.keys = keys
    return rows


def nearest(keys, queries, k):
    distances = np.sqrt(((queries[:, None] - keys[None]) ** 2).sum(axis=2))
    return np.lexsort((np.broadcast_to(np.arange(len(keys)), distances.shape), distances))[:, :k], np.sort(distances)[
        :, :k
    ]


@pytest.mark.parametrize("index", ["exact", "IVF4,Flat"])
@pytest.mark.parametrize("offset", [4.5e6, -1.7e9, 1e12])
def test_neighbours_far_from_the_origin_are_the_true_ones(offset, index, tmp_path):
    if index != "exact":
        pytest.importorskip("faiss")
    keys = RNG.normal(size=(300, 3)) * [1, 5, 1] + [offset, 2, -offset]
    memory = rs.Memory(encoded(keys[:200]), index=index, index_params=None if index == "exact" else {"nprobe": 4})
    memory.add(encoded(keys[200:]))
    memory.save(tmp_path)
    queries = keys[:20] + RNG.normal(size=(20, 3)) / 10
    rows, distances = nearest(keys, queries, 7)
    rebuilt = rs.Memory.load(tmp_path)
    rebuilt.rebuild()
    for one in (memory, rs.Memory.load(tmp_path), rebuilt):
        found = one.search(queries, 7)
        assert found.rows.tolist() == rows.tolist() and found.distances.dtype == torch.float32
        np.testing.assert_allclose(found.distances, distances, rtol=1e-5)
        np.testing.assert_allclose(one.keys, keys, rtol=0, atol=1e-6 * 20 + abs(offset) * 2e-16)
        assert one.keys.dtype == np.float64
        assert one.median_nn_distance() == pytest.approx(float(np.median(nearest(keys, keys, 2)[1][:, 1])), rel=0.02)
        assert one.keys_at([[0, 7]]).dtype == torch.float32 and one.keys_at([[0, 7]]).shape == (1, 2, 3)
        np.testing.assert_array_equal(one.keys_at(np.arange(300)), one.keys.astype(np.float32))


def test_rows_added_far_from_the_first_are_refused_or_found():
    memory = rs.Memory(encoded([[1.7e9], [1.7e9 + 60], [1.7e9 + 90]]))
    memory.add(encoded([[0.25]]))
    assert memory.search([[0.5]], 1).rows.tolist() == [[3]]
    assert memory.search([[1.7e9 + 80]], 2).rows.tolist() == [[2, 1]]
    with pytest.raises(rs.errors.NonFiniteError, match="do not fit float32"):
        memory.add(encoded([[1e30]]))
    assert len(memory) == 4


def test_half_precision_holds_what_differs():
    keys = 1000 + np.arange(40)[:, None] / 10
    memory = rs.Memory(encoded(keys), key_dtype="float16")
    assert memory.search(keys, 1).rows[:, 0].tolist() == list(range(40))
    np.testing.assert_allclose(memory.keys, keys, atol=2e-3)


def test_what_needs_no_centre_has_none(tmp_path):
    keys = RNG.normal(size=(500, 6)).astype(np.float32)
    keys[:, 2] = 0
    keys[:, 3] = 0.25  # a constant that is small beside what varies
    memory = rs.Memory(rs.Encoded(keys, np.zeros((500, 2)), np.zeros(500, int)))
    assert not memory.schema.key_centre.any()
    assert (memory.keys == keys).all()
    memory.save(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["schema"]["key_centre"] is None


@given(st.data())
def test_whole_numbers_lose_nothing(data):
    n, offset = data.draw(st.integers(1, 30)), data.draw(st.integers(-(2**40), 2**40))
    spread = data.draw(st.sampled_from([0, 1, 3, 1000, 10**6]))
    values = offset + np.random.default_rng(data.draw(st.integers(0, 9))).integers(-spread, spread + 1, (n, 2))
    memory = rs.Memory(encoded(values))
    assert (memory.keys == values).all()


@given(st.lists(st.floats(-(2.0**40), 2.0**40, width=32), min_size=1, max_size=20), st.floats(1e-3, 1e3))
def test_a_centre_is_near_and_is_short(values, scale):
    values = torch.tensor(values, dtype=torch.float64)[:, None] * scale
    centre, mean, spread = centre_of(values).item(), float(values.mean()), float(values.std(correction=0))
    if centre:
        assert abs(centre - mean) <= spread + 1e-9 * abs(mean)
    else:
        assert abs(mean) <= spread / 2 * (1 + 1e-9)


def test_a_centre_is_a_multiple_of_a_power_of_two():
    assert centre_of(torch.tensor([[1e6], [1e6 + 1.0], [1e6 + 2.0]])).item() == 1e6 + 1  # of a half
    assert centre_of(torch.tensor([[7.3], [7.3]], dtype=torch.float64)).item() == 7.3
    assert centre_of(torch.tensor([[7.3, -16.0], [7.3, 16.0]], dtype=torch.float64)).tolist() == [0, 0]


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_recomputes_the_logits_from_differences(bias, tmp_path):
    weight = torch.from_numpy(RNG.normal(size=(5, 3)).astype(np.float32))
    head = Head(weight, torch.ones(5) if bias else None)
    keys = RNG.normal(size=(50, 3)) + np.array([300, 0, -50])
    logits = keys @ weight.numpy().T.astype(np.float64) + (1 if bias else 0)
    rows = rs.Encoded(keys, logits, np.arange(50) % 5, head=head)
    memory = rs.Memory(rows, storage="head")
    assert isinstance(memory.stored_logits, HeadLogits) and memory.schema.key_centre.any()
    memory.add(rs.Encoded(keys[:3], logits[:3], [0, 1, 2], head=head))
    with pytest.raises(rs.errors.StorageError, match="differ"):
        memory.add(rs.Encoded(keys[:3], logits[:3] + 2, [0, 1, 2]))
    memory.save(tmp_path)
    for one in (memory, rs.Memory.load(tmp_path)):
        np.testing.assert_allclose(one.logits.dense()[:50], logits, rtol=1e-5, atol=2e-3)
        assert one.stored_logits.keys.data_ptr() == memory.stored_logits.keys.data_ptr() or one is not memory
        one.forget(0)
        assert one.logits.shape == (52, 5) and one.stored_logits.shape == (53, 5)


# --- regression -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40,), (40, 2)])
@pytest.mark.parametrize("storage", ["full", "none"])
def test_targets_and_predictions_keep_their_digits(shape, storage, tmp_path):
    targets = 1e8 + RNG.normal(size=shape)
    keys = RNG.normal(size=(40, 2))
    rows = rs.Encoded(keys, np.float32(targets) + 0, np.float32(targets))
    rows.labels = targets
    memory = rs.Memory(rows, storage=storage)
    assert memory.target_centre.dtype == torch.float64 and memory.target_centre.shape == (targets.size // 40,)
    assert memory.column("label").dtype == torch.float32 and float(memory.column("label").abs().max()) < 10
    if storage == "full":
        assert float(memory.stored_logits.dense().abs().max()) < 20
        np.testing.assert_array_equal(memory.logits.dense().reshape(shape), np.float32(targets))
    memory.relabel([1, 2], targets[[1, 2]] + 0.5)
    memory.forget(0)
    memory.save(tmp_path)
    for one in (memory, rs.Memory.load(tmp_path)):
        assert one.labels.dtype == np.float64 and one.labels.shape == (39, *shape[1:])
        np.testing.assert_allclose(one.labels[2:], targets[3:], rtol=0, atol=1e-6)
        np.testing.assert_allclose(one.labels[:2], targets[1:3] + 0.5, rtol=0, atol=1e-6)
        if storage == "full":
            assert one.logits.shape == (39, targets.size // 40)


def test_targets_that_need_no_centre_are_kept_as_they_are():
    memory = rs.Memory(rs.Encoded(RNG.normal(size=(30, 1)), np.zeros(30), RNG.normal(size=30)))
    assert memory.target_centre.tolist() == [0]
    classes = rs.Memory(rs.Encoded([[0.0]], AbsentLogits(1, 3), [2]), storage="none")
    assert classes.target_centre is None
