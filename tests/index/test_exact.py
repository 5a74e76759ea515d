import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

import residua as rs
from residua.errors import NonFiniteError, ParameterError, ShapeError
from residua.index import Exact
from residua.index.nearest import exact_nearest, faiss_candidates, torch_candidates

ENGINES = ["faiss", "torch"]


@pytest.fixture(params=ENGINES)
def engine(request):
    if request.param == "faiss":
        pytest.importorskip("faiss")
    return request.param


def brute(queries: np.ndarray, keys: np.ndarray, k: int, alive=None):
    """Rows and distances by NumPy, in float64; exact for small integers."""
    distances = np.sqrt(((queries[:, None].astype(np.float64) - keys[None]) ** 2).sum(axis=2))
    if alive is not None:
        distances[:, ~alive] = np.inf
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(distances, order, axis=1)
    order = np.where(np.isinf(found), -1, order)
    pad = ((0, 0), (0, k - order.shape[1]))
    return np.pad(order, pad, constant_values=-1), np.pad(found, pad, constant_values=np.inf)


def search(index, queries, k, keys):
    found = index.search(torch.from_numpy(queries), k, torch.from_numpy(keys))
    return found.rows.numpy(), found.distances.numpy()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=60)
@given(data=st.data())
def test_equals_numpy_with_ties_duplicates_and_offsets(engine, data):
    """Integer keys make float32 distances exact to their rounding, so rows must agree to the last tie."""
    n, d = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 5))
    offset = data.draw(st.sampled_from([0, 1000, -70_000]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    keys = (rng.integers(0, data.draw(st.integers(1, 6)), size=(n, d)) + offset).astype(np.float32)
    queries = (rng.integers(-1, 7, size=(9, d)) + offset).astype(np.float32)
    k = data.draw(st.integers(1, 70))
    index = Exact(d, "cpu", engine)
    index.build(torch.from_numpy(keys))
    rows, distances = search(index, queries, k, keys)
    true_rows, true_distances = brute(queries, keys, k)
    np.testing.assert_array_equal(rows, true_rows)
    np.testing.assert_array_equal(distances, true_distances.astype(np.float32))


def test_more_ties_than_candidates(engine):
    """100 rows at the k-th distance: the lowest are returned, which only asking again can find."""
    keys = np.concatenate([np.full((700, 3), 9), np.full((100, 3), 1), np.full((200, 3), 9)]).astype(np.float32)
    keys[[3, 999]] = 0
    index = Exact(3, "cpu", engine)
    index.build(torch.from_numpy(keys))
    rows, _ = search(index, np.zeros((20, 3), np.float32), 10, keys)
    assert rows.tolist() == [[3, 999, *range(700, 708)]] * 20


def test_far_queries_are_answered_exactly(engine):
    """So far that all approximate distances are equal: nothing can be proven and every row is looked at."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 50, size=(500, 2)).astype(np.float32)
    queries = np.array([[100_000, 0], [0, 100_000], [3, 4]], np.float32)
    index = Exact(2, "cpu", engine)
    index.build(torch.from_numpy(keys))
    rows, distances = search(index, queries, 5, keys)
    true = ((queries[:, None].astype(np.float64) - keys[None]) ** 2).sum(axis=2)
    # Squares of 1e10 do not fit float32, so that rows within its rounding may come in either order.
    np.testing.assert_allclose(distances**2, np.sort(true, axis=1)[:, :5], rtol=2**-22)
    np.testing.assert_allclose(np.take_along_axis(true, rows, axis=1), distances**2, rtol=2**-22)
    assert (np.diff(distances) >= 0).all()


def test_asking_again_is_rare(engine, clusters):
    """The bound must be tight enough that real keys almost never pay for it."""
    keys, queries = (points - 50 for points in clusters)
    real = {"faiss": faiss_candidates, "torch": torch_candidates}[engine]
    asked = []

    def counted(queries, keys, count):
        asked.append(len(queries))
        return real(queries, keys, count)

    exact_nearest(queries, keys, 50, counted)
    assert asked[0] == len(queries) and sum(asked[1:]) < 0.02 * len(queries)


def test_a_wrong_engine_is_caught(clusters):
    """If the engine's distances are worthless the answer is still right: the bound, not the engine, decides."""
    keys, queries = clusters

    def worthless(queries, keys, count):
        shape = (len(queries), count)
        return torch.full(shape, -torch.inf), torch.arange(count).expand(shape)

    found, true = (exact_nearest(queries[:5], keys, 7, propose) for propose in (worthless, torch_candidates))
    assert torch.equal(found.rows, true.rows) and torch.equal(found.squared, true.squared)


def test_engines_agree(clusters):
    pytest.importorskip("faiss")
    keys, queries = clusters
    answers = []
    for engine in ENGINES:
        index = Exact(16, "cpu", engine)
        index.build(keys)
        answers.append(index.search(queries, 53, keys))
    assert torch.equal(answers[0].rows, answers[1].rows)
    assert torch.equal(answers[0].distances, answers[1].distances)


def test_agrees_with_scikit_learn(engine, clusters):
    keys, queries = clusters
    index = Exact(16, "cpu", engine)
    index.build(keys)
    found = index.search(queries, 20, keys)
    peer = NearestNeighbors(n_neighbors=20, algorithm="kd_tree").fit(keys.double().numpy())
    distances, rows = peer.kneighbors(queries.double().numpy())
    np.testing.assert_allclose(found.distances.numpy(), distances, rtol=1e-5)
    assert (found.rows.numpy() == rows).mean() > 0.999


@pytest.mark.slow
def test_many_queries_for_many_rows_answer_as_one_by_one(engine, clusters):
    """2 000 queries for 4 000 rows each do not fit one block."""
    keys, queries = clusters[0], clusters[1].repeat(10, 1)
    index = Exact(16, "cpu", engine)
    index.build(keys)
    whole = index.search(queries, 4000, keys)
    for place in (0, 777, 1999):
        one = index.search(queries[[place]], 4000, keys)
        assert torch.equal(one.rows[0], whole.rows[place]) and torch.equal(one.distances[0], whole.distances[place])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=40)
@given(data=st.data())
def test_any_history_answers_like_the_rows_that_remain(engine, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    draw = lambda m: rng.integers(0, 4, size=(m, 3)).astype(np.float32)  # noqa: E731
    keys = draw(data.draw(st.integers(0, 30)))
    alive = np.ones(len(keys), bool)
    index = Exact(3, "cpu", engine)
    index.build(torch.from_numpy(keys))
    for what in data.draw(st.lists(st.sampled_from(["add", "forget", "build"]), max_size=8)):
        if what == "add":
            more = draw(data.draw(st.integers(0, 12)))
            index.add(torch.from_numpy(more))
            keys, alive = np.concatenate([keys, more]), np.concatenate([alive, np.ones(len(more), bool)])
        elif what == "forget":
            rows = np.flatnonzero(rng.random(len(keys)) < 0.3)
            index.forget(torch.from_numpy(rows))
            alive[rows] = False
        else:
            keys = keys[alive]
            alive = np.ones(len(keys), bool)
            index.build(torch.from_numpy(keys))
        rows, distances = search(index, queries := draw(4), 5, keys)
        true_rows, true_distances = brute(queries, keys, 5, alive)
        np.testing.assert_array_equal(rows, true_rows)
        np.testing.assert_array_equal(distances, true_distances.astype(np.float32))


def tensors(thing):
    """All that an object and its attributes hold."""
    inner = vars(thing).values() if hasattr(thing, "__dict__") else ()
    return [thing] if isinstance(thing, torch.Tensor) else [tensor for value in inner for tensor in tensors(value)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_forgotten_key_is_erased(engine, dtype):
    keys = torch.tensor([[1.0, 1.0], [2.0, 2.0], [99.0, 99.0], [3.0, 3.0]], dtype=dtype)
    index = Exact(2, "cpu", engine)
    index.build(keys)
    index.forget(torch.tensor([1]))
    index.search(keys.float(), 2, keys)  # makes the copy
    index.forget(torch.tensor([2]))
    held = [tensor for tensor in tensors(index) if tensor.is_floating_point()]
    assert held and not any((tensor == 99).any() for tensor in held)
    assert index.search(keys[2:3].float(), 3, keys).rows.tolist() == [[3, 0, -1]]


def test_keys_are_kept_twice_only_where_they_must_be(engine):
    def copies(index):
        return sum(tensor.numel() for tensor in tensors(index))

    keys = torch.arange(3000.0).view(1000, 3)
    index = Exact(3, "cpu", engine)
    index.build(keys)
    index.search(keys[:4], 2, keys)
    index.add(keys[:100])
    index.search(keys[:4], 2, torch.cat([keys, keys[:100]]))
    assert copies(index) < keys.numel()
    index.forget(torch.arange(50))
    index.search(keys[:4], 2, torch.cat([keys, keys[:100]]))
    assert copies(index) >= 1050 * 3
    index.build(keys)
    index.search(keys[:4], 2, keys)
    assert copies(index) < keys.numel()


def test_adding_row_by_row_after_a_forget_does_not_copy_every_time(engine):
    keys = torch.zeros(1200, 4)
    index = Exact(4, "cpu", engine)
    index.build(keys[:200])
    index.forget(torch.tensor([0]))
    index.search(keys[:1], 1, keys)
    places = set()
    for _ in range(1000):
        index.add(torch.ones(1, 4))
        places.add(
            tuple(value.data_ptr() for value in vars(index).values() if torch.is_tensor(value) and value.ndim == 2)
        )
    assert index.n == 1200 and len(places) < 12


def test_nothing_to_find(engine):
    index = Exact(3, "cpu", engine)
    empty = torch.empty(0, 3)
    index.build(empty)
    assert index.search(torch.zeros(2, 3), 4, empty).rows.tolist() == [[-1] * 4] * 2
    keys = torch.zeros(5, 3)
    index.build(keys)
    assert index.search(empty, 4, keys).rows.shape == (0, 4)
    assert index.search(torch.zeros(2, 3), 0, keys).rows.shape == (2, 0)
    index.forget(torch.arange(5))
    assert index.search(torch.zeros(2, 3), 4, keys).rows.tolist() == [[-1] * 4] * 2
    index.add(torch.ones(1, 3))
    assert index.search(torch.zeros(1, 3), 2, torch.cat([keys, torch.ones(1, 3)])).rows.tolist() == [[5, -1]]


def test_bad_input(engine):
    keys = torch.zeros(5, 3)
    index = Exact(3, "cpu", engine)
    index.build(keys)
    with pytest.raises(ShapeError, match=r"queries have shape \(2, 4\)"):
        index.search(torch.zeros(2, 4), 1, keys)
    with pytest.raises(ShapeError, match=r"keys have shape \(4, 3\)"):
        index.search(torch.zeros(2, 3), 1, keys[:4])
    with pytest.raises(NonFiniteError, match="1 of 2 queries"):
        index.search(torch.tensor([[0.0, 0, torch.nan], [0, 0, 0]]), 1, keys)
    with pytest.raises(NonFiniteError, match="keys"):
        index.add(torch.full((1, 3), torch.inf))
    with pytest.raises(ParameterError, match="k=-1"):
        index.search(keys, -1, keys)
    with pytest.raises(ParameterError, match="the index has 5 rows"):
        index.forget(torch.tensor([5]))
    assert index.n == 5


def test_no_gradient_flows_and_float64_is_accepted(engine):
    keys = torch.eye(3)
    index = Exact(3, "cpu", engine)
    index.build(keys)
    found = index.search(torch.eye(3, dtype=torch.float64, requires_grad=True), 1, keys)
    assert found.rows[:, 0].tolist() == [0, 1, 2] and not found.distances.requires_grad


def test_huge_keys_do_not_break_the_order(engine):
    keys = torch.tensor([[3e38], [-3e38], [0.0], [1.0]])
    index = Exact(1, "cpu", engine)
    index.build(keys)
    found = index.search(torch.tensor([[0.0]]), 4, keys)
    assert found.rows.tolist() == [[2, 3, 0, 1]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_as_on_a_cpu(clusters):
    keys, queries = clusters
    answers = []
    for device in ("cpu", "cuda"):
        index = Exact(16, device)
        index.build(keys.to(device))
        answers.append(index.search(queries.to(device), 20, keys.to(device)))
    torch.testing.assert_close(answers[0].distances, answers[1].distances.cpu(), rtol=1e-6, atol=0)


def test_what_was_searched_in_inference_mode_can_be_edited_after_it():
    keys = np.random.default_rng(0).normal(size=(30, 4))
    memory = rs.Memory(rs.Encoded(keys, np.zeros((30, 2)), np.arange(30) % 2))
    memory.forget([0])
    with torch.inference_mode():
        memory.search(keys[:2], 3)
    memory.forget([1])
    memory.add(rs.Encoded(keys[:2], np.zeros((2, 2)), [0, 1]))
    assert memory.search(keys[:2], 1).rows[:, 0].tolist() == [30, 31]
