import numpy as np
import pytest

import residua as rs
from residua.readers.seen import Seen


def rows(keys, **options):
    return rs.Encoded(np.asarray(keys, dtype=options.pop("dtype", np.float64)), np.zeros((len(keys), 2)), **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keys_are_known_again_and_others_are_not(dtype):
    keys = np.random.default_rng(0).normal(size=(5000, 3)).astype(dtype)
    seen = Seen.join([Seen.of(rows(keys[:2000], dtype=dtype)), Seen.of(rows(keys[2000:3000], dtype=dtype))])
    assert seen.with_key_of(rows(keys, dtype=dtype)).tolist() == [True] * 3000 + [False] * 2000
    close = np.nextafter(keys, np.inf, dtype=dtype)
    assert not seen.with_key_of(rows(close, dtype=dtype)).any()
    assert not seen.with_key_of(rows(keys[:, ::-1], dtype=dtype)).any()


def test_zeros_are_alike_and_ids_are_kept():
    seen = Seen.of(rows([[0.0, 1.0]], ids=[7]))
    assert seen.with_key_of(rows([[-0.0, 1.0], [1.0, 0.0]])).tolist() == [True, False]
    assert Seen.join([seen, seen, Seen.of(rows([[3.0, 4.0]]))]).ids.tolist() == [7]
    assert not Seen.join([]).with_key_of(rows([[0.0, 1.0]])).any()


@pytest.mark.parametrize("options", [{}, {"objective": "accuracy"}, {"grid": {"k": [2]}}, {"evidence": None}])
def test_a_tuned_reader_knows_what_it_was_tuned_on(options):
    rng = np.random.default_rng(0)
    enc = rs.Encoded(rng.normal(size=(300, 2)), np.zeros((300, 2)), rng.integers(2, size=300), ids=np.arange(300))
    best = rs.tune(rs.ResMem(rs.Memory(enc[:100]), k=3), iter([enc[100:150], enc[150:200]]), **options, progress=False)
    assert best.tuned_on_.with_key_of(enc).nonzero()[0].tolist() == list(range(100, 200))
    assert best.tuned_on_.ids.tolist() == list(range(100, 200))


def test_a_fitted_reader_knows_what_it_was_fitted_on():
    rng = np.random.default_rng(0)
    enc = rs.Encoded(rng.normal(size=(400, 2)), rng.normal(size=(400, 2)), rng.integers(2, size=400))
    reader = rs.Pooled(rs.Memory(enc[:100]), k=10)
    assert len(reader.fit(progress=False).tuned_on_.prints) == 0  # of its own rows it needs no list
    reader.fit([enc[100:200], enc[200:250]], calibration=enc[250:300], evidence=None, progress=False)
    known = reader.tuned_on_.with_key_of(enc).nonzero()[0]
    assert known[:150].tolist() == list(range(100, 250)) and set(known) <= set(range(100, 300))
