import numpy as np
import pytest

from experiments.tabular.data import TASKS, long_tail, split


@pytest.mark.parametrize("name", TASKS)
def test_split_is_in_three_parts_without_common_rows(name):
    parts = split(name, 3)
    sizes = np.array([len(part[1]) for part in parts])
    assert sizes / sizes.sum() == pytest.approx([0.6, 0.2, 0.2], abs=0.02)
    rows = np.concatenate([part[0] for part in parts])
    whole = TASKS[name].rows(3)[0]
    assert sorted(map(tuple, rows)) == sorted(map(tuple, whole))
    if TASKS[name].task == "classification":
        assert set(parts.test[1]) <= set(parts.train[1])
    else:
        assert parts.train[1].mean() == pytest.approx(0, abs=1e-9)
        assert parts.train[1].std() == pytest.approx(1)


@pytest.mark.parametrize("name", ["wine", "friedman1", "long_tail"])
def test_seed_decides_the_split(name):
    one, again, other = split(name, 0), split(name, 0), split(name, 1)
    assert np.array_equal(one.test[0], again.test[0])
    assert not np.array_equal(one.test[0], other.test[0])


def test_long_tail_has_many_rare_clusters_and_balanced_classes():
    X, y = long_tail(0)
    assert X.shape == (900, 6)
    assert np.bincount(y).min() > 100
