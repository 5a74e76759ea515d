"""Classes that arrive in steps, on keys of one's own; no network."""

import numpy as np
import pytest

import residua as rs
from experiments import streams


def rows(n, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 100
    keys = np.random.default_rng(9).normal(size=(100, 8))[labels] + 0.3 * rng.normal(size=(n, 8))
    return rs.Encoded(keys, 4 * np.eye(100)[labels][:, :80] + rng.normal(size=(n, 80)), labels, new_classes=True)


@pytest.mark.slow
def test_new_classes_are_answered_by_all_but_the_head(monkeypatch):
    smaller = {"SMALL": 20, "MEDIUM": 40, "LARGE": 80, "K": (5,), "SIGMA": np.array([0.5]), "LMBDA": (0.8,)}
    for name, value in (smaller | {"TEMPERATURE": (1.0,)}).items():
        monkeypatch.setattr(streams, name, value)
    monkeypatch.setattr(streams, "encoded", lambda *_: (rows(600, 0), rows(400, 1)))
    monkeypatch.setattr(streams, "load", lambda _: streams.torch.nn.Module())
    monkeypatch.setattr(streams.torch.nn.Module, "fc", streams.torch.nn.Linear(8, 100), raising=False)
    found = streams.stream("", "", 80, 20, "cpu")
    methods = found["methods"]
    assert list(methods) == list(streams.NAMES) and found["steps"] == [80, 100]
    assert methods["head"]["new"] == 0 < 20 < min(one["new"] for name, one in methods.items() if "ranpac" in name)
    accuracy = methods["ncm"]["accuracy"]
    assert methods["ncm"]["average"][0] == pytest.approx(np.mean(accuracy))
    assert methods["random_few"]["bytes"] == 20 * 100 * 33
    assert len(streams.tables(found)["accuracies"].rows) == len(methods) and streams.draw(found).axes


def test_herding_and_means():
    keys = np.random.default_rng(0).normal(size=(50, 3))
    picked = streams.herded(keys, 10)
    assert len(set(picked)) == 10
    near, chance = (np.linalg.norm(keys[some].mean(axis=0) - keys.mean(axis=0)) for some in (picked, np.arange(10)))
    assert near < chance / 3
    assert sorted(streams.herded(keys, 99)) == list(range(50))
