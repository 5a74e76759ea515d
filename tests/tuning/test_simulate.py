"""Settings from the rows of the memory itself: what is chosen, on what, and how sure it is."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import residua as rs
from residua.tuning.simulate import NEIGHBOURS, TEMPERATURES, WIDTHS, own_temperature, simulated


def rows(n, seed, hidden=2.0, regression=False, ids=None):
    """Two classes (or a number) by one key, and by as much as `hidden` of another that the base does not see."""
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    told = keys[:, 0] + hidden * np.sign(keys[:, 1])
    if regression:
        return rs.Encoded(keys, keys[:, 0], told + 0.5 * rng.normal(size=n), ids)
    labels = (told + rng.logistic(size=n) > 0).astype(int)
    return rs.Encoded(keys, np.stack([np.zeros(n), keys[:, 0]], axis=1), labels, ids)


def five(enc):
    """Readers of four fifths of the rows, and the fifth."""
    fold = np.arange(len(enc)) % 5
    return [(rs.ResMem(rs.Memory(enc[fold != i]), k=1, sigma=1.0), enc[fold == i]) for i in range(5)]


def losses(reader, enc):
    """Of each row, by the public verbs."""
    if enc.task == "regression":
        return np.square(reader.predict(enc) - enc.labels).astype(float)
    return -np.log(reader.predict_proba(enc)[np.arange(len(enc)), enc.labels].astype(float))


def least(loss):
    """The temperature of the least loss."""
    return np.exp(minimize_scalar(lambda log: loss(np.exp(log)), bounds=(-3, 3), method="bounded").x)


@pytest.mark.parametrize("regression", [False, True])
def test_each_fold_is_judged_under_what_is_best_on_the_others(regression):
    enc = rows(150, 0, regression=regression)
    folds = five(enc)

    def alone(t, folds):
        return np.concatenate([losses(there.with_params(k=0, temperature=t), new) for there, new in folds])

    own = 1.0 if regression else least(lambda t: alone(t, folds).mean())
    temperatures = [1.0] if regression else [1.0, *(TEMPERATURES * own)]
    memory = [
        [losses(there.with_params(k=5, sigma=1.0, temperature=t), new) for there, new in folds] for t in temperatures
    ]
    memory = np.array(memory)  # (temperatures, folds, 30)
    gains = []
    for i in range(5):
        others = [fold for j, fold in enumerate(folds) if j != i]
        base = alone(1.0 if regression else least(lambda t, others=others: alone(t, others).mean()), folds[i : i + 1])
        best = np.delete(memory, i, axis=1).sum(axis=(1, 2)).argmin()
        gains.append(base - memory[best, i])
    gains = np.concatenate(gains)
    best = simulated(rs.ResMem(rs.Memory(enc)), folds, {"k": 5, "sigma": 1.0}, 1.96, in_sample=False)
    assert best.evidence_.gain == pytest.approx(gains.mean(), rel=1e-3)
    assert best.evidence_.z == pytest.approx(gains.mean() / (gains.std(ddof=1) / np.sqrt(150)), rel=3e-3)
    # What is used is best over all folds.
    assert (best.k, best.sigma) == (5, 1.0)
    assert best.temperature == pytest.approx(temperatures[memory.sum(axis=(1, 2)).argmin()], rel=1e-2)
    assert best.best_score_ == pytest.approx(-memory.sum(axis=(1, 2)).min() / 150, rel=1e-3)


def test_a_model_that_is_only_too_unsure_needs_a_temperature_and_no_memory():
    enc = rows(300, 5, hidden=0)
    enc = rs.Encoded(enc.keys, np.asarray(enc.logits) / 20, enc.labels)
    best = simulated(rs.ResMem(rs.Memory(enc), k=0), five(enc), {}, 1.96, in_sample=False)
    assert best.k == 0 and own_temperature([enc], best) == pytest.approx(1 / 20, rel=0.3)


def test_widths_are_in_units_of_each_memory():
    enc = rows(150, 1, regression=True)
    folds = five(enc)
    reader = rs.ResMem(rs.Memory(enc), k=0)

    def wide(rows):
        return rs.Encoded(10 * rows.keys, rows.logits, rows.labels)

    best = simulated(reader, folds, {}, None, in_sample=False)
    assert best.k in NEIGHBOURS and (np.abs(WIDTHS * reader.memory.median_nn_distance() - best.sigma) < 1e-6).any()
    far = [
        (rs.ResMem(rs.Memory(wide(enc[np.arange(150) % 5 != i])), k=1, sigma=1.0), wide(folds[i][1])) for i in range(5)
    ]
    assert simulated(reader, far, {}, None, in_sample=False).best_params_ == best.best_params_


def test_what_is_given_is_used():
    enc = rows(300, 2, hidden=0)
    given = {"k": 7, "sigma": 0.3, "temperature": 0.77}
    best = simulated(rs.ResMem(rs.Memory(enc)), five(enc), given, 1.96, in_sample=False)
    assert best.best_params_ == given and not best.evidence_.used
    # Without a k the model alone is, at the temperature that is given.
    best = simulated(rs.ResMem(rs.Memory(enc)), five(enc), {"temperature": 0.77}, 1.96, in_sample=False)
    assert (best.k, best.temperature, best.best_params_["k"]) == (0, 0.77, 0)


@pytest.mark.slow
@pytest.mark.parametrize("regression", [False, True])
def test_chance_is_rarely_taken_for_a_memory(regression):
    used = chosen = 0
    for seed in range(20):
        enc = rows(200, seed, hidden=0, regression=regression)
        best = simulated(rs.ResMem(rs.Memory(enc), k=0), five(enc), {}, None, in_sample=False)
        used, chosen = used + (best.evidence_.z > 1.96), chosen + (best.k > 0)
    assert used <= 1 < chosen


def test_a_model_that_knows_its_rows_is_not_read_more_surely():
    enc = rows(300, 3, ids=np.arange(300))
    memory = rs.Memory(enc)
    folds = [(rs.ResMem(memory, k=1, sigma=1.0), enc[np.arange(300) % 5 == i]) for i in range(5)]
    free, held = (simulated(rs.ResMem(memory, k=0), folds, {}, 1.96, in_sample=known) for known in (False, True))
    assert free.temperature < 1 <= held.temperature
    assert free.evidence_.matches == 0  # each row's own is left out


def test_copies_are_no_evidence():
    once = rows(200, 4, hidden=0)
    enc = once[np.repeat(np.arange(200), 2)[np.random.default_rng(0).permutation(400)]]
    best = simulated(rs.ResMem(rs.Memory(enc), k=0), five(enc), {}, 1.96, in_sample=False)
    found = best.evidence_
    assert best.k == 0 and found.z > 1.96 and found.rests_on_matches and not found.used
    assert f"not used: log loss -{found.gain:.4g}" in str(found)
    assert str(found).endswith(f"on 400 rows, by the {found.matches} alone that sit on remembered ones")
    assert simulated(rs.ResMem(rs.Memory(enc), k=0), five(enc), {"sigma": 1.0}, None, in_sample=False).k > 0
