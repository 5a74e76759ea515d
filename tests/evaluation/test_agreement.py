"""Who is right where memory and model agree, and what superclasses say, against answers counted one by one."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.errors import ShapeError, TaskError

GROUPS = ["pet", "pet", "car", "car", "tree"]


def made(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, n)
    return rs.Encoded(
        rng.normal(size=(n, 2)) + labels[:, None], 2 * np.eye(5)[labels] + rng.normal(size=(n, 5)), labels
    )


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_agreement_and_superclasses_are_counted_right(seed, n):
    memory, test = rs.Memory(made(30, seed)), made(n, seed + 1)
    reader = rs.ResMem(memory, k=5)
    found = rs.evaluate(reader, test)
    truth, base, now = test.labels, test.logits.argmax().numpy(), reader.predict(test)
    votes = rs.KNNLM(memory, 5, 1.0, sigma=reader.sigma, kernel=reader.kernel).predict(test)
    assert sum(part["share"] for part in found.agreement.values()) == pytest.approx(1)
    for name, own in (("agree", votes == base), ("disagree", votes != base)):
        part = found.agreement[name]
        assert part["share"] == own.mean()
        for who, said in (("base", base), ("label_knn", votes), ("reader", now)):
            assert part[who] == pytest.approx((said[own] == truth[own]).mean() if own.any() else np.nan, nan_ok=True)
    json.dumps(found.to_dict(), allow_nan=False)

    frame, group = found.per_superclass(GROUPS).set_index("superclass"), np.array(GROUPS)
    assert frame.index.tolist() == [*sorted(set(group[truth])), "all"]
    for name in frame.index:
        own = (group[truth] == name) | (name == "all")
        within, wrong = group[base] == group[truth], base != truth
        expected = [own.sum(), (base == truth)[own].mean(), (now == truth)[own].mean(), within[own].mean()]
        expected += [(group[now] == group[truth])[own].mean()]
        for some in (own & wrong, own & wrong & (now == truth)):
            expected.append(within[some].mean() if some.any() else np.nan)
        np.testing.assert_allclose(frame.loc[name].to_numpy(float), expected)


def test_agreement_is_printed_and_is_of_classes_alone():
    memory, test = rs.Memory(made(60, 0)), made(40, 1)
    found = rs.evaluate(rs.ResMem(memory, k=5), test)
    assert "where neighbours agree (" in str(found) and "where neighbours disagree (" in str(found)
    assert rs.evaluate(rs.ResMem(memory, k=5), test, label_knn=False).agreement == {}
    with pytest.raises(ShapeError, match="2 superclasses for 5 classes"):
        found.per_superclass(["a", "b"])
    keys = np.arange(9.0)[:, None]
    numbers = rs.Encoded(keys, np.zeros(9), keys[:, 0])
    found = rs.evaluate(rs.ResMem(rs.Memory(numbers), k=2), numbers[:3], exclude=None)
    assert found.agreement == {}
    with pytest.raises(TaskError, match="regression"):
        found.per_superclass([0])
