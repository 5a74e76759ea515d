"""Kernels, weights, and readers of one's own that are made of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import residua as rs
from residua.core import Change, LabelValues, Neighbours, Sigmoid, Term
from residua.errors import ParameterError
from residua.readers import KERNELS as REGISTERED
from residua.readers import Kernel, NeighbourReader, register_kernel
from residua.readers.neighbour import weigh

KERNELS = ("exponential", "gaussian")


def near(distances, rows=None):
    distances = torch.tensor(distances, dtype=torch.float32)
    rows = torch.arange(distances.shape[1]).expand(distances.shape) if rows is None else torch.tensor(rows)
    return Neighbours(rows.masked_fill(distances.isinf() & (rows < 0), -1), distances)


def test_exponential_by_hand():
    weights = weigh(near([[0.0, 1.0, 2.0]]), sigma=1 / np.log(2))  # 1, 1/2, 1/4
    np.testing.assert_allclose(weights, [[4 / 7, 2 / 7, 1 / 7]], rtol=1e-6)
    assert weights.dtype == torch.float32


def test_gaussian_squares_the_distance():
    weights = weigh(near([[0.0, 1.0, 2.0]]), sigma=1 / np.log(2), kernel="gaussian")  # 1, 1/2, 1/16
    np.testing.assert_allclose(weights, np.array([[16, 8, 1]]) / 25, rtol=1e-6)


@given(
    st.lists(st.floats(0, 50, width=32), min_size=1, max_size=8),
    st.floats(0.01, 100),
    st.sampled_from(KERNELS),
    st.booleans(),
)
def test_the_formula_in_float64(distances, sigma, kernel, weighted):
    distances = np.sort(np.array(distances, np.float32))
    own = np.arange(len(distances)) % 3 + 0.5 if weighted else np.ones(len(distances))
    d = distances.astype(np.float64)
    logs = -(d**2 if kernel == "gaussian" else d) / sigma + np.log(own)
    expected = np.exp(logs - logs.max())
    expected /= expected.sum()
    given_weights = torch.from_numpy(own).float()[None] if weighted else None
    weights = weigh(near(distances[None].tolist()), sigma, kernel, given_weights)[0].numpy()
    np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-6)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    if not weighted:
        assert (np.diff(weights) <= 0).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sigma", [1e-300, 1e-45, 1e-30, 1e-3, 1.0, 1e30, 1e300])
@pytest.mark.parametrize("shift", [0.0, 1.0, 1e4, 1e18, 1e30])
def test_no_width_and_no_distance_gives_nan(kernel, sigma, shift):
    gap = max(1.0, shift * 1e-6)
    weights = weigh(near([[shift, shift + gap, np.inf]], [[4, 2, -1]]), sigma, kernel)
    assert weights.isfinite().all()
    assert weights.sum().item() == pytest.approx(1)
    assert weights[0, 0] >= weights[0, 1]
    assert weights[0, 2] == 0
    if sigma <= 1e-3:
        assert weights[0].tolist() == [1, 0, 0]  # the nearest alone, however far it is
    if sigma >= 1e300:
        assert weights[0].tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_far_neighbours_keep_their_ratio(kernel):
    weights = weigh(near([[1000.0, 1000.5]]), sigma=0.5 if kernel == "exponential" else 1000.25, kernel=kernel)
    ratio = weights[0, 1] / weights[0, 0]  # (1000.5² - 1000²) / 1000.25 = 1
    assert ratio.item() == pytest.approx(np.exp(-1), rel=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_missing_neighbours_weigh_nothing(kernel):
    found = near([[2.0, np.inf], [np.inf, np.inf]], [[5, -1], [-1, -1]])
    assert weigh(found, 1.0, kernel).tolist() == [[1, 0], [0, 0]]
    assert weigh(found, 1.0, kernel, torch.tensor([[3.0, 9.0], [1.0, 1.0]])).tolist() == [[1, 0], [0, 0]]
    assert weigh(near(np.zeros((2, 0)).tolist()), 1.0, kernel).shape == (2, 0)


def test_row_weights_multiply():
    own = torch.tensor([[1.0, 6.0, 0.0], [0.0, 0.0, 0.0]])
    weights = weigh(near([[0.0, 1.0, 1.0]] * 2), 1 / np.log(2), "exponential", own)
    np.testing.assert_allclose(weights, [[1 / 4, 3 / 4, 0], [0, 0, 0]], rtol=1e-6)


def test_an_important_row_may_be_far():
    """The largest weight is not always the nearest row's."""
    weights = weigh(near([[0.0, 200.0]]), 1.0, "exponential", torch.tensor([[1e-38, 1e38]]))
    expected = 1e-38 / (1e-38 + 1e38 * np.exp(-200))
    assert weights[0, 0].item() == pytest.approx(expected, rel=1e-3)


def test_many_neighbours_of_many_queries():
    """Too small a weight to count is 0, and the others are as if it were not there."""
    distances = torch.linspace(0, 2000, 3000).expand(300, -1)
    weights = weigh(near(distances.tolist()), 1.0)
    expected = torch.softmax(-distances[0].double(), dim=0)
    np.testing.assert_allclose(weights, expected.expand(300, -1), rtol=1e-4, atol=1e-18)
    assert (weights[weights < torch.finfo(torch.float32).tiny] == 0).all()


# --- kernels of one's own -------------------------------------------------------------------------------------


def cauchy(distances, sigma):
    """log of 1 / (1 + d / sigma), relative to the nearest's."""
    return ((sigma + distances[..., :1]) / (sigma + distances)).log()


@pytest.fixture(scope="module")
def kernel():
    return register_kernel(Kernel("test-cauchy", cauchy))


def made(n, seed, classes=4):
    rng = np.random.default_rng(seed)
    return rs.Encoded(rng.normal(size=(n, 3)), rng.normal(size=(n, classes)), rng.integers(0, classes, n))


def test_kernels_by_name(kernel):
    assert set(REGISTERED) >= {*KERNELS, "test-cauchy"} and REGISTERED.get("test-cauchy") is kernel
    for ask in (lambda: weigh(near([[0.0]]), 1.0, "rbf"), lambda: rs.KNNLM(rs.Memory(made(9, 0)), kernel="rbf")):
        with pytest.raises(ParameterError, match=r"'rbf'.*'exponential', 'gaussian'.*register_kernel"):
            ask()
    with pytest.raises(ParameterError, match="'gaussian' is registered already"):
        register_kernel(Kernel("gaussian", cauchy))


@pytest.mark.parametrize("read", [rs.ResMem, rs.KNNLM])
def test_a_kernel_of_ones_own_is_read_tuned_saved_and_loaded(read, kernel, tmp_path):
    weights = weigh(near([[0.0, 1.0, 3.0]]), 1.0, "test-cauchy")  # 1, 1/2, 1/4
    np.testing.assert_allclose(weights, np.array([[4, 2, 1]]) / 7, rtol=1e-6)
    memory, validation, test = rs.Memory(made(80, 0)), made(40, 1), made(20, 2)
    reader = read(memory, k=80, kernel="test-cauchy")
    assert reader.sigma == memory.median_nn_distance() == REGISTERED.get("test-cauchy").typical_sigma(reader.sigma)
    found = reader.predictions(test)
    for part, now in found:
        d = np.linalg.norm(made(80, 0).keys[None] - part.keys[:, None], axis=2)
        d = np.sort(d, axis=1)
        expected = 1 / (1 + d / reader.sigma)
        share = 1.0 if read is rs.ResMem else reader.lmbda
        expected *= share / expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(now.change.terms[0].weights, expected, rtol=1e-3)
    best = rs.tune(reader, validation, {"k": [3, 20], "sigma": [0.1, 2.0], "temperature": [1.0]}, objective="log_loss")
    assert best.kernel == "test-cauchy"
    names = [name for name in best.results_ if name in reader.parameter_names()]
    for i, loss in enumerate(best.results_["log_loss"]):
        setting = {name: best.results_[name][i].item() for name in names}
        p = reader.with_params(**setting).predict_proba(validation)[np.arange(40), validation.labels]
        assert -np.log(p).mean() == pytest.approx(loss, rel=1e-4), setting
    best.save(tmp_path)
    np.testing.assert_array_equal(rs.load(tmp_path).scores(test), best.scores(test))


def test_a_kernel_itself_is_as_good_as_its_name():
    memory, queries = rs.Memory(made(30, 0)), made(5, 1)
    reader = rs.KNNLM(memory, k=9, kernel=Kernel("test-given", cauchy))
    assert REGISTERED.get("test-given").log_weights is cauchy and reader.params["kernel"] == "test-given"
    named = rs.KNNLM(memory, k=9, kernel="test-given")
    np.testing.assert_array_equal(reader.scores(queries), named.scores(queries))
    with pytest.raises(ParameterError, match="'gaussian' is registered already"):
        rs.ResMem(memory, kernel=Kernel("gaussian", cauchy))


# --- readers of one's own -------------------------------------------------------------------------------------


class Nearest(NeighbourReader):
    """The labels of neighbours nearer than a distance, each as much as the others; and its own way to weigh."""

    def __init__(self, memory, k=None, radius=1.0, sigma=None, temperature=1.0, kernel="exponential"):
        super().__init__(memory, k, sigma, temperature, kernel)
        self.radius = radius

    def values(self, queries):
        return LabelValues(self.memory.column("label"))

    def weights(self, neighbours, queries):
        assert len(queries.keys) == len(queries.base) == len(neighbours)
        inside = (neighbours.distances < self.radius).float()
        return inside / inside.sum(dim=1, keepdim=True).clamp_min(1)

    def share(self, neighbours, queries):
        return 0.5, 0.5


def test_a_reader_says_how_it_weighs_and_what_share_neighbours_have():
    train, test = made(60, 0), made(30, 1)
    reader = Nearest(rs.Memory(train), radius=1.2)
    assert (reader.k, reader.params["radius"]) == (50, 1.2)
    base = reader.with_params(k=0).scores(test)
    expected = base.copy()
    d = np.linalg.norm(train.keys[None] - test.keys[:, None], axis=2)
    for q, row in enumerate(d):
        inside = [i for i in np.argsort(row)[:50] if row[i] < 1.2]
        if inside:
            expected[q] = 0.5 * base[q] + 0.5 * np.bincount(train.labels[inside], minlength=4) / len(inside)
    assert 0 < (expected == base).all(axis=1).sum() < 30  # some have nobody near: the base, all of it
    np.testing.assert_allclose(reader.scores(test), expected, atol=1e-6)


def test_a_reader_may_say_the_whole_change():
    """Two kernels at once, in the logit space."""

    class Both(NeighbourReader):
        score_space = "logit"

        def __init__(self, memory, k=None, sigma=None, temperature=1.0, kernel="exponential", sharpness=2.0):
            super().__init__(memory, k, sigma, temperature, kernel)
            self.sharpness = sharpness

        def values(self, queries):
            return LabelValues(self.memory.column("label"))

        def change(self, neighbours, queries, values=None):
            values = self.values(len(neighbours)) if values is None else values
            terms = (Term(neighbours.rows, self.sharpness * weigh(neighbours, s), values) for s in (self.sigma, 1e9))
            return Change(torch.ones(len(neighbours), 1), tuple(terms), self.score_space)

    memory, test = rs.Memory(made(60, 0)), made(30, 1)
    reader = Both(memory, k=7, temperature=1.5)
    labels = [rs.KNNLM(memory, k=7, lmbda=1, sigma=s, kernel="exponential") for s in (reader.sigma, 1e9)]
    expected = test.logits.dense().numpy() / 1.5 + 2 * sum(each.scores(test) for each in labels)
    np.testing.assert_allclose(reader.scores(test), expected, atol=1e-5)
    powers = np.exp(expected)
    np.testing.assert_allclose(reader.predict_proba(test), powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


def test_a_reader_of_labels_that_do_not_exclude_each_other():
    class Several(Nearest):
        def base(self, logits):
            return Sigmoid(logits, self.temperature)

    train, test = made(60, 0), made(30, 1)
    reader = Several(rs.Memory(train), radius=1.2, temperature=1.5)
    base = torch.sigmoid(test.logits.dense() / 1.5).numpy()
    np.testing.assert_allclose(reader.with_params(k=0).predict_proba(test), base, atol=1e-6)
    softmax = torch.softmax(test.logits.dense() / 1.5, dim=1).numpy()
    added = Nearest(rs.Memory(train), radius=1.2, temperature=1.5).scores(test)  # half the labels, half the softmax
    alone = (added == softmax).all(axis=1)
    expected = np.where(alone[:, None], base, added - 0.5 * softmax + 0.5 * base)
    np.testing.assert_allclose(reader.scores(test), expected, atol=1e-6)
    proba = reader.predict_proba(test)
    np.testing.assert_allclose(proba, np.clip(np.maximum(expected, base / 4), 0, 1), atol=1e-6)
    assert np.abs(proba.sum(axis=1) - 1).max() > 0.1
    for part, now in reader.predictions(test):
        truth = torch.from_numpy(part.labels)
        np.testing.assert_allclose(now.at(truth), proba[np.arange(30), part.labels], atol=1e-6)


def test_a_reader_that_does_not_say_what_rows_say():
    class Silent(NeighbourReader):
        def __init__(self, memory, k=None, sigma=None, temperature=1.0, kernel="exponential"):
            super().__init__(memory, k, sigma, temperature, kernel)

    with pytest.raises(ParameterError, match=r"Silent does not say.*define values\(\), or change\(\)"):
        Silent(rs.Memory(made(9, 0)), k=2).scores(made(2, 1))


def test_neighbours_that_another_reader_searched():
    """As if searched anew: other parameters, another class, skipped or not."""
    memory, test = rs.Memory(made(60, 0)), made(30, 1)
    keys = torch.from_numpy(test.keys)
    searching = rs.KNNLM(memory, k=1)
    for reader in (
        rs.KNNLM(memory, k=9, temperature=1.5),
        rs.KNNLM(memory, k=9, lmbda=1, skip=0.5),
        rs.ResMem(memory, k=9, skip=0.5),
        rs.ResMem(memory, k=9, space="exponent", skip=0.5),
        rs.ResMem(memory, k=9, space="exponent", skip=1e-6),
        rs.ResMem(memory, k=0),
        Nearest(memory, k=9, radius=1.1),
    ):
        ((_, now),) = searching.predictions(test, depth=12)
        again, ((_, expected),) = reader.reread(now, keys, test.logits), reader.predictions(test)
        torch.testing.assert_close(again.scores, expected.scores, rtol=0, atol=1e-6)
        torch.testing.assert_close(again.log_probabilities(), expected.log_probabilities(), rtol=0, atol=1e-5)
        assert torch.equal(again.argmax(), expected.argmax())
    ((_, now),) = rs.KNNLM(memory, k=5, skip=0.5).predictions(test)
    again = rs.ResMem(memory, k=4, skip=0.6).reread(now, keys, test.logits)
    unsure = torch.softmax(test.logits.dense(), dim=1).amax(dim=1) < 0.5
    expected = np.where(unsure[:, None], rs.ResMem(memory, k=4).scores(test), rs.ResMem(memory, k=0).scores(test))
    np.testing.assert_allclose(again.scores, expected, atol=1e-6)
    with pytest.raises(ParameterError, match="13 neighbours wanted, 12 were searched"):
        ((_, now),) = searching.predictions(test, depth=12)
        _ = rs.KNNLM(memory, k=13).reread(now, keys, test.logits).scores
