"""A student's share, chosen on validation rows, and the model alone where it is not surely better."""

import numpy as np
import pytest

import residua as rs
from residua.errors import ParameterError


def rows(n, seed=0, sure=1.0, **more):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 2))
    labels = (keys[:, 0] > 0).astype(int)
    return rs.Encoded(keys, rng.normal(size=(n, 2)) + sure * np.eye(2)[labels], labels, **more)


def taught(readout, **more):
    teacher = rs.KNNLM(rs.Memory(rows(300, **more)), k=10)
    return rs.distil(teacher, readout=readout, epochs=8, batch_size=32, rate=2e-3, progress=False)


@pytest.fixture(scope="module")
def students():
    return {readout: taught(readout) for readout in ("mixture", "residual")}


@pytest.mark.parametrize("readout", ["mixture", "residual"])
@pytest.mark.parametrize("objective", ["log_loss", "accuracy"])
def test_the_best_score_is_what_the_tuned_student_reaches(students, readout, objective):
    validation = rows(300, 1)
    best = rs.tune(students[readout], validation, objective=objective)
    assert best.evidence_.used and best.evidence_.z > 3 and not best.is_noop
    result = rs.evaluate(best, validation)
    assert best.best_score_ == pytest.approx(result.accuracy if objective == "accuracy" else -result.log_loss, abs=1e-6)
    share = best.results_[best.share]
    assert best.best_score_ == best.results_["score"][share > 0].max() and (share == 0).sum() > 3
    assert best.best_params_[best.share] == getattr(best, best.share)
    assert result.log_loss < result.base_log_loss


def test_the_shares_that_are_asked_for(students):
    best = rs.tune(students["mixture"], rows(200, 1), {"lmbda": [0.2, 0.1], "temperature": [1, 2]})
    used = best.results_["lmbda"] > 0
    assert sorted(set(best.results_["lmbda"][used])) == [0.1, 0.2] and set(best.results_["temperature"][used]) == {1, 2}
    with pytest.raises(ParameterError, match="gamma"):
        rs.tune(students["mixture"], rows(9, 1), {"gamma": [1.0]})
    with pytest.raises(ParameterError, match="lmbda=2"):
        rs.tune(students["mixture"], rows(9, 1), {"lmbda": [2.0]})
    for wrong in ({"skip": 0.1}, {"adaptive": 3}, {"budget": 0.1}):
        with pytest.raises(ParameterError, match="searches"):
            rs.tune(students["mixture"], rows(9, 1), **wrong)
    with pytest.raises(ParameterError, match="conservative"):
        rs.tune(students["mixture"], rows(9, 1), objective="conservative")


def test_a_student_of_noise_is_not_used():
    data = rows(300)
    data.labels = np.random.default_rng(3).integers(0, 2, 300)
    student = rs.distil(rs.KNNLM(rs.Memory(data), k=10), epochs=4, batch_size=64, progress=False)
    best = rs.tune(student, rows(300, 1, sure=3.0))
    assert not best.evidence_.used and best.is_noop


def test_rows_that_it_learned_prove_nothing(students):
    with pytest.warns(UserWarning, match="300 of 300 validation rows"):
        best = rs.tune(students["mixture"], rows(300))
    assert best.is_noop and best.evidence_.rests_on_matches and best.evidence_.matches == 300
