"""kNN-LM in its classifier form: by hand, and label k-NN against scikit-learn."""

import math

import numpy as np
import pytest

import residua as rs
from residua.errors import ParameterError


def made(n, seed, classes=4):
    rng = np.random.default_rng(seed)
    return rs.Encoded(rng.normal(size=(n, 3)), rng.normal(size=(n, classes)), rng.integers(0, classes, n))


def test_by_hand():
    memory = rs.Memory(rs.Encoded([[0.0], [2.0], [2.0]], np.zeros((3, 3)), [0, 1, 0]), storage="none")
    query = rs.Encoded([[0.0]], np.log([[0.2, 0.2, 0.6]]))
    reader = rs.KNNLM(memory, k=3, lmbda=0.4, sigma=4 / np.log(2))  # exp(-2² / sigma) = 1/2
    # p_kNN = (1 + 1/2, 1/2, 0) / 2
    np.testing.assert_allclose(reader.scores(query), [[0.42, 0.22, 0.36]], atol=1e-6)
    other = reader.with_params(kernel="exponential", sigma=2 / np.log(2))  # exp(-2 / sigma) = 1/2
    np.testing.assert_allclose(other.scores(query), [[0.42, 0.22, 0.36]], atol=1e-6)
    np.testing.assert_allclose(reader.with_params(k=2).scores(query), [[0.4 * 2 / 3 + 0.12, 0.4 / 3 + 0.12, 0.36]])
    cold = reader.with_params(temperature=0.5)  # softmax(2 f) = (1, 1, 9) / 11
    np.testing.assert_allclose(cold.scores(query), [[0.3 + 0.6 / 11, 0.1 + 0.6 / 11, 5.4 / 11]], atol=1e-6)


KERNELS = {"exponential": lambda d, sigma: np.exp(-d / sigma), "gaussian": lambda d, sigma: np.exp(-(d**2) / sigma)}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("k", "sigma"), [(1, 1.0), (7, 0.3), (40, 2.0), (200, 0.9)])
def test_lmbda_one_is_label_knn(kernel, k, sigma):
    neighbors = pytest.importorskip("sklearn.neighbors")
    train, test = made(200, 0), made(50, 1)
    peer = neighbors.KNeighborsClassifier(k, weights=lambda d: KERNELS[kernel](d, sigma), algorithm="brute")
    peer.fit(train.keys.astype(np.float64), train.labels)
    reader = rs.KNNLM(rs.Memory(train, storage="none"), k=k, lmbda=1, sigma=sigma, kernel=kernel)
    expected = peer.predict_proba(test.keys.astype(np.float64))
    np.testing.assert_allclose(reader.scores(test), expected, atol=1e-5)
    sure = np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0] > 1e-4
    assert sure.sum() > 40
    np.testing.assert_array_equal(reader.predict(test)[sure], peer.predict(test.keys.astype(np.float64))[sure])


@pytest.mark.parametrize("storage", ["none", "full"])
def test_interpolation_is_linear_in_lmbda(storage):
    memory, test = rs.Memory(made(60, 0), storage=storage), made(20, 1)
    reader = rs.KNNLM(memory, k=9, lmbda=1, temperature=1.3)
    labels, base = reader.scores(test), reader.with_params(k=0).scores(test)
    np.testing.assert_array_equal(reader.with_params(lmbda=0).scores(test), base)
    for lmbda in (0.25, 0.8):
        mixed = reader.with_params(lmbda=lmbda).scores(test)
        np.testing.assert_allclose(mixed, lmbda * labels + (1 - lmbda) * base, atol=1e-6)


def test_labels_follow_the_memory():
    memory = rs.Memory(rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), [0, 0]))
    reader, query = rs.KNNLM(memory, k=1, lmbda=1), rs.Encoded([[0.1]], np.zeros((1, 2)))
    assert reader.predict(query).tolist() == [0]
    memory.relabel(0, 1)
    assert reader.predict(query).tolist() == [1]
    memory.forget(0)
    assert reader.predict(query).tolist() == [0]
    memory.add(rs.Encoded([[0.1]], np.zeros((1, 2)), [1]))
    assert reader.predict(query).tolist() == [1]


def test_weights_multiply():
    columns = {"weight": [1.0, 3.0, 0.0]}
    memory = rs.Memory(rs.Encoded([[1.0], [-1.0], [0.0]], np.zeros((3, 3)), [0, 1, 2], columns=columns))
    query = rs.Encoded([[0.0]], np.log([[0.2, 0.2, 0.6]]))
    np.testing.assert_allclose(rs.KNNLM(memory, k=3, lmbda=1).scores(query), [[0.25, 0.75, 0]], atol=1e-6)
    # Nothing that counts is near: the base, whatever lmbda.
    np.testing.assert_allclose(rs.KNNLM(memory, k=1, lmbda=1).scores(query), [[0.2, 0.2, 0.6]], atol=1e-6)


def test_regression_reads_targets():
    memory = rs.Memory(rs.Encoded([[0.0], [1.0]], np.zeros((2, 2)), [[1.0, 2], [3, 6]]), storage="none")
    query = rs.Encoded([[0.5]], [[10.0, 10]])
    reader = rs.KNNLM(memory, k=2, lmbda=0.25)
    np.testing.assert_allclose(reader.predict(query), [[8, 8.5]])
    memory.relabel(1, [7.0, 8.0])
    np.testing.assert_allclose(reader.predict(query), [[8.5, 8.75]])


def test_lmbda_out_of_range():
    memory = rs.Memory(made(5, 0))
    for lmbda in (-0.1, 1.1, math.nan, None, "half"):
        with pytest.raises(ParameterError, match=r"lmbda=.*between 0 and 1"):
            rs.KNNLM(memory, k=1, lmbda=lmbda)
