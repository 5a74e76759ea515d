import numpy as np
import pytest

import residua as rs
from residua.errors import InputError, ParameterError

V = 9
GRID = {"window": [1, 4, 50], "theta": [0.1, 1.0, 4.0], "lmbda": [0.1, 0.5]}


def text(documents, length=15, seed=0, first_id=0, shuffled=False):
    """Documents that repeat themselves: each uses few words, and like states are followed by like words."""
    rng = np.random.default_rng(seed)
    words = np.concatenate([rng.choice(V, 3, replace=False)[rng.integers(0, 3, length)] for _ in range(documents)])
    centres = np.random.default_rng(5).normal(size=(V, 4)) * 1.5
    keys = centres[words] + 0.3 * rng.normal(size=(len(words), 4))
    if shuffled:
        words = rng.integers(0, V, len(words))
    ids = first_id + np.repeat(np.arange(documents), length)
    columns = {"offset": np.tile(np.arange(length), documents)}
    return rs.Encoded(keys, rng.normal(size=(len(words), V)), words, ids, columns=columns)


def readers():
    memory = rs.Memory(text(4), storage="none")
    return [rs.KNNLM(memory, k=0), rs.KNNLM(memory, k=5, sigma=1.0, lmbda=0.3)]


@pytest.mark.parametrize("over", readers())
def test_every_setting_is_the_dense_computation(over):
    val = text(3, seed=1, first_id=50)
    best = rs.tune(rs.ContinuousCache(over), val, GRID)
    inner = over.predict_proba(val).astype(np.float64)[np.arange(len(val)), val.labels]
    keys = val.keys.astype(np.float64)
    assert len(best.results_["score"]) == 1 + 3 * 3 * 2
    for window, theta, lmbda, measured in zip(*(best.results_[n] for n in ("window", "theta", "lmbda", "log_loss"))):
        p = inner.copy()
        for t in range(len(val)):
            past = [i for i in range(max(0, t - window), t) if val.ids[i] == val.ids[t]]
            if past:
                weights = np.exp(theta * (keys[past] @ keys[t]))
                found = weights[val.labels[past] == val.labels[t]].sum() / weights.sum()
                p[t] = lmbda * found + (1 - lmbda) * p[t]
        assert measured == pytest.approx(-np.log(p).mean(), rel=1e-5)
    assert best.best_params_["lmbda"] == 0.5 and best.over is over
    tuned = best.predict_proba(val)[np.arange(len(val)), val.labels].astype(np.float64)
    assert best.best_score_ == pytest.approx(np.log(tuned).mean(), rel=1e-4)


def test_batches_tune_like_the_whole():
    reader, val = rs.ContinuousCache(readers()[1]), text(4, seed=1, first_id=50)
    whole = rs.tune(reader, val, GRID)
    parts = rs.tune(reader, iter([val[:7], val[7:8], val[8:8], val[8:33], val[33:]]), GRID)
    for name, values in whole.results_.items():
        np.testing.assert_allclose(values, parts.results_[name], rtol=1e-5)


def test_documents_in_the_memory_are_left_out_of_the_reader_under_the_cache():
    train = text(4)
    over = rs.KNNLM(rs.Memory(train, storage="none"), k=5, sigma=1.0, lmbda=0.3)
    best = rs.tune(rs.ContinuousCache(over), train, GRID)
    honest = over.predict_proba(train)[np.arange(len(train)), train.labels]
    assert best.results_["score"][0] == pytest.approx(np.log(honest.astype(np.float64)).mean(), rel=1e-5)


def test_a_document_that_goes_on_after_another_has_its_past_as_when_it_is_read():
    first, second = text(1, 30, seed=3, first_id=60), text(1, seed=4, first_id=70)
    data = [first[:15], second, first[15:]]
    grid = {"window": [50], "theta": [1.0], "lmbda": [0.5]}
    best = rs.tune(rs.ContinuousCache(readers()[0]), data, grid)
    reader = rs.ContinuousCache(readers()[0], window=50, theta=1.0, lmbda=0.5)
    labels = np.concatenate([part.labels for part in data])
    honest = reader.predict_proba(data)[np.arange(len(labels)), labels].astype(np.float64)
    assert best.results_["score"][-1] == pytest.approx(np.log(honest).mean(), rel=1e-5)


def test_a_cache_that_does_not_help_is_given_nothing():
    best = rs.tune(rs.ContinuousCache(readers()[0]), text(6, seed=2, first_id=50, shuffled=True), {"lmbda": [0.9]})
    assert best.lmbda == 0 and best.best_score_ == best.results_["score"][0]


def test_a_cache_is_used_where_it_is_better_than_the_reader_under_it_beyond_doubt():
    over, val = readers()[1], text(12, seed=1, first_id=50)
    best = rs.tune(rs.ContinuousCache(over), val, GRID)
    under, tuned = (r.predict_proba(val)[np.arange(len(val)), val.labels].astype(np.float64) for r in (over, best))
    gains = np.array(
        [np.log(tuned / under)[val.ids == i].sum() for i in np.unique(val.ids)]
    )  # by document, 15 rows each
    found = best.evidence_
    assert found.used and best.lmbda > 0 and (found.groups, found.rows) == (12, 180)
    assert found.gain == pytest.approx(gains.mean() / 15, rel=1e-3)
    assert found.z == pytest.approx(gains.mean() / (gains.std(ddof=1) / np.sqrt(12)), rel=1e-3)
    assert "the cache is used" in str(found) and "against the reader under it on 180 rows in 12 groups" in str(found)


def test_a_lucky_cache_is_not_used():
    lucky = used = 0
    for seed in range(10):
        val = text(12, seed=seed, first_id=50, shuffled=True)
        val = rs.Encoded(
            val.keys, np.zeros((len(val), V)), val.labels, val.ids, columns=val.columns
        )  # all there is to know
        grid = {"window": [1, 50], "theta": [0.1, 1.0], "lmbda": [0.01, 0.05]}
        lucky += rs.tune(rs.ContinuousCache(readers()[0]), val, grid, evidence=None).lmbda > 0
        best = rs.tune(rs.ContinuousCache(readers()[0]), val, grid)
        used += best.lmbda > 0
        assert best.evidence_.used == (best.lmbda > 0) and best.best_params_["lmbda"] == best.lmbda
    assert used <= 1 < lucky
    alone = rs.tune(rs.ContinuousCache(readers()[0]), val, {"lmbda": [0]})
    assert alone.lmbda == 0 and not alone.evidence_.used


def test_default_grids_and_bad_input():
    reader, val = rs.ContinuousCache(readers()[0]), text(3, seed=1, first_id=50)
    best = rs.tune(reader, val)
    assert reader.theta in best.results_["theta"] and best.lmbda > 0
    for grid, says in [({"k": [1]}, "under it first"), ({"window": [0]}, "window"), ({"lmbda": [1.0]}, "lmbda")]:
        with pytest.raises(ParameterError, match=says):
            rs.tune(reader, val, grid)
    with pytest.raises(ParameterError, match="log_loss alone"):
        rs.tune(reader, val, skip=0.1)
    with pytest.raises(ParameterError, match="document ids"):
        rs.tune(reader, rs.Encoded(val.keys, val.logits, val.labels), GRID)
    with pytest.raises(InputError, match="no rows"):
        rs.tune(reader, val[:0], GRID)
