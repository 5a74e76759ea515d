import numpy as np
import pytest

import residua as rs
from residua.inspector.sliders import moved, sliders_of


def names(reader, depth=100):
    return [one.name for one in sliders_of(reader, depth)]


def test_a_reader_has_the_sliders_of_its_parameters(made, memory):
    assert names(rs.ResMem(memory)) == ["k", "sigma", "temperature"]
    assert names(rs.ResMem(memory, space="exponent")) == ["k", "sigma", "temperature", "base_weight", "residual_weight"]
    assert names(rs.KNNLM(memory, k=9)) == ["k", "sigma", "temperature", "lmbda"]
    assert names(rs.Pooled(memory, k=9)) == ["k", "temperature"]
    assert names(rs.Gated(memory, k=9)) == ["k", "sigma"]
    assert names(rs.ResMem(rs.Memory(made(30, task="regression")))) == ["k", "sigma"]
    shares = rs.AdaptiveLambda([1.0], [0.5, 0.1])
    assert names(rs.KNNLM(memory, k=9, lmbda=shares)) == ["k", "sigma", "temperature"]


def test_what_was_stored_at_one_temperature_has_no_slider_of_it(made):
    memory = rs.Memory(made(30), storage="top-m", m=2, temperature=1.5)
    assert names(rs.ResMem(memory, temperature=1.5)) == ["k", "sigma"]
    assert "temperature" in names(rs.KNNLM(memory, k=9))


def test_every_end_of_a_slider_is_a_setting(memory):
    for reader in (rs.ResMem(memory, space="exponent"), rs.KNNLM(memory, k=9), rs.Pooled(memory, k=9)):
        for one in sliders_of(reader, 50):
            assert one.least <= one.value <= one.most
            for end in (one.least, one.most):
                assert getattr(moved(reader, {one.name: end}), one.name) == end


def test_a_whole_number_of_neighbours_is_one_however_it_is_written(memory):
    reader = rs.ResMem(memory, k=5)
    for k in (5.0, 7.0):
        assert (moved(reader, {"k": k}).k, type(moved(reader, {"k": k}).k)) == (k, int)


def test_k_goes_no_deeper_than_is_known_or_remembered(memory):
    assert sliders_of(rs.ResMem(memory), 64)[0].most == 64
    assert sliders_of(rs.ResMem(memory), 5000)[0].most == len(memory)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lmbda": 0.5}, "no number 'lmbda'"),
        ({"memory": 1}, "no number 'memory'"),
        ({"skip": 0.5}, "no number 'skip'"),
        ({"k": 2.5}, "k=2.5"),
        ({"k": -1}, "k=-1"),
        ({"k": 10**9}, "rows"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
        ({"temperature": "hot"}, "expected a number"),
        ({"k": True}, "expected a number"),
    ],
)
def test_other_settings_are_refused(memory, settings, said):
    with pytest.raises(rs.errors.ParameterError, match=said):
        moved(rs.ResMem(memory), settings)


def test_residuals_of_a_temperature_serve_the_settings_after_it(made, memory):
    reader, test = rs.ResMem(memory, k=20), made(200, 1)
    first = moved(reader, {"temperature": 2.0})
    first.scores(test)
    second = moved(reader, {"temperature": 2.0, "k": 7}, first)
    assert second._made_once["table"] is first._made_once["table"]
    fresh = rs.ResMem(memory, k=7, sigma=reader.sigma, temperature=2.0)
    assert np.array_equal(second.scores(test), fresh.scores(test))
    memory.relabel(0, 2)
    assert np.array_equal(second.scores(test), rs.ResMem(memory, 7, reader.sigma, 2.0).scores(test))
    assert moved(reader, {}, second).params == reader.params
