"""A gate is fitted where it is worth it, is the best there is, and leaves the model alone elsewhere."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import EmptyMemoryError, IdError, InputError, LabelError, StorageError
from residua.readers import Shares


def rows(n, seed, documents=40, noise=False):
    """Points of a plane in stripes, of which a model knows half; `noise`: labels that keys say nothing of."""
    rng = np.random.default_rng(seed)
    keys = rng.uniform(-3, 3, size=(n, 2))
    labels = np.floor(keys[:, 0]).astype(int) % 3
    if noise:
        labels = rng.integers(0, 3, n)
    logits = 2 * np.eye(3)[labels] * (keys[:, 1] > 0)[:, None] + rng.normal(size=(n, 3))
    return rs.Encoded(keys, logits, labels, ids=np.sort(rng.integers(0, documents, n)) + 1000 * seed)


@pytest.fixture(scope="module")
def memory():
    return rs.Memory(rows(150, 1))


@pytest.fixture(scope="module")
def validation():
    return rows(400, 2)


def penalised(reader, data) -> float:
    """What a fit makes small."""
    w, b = np.array(reader.shares.weights), reader.shares.power
    parts = [now.log_prob(torch.from_numpy(part.labels)).double() for part, now in reader.predictions(data)]
    return float(-torch.cat(parts).mean()) + 1e-5 * np.square(w[:, 1:]).sum() + 1e-3 * (b - 1) ** 2


@pytest.mark.parametrize(("form", "cache"), [("gate", None), ("tempered", None), ("gate", 8), ("tempered", 8)])
def test_no_small_step_makes_it_better(memory, validation, form, cache):
    reader = rs.Gated(memory, 20, form=form, cache=cache, theta=0.1).fit(validation, evidence=None)
    least, rng = penalised(reader, validation), np.random.default_rng(0)
    w, b = np.array(reader.shares.weights), reader.shares.power
    assert (b == 1) == (form == "gate") and w.shape == ((6, 8) if cache else (3, 6))
    for _ in range(30):
        step = 0.05 * rng.normal(size=w.shape) * (w != 0)  # where a share by query follows noise alone, it is constant
        there = Shares(w + step, b if form == "gate" else b + 0.05 * rng.normal())
        assert penalised(reader.with_params(shares=there), validation) > least - 1e-5


def test_it_beats_one_share_for_all_on_new_rows(memory, validation):
    test = rows(600, 3)
    tuned = rs.tune(rs.KNNLM(memory), validation, progress=False)
    gate = rs.Gated(memory, form="gate").fit(validation)
    found = {name: rs.evaluate(reader, test, label_knn=False) for name, reader in {"λ": tuned, "gate": gate}.items()}
    assert found["gate"].log_loss < 0.95 * found["λ"].log_loss < found["λ"].base_log_loss
    assert gate.evidence_.used and gate.evidence_.z > 5 and gate.evidence_.groups == 40
    again = rs.Gated(memory, form="gate").fit(validation)
    assert again.shares == gate.shares and again.shares.rows == 150


def test_what_it_was_fitted_on_does_not_calibrate_it(memory, validation):
    reader = rs.Gated(memory, 20, form="gate").fit(validation)
    with pytest.raises(IdError, match="were tuned on"):
        rs.conformal(reader, validation[:100])
    assert rs.conformal(reader, rows(300, 3)) is not None


def test_a_memory_that_knows_nothing_is_not_used(validation):
    reader = rs.Gated(rs.Memory(rows(150, 1, noise=True)), 20).fit(validation)
    assert not reader.evidence_.used and reader.is_base
    np.testing.assert_array_equal(reader.scores(validation), rs.KNNLM(reader.memory, k=0).scores(validation))
    # Fitted again with what it may say, it says it.
    assert not reader.fit(validation, evidence=None).evidence_.gain > 0.01


def test_without_validation_rows_each_is_asked_without_itself():
    own = rows(300, 1, documents=60)
    memory = rs.Memory(own)
    reader = rs.Gated(memory, 20, form="gate").fit()
    order = np.random.default_rng(0).permutation(300)  # rows of documents in any order
    given = rs.Gated(memory, 20, form="gate").fit(own[order])
    np.testing.assert_allclose(reader.shares.weights, given.shares.weights, rtol=0.02, atol=0.02)
    leaking = rs.Gated(memory, 20, form="gate").fit(own, exclude=None)
    assert leaking.evidence_.rests_on_matches or not leaking.evidence_.used
    test = rows(500, 3)
    assert rs.evaluate(reader, test).log_loss < rs.evaluate(reader, test).base_log_loss - 0.2
    with pytest.raises(StorageError, match=r"storage='none'.*rs\.lm\.fit"):
        rs.Gated(rs.Memory(own, storage="none"), 20).fit()


def test_what_cannot_be_fitted_says_so(memory, validation):
    with pytest.raises(InputError, match="1 document; a gate is fitted on one half"):
        rs.Gated(memory, 5).fit(rs.Encoded(validation.keys, validation.logits, validation.labels, ids=[7] * 400))
    with pytest.raises(LabelError, match="a gate is fitted by them"):
        rs.Gated(memory, 5).fit(rs.Encoded(validation.keys, validation.logits))
    with pytest.raises(EmptyMemoryError, match="no neighbours to hear"):
        rs.Gated(memory, 0).fit(validation)
    emptied = rs.Memory(rows(10, 1))
    reader = rs.Gated(emptied, 5)
    emptied.forget(np.unique(emptied.ids))
    with pytest.raises(EmptyMemoryError):
        reader.fit(validation)


def test_odd_memories_are_fitted_too(validation):
    odd = rows(40, 1)
    one_class = rs.Encoded(odd.keys, odd.logits, np.zeros(40, int), ids=odd.ids)
    alike = rs.Encoded(np.ones((40, 2)), odd.logits, odd.labels, ids=odd.ids)
    coarse = rs.Memory(odd, key_dtype="float16", storage="none")
    coarse.forget(np.unique(odd.ids)[:20])
    weighed = rs.Encoded(odd.keys, odd.logits, odd.labels, columns={"weight": np.arange(40.0)})
    for reader in (
        rs.Gated(rs.Memory(one_class), 10),
        rs.Gated(rs.Memory(alike), 10, sigma=1.0),
        rs.Gated(coarse),
        rs.Gated(rs.Memory(weighed), 40, cache=5),
        rs.Gated(rs.Memory(odd[:1]), 1),
    ):
        reader.fit(validation, evidence=None)
        made = reader.predict_proba(validation)
        assert np.isfinite(made).all() and np.allclose(made.sum(axis=1), 1, atol=1e-5)
        assert rs.evaluate(reader, validation, label_knn=False).log_loss < 1.1


def test_a_fitted_one_is_saved(memory, validation, tmp_path):
    reader = rs.Gated(memory, 20, cache=6).fit(validation)
    reader.save(tmp_path / "mem")
    again = rs.load(tmp_path / "mem")
    assert isinstance(again, rs.Gated) and again.params == reader.params
    np.testing.assert_array_equal(again.scores(validation), reader.scores(validation))
