"""Corruptions of images, and what a few labelled rows of them are worth; no network."""

import numpy as np
import pytest

import residua as rs
from experiments import shift
from experiments.work import Work


def rows(part, kind, count, *_):
    rng = np.random.default_rng([part == "train", *kind.encode()])
    labels = np.arange(count) % 4
    keys = rng.normal(size=(count, 16))
    keys[np.arange(count), labels + 4 * ["clean", *shift.KINDS].index(kind)] += 3
    return rs.Encoded(keys, 3 * np.eye(4)[labels] * (kind == "clean"), labels)


@pytest.mark.slow
def test_target_rows_mend_what_the_network_cannot_say(monkeypatch):
    monkeypatch.setattr(shift.networks, "split", lambda *_: (None, np.arange(1000) % 4))
    monkeypatch.setattr(shift, "encoded", lambda _, __, part, kind, count, ___: rows(part, kind, count))
    smaller = {"K": (10, 20), "SIGMA": np.array([0.5, 1.0]), "TEMPERATURE": (1.0,), "LMBDA": (0.8,), "FEATURES": 50}
    smaller |= {"KINDS": {"jpeg": "JPEG"}, "STAGES": ("jpeg", "jpeg"), "HALF_LIVES": (1.0,)}
    for name, value in smaller.items():
        monkeypatch.setattr(shift, name, value)
    found = shift.measure(Work(), weights="x", images=200, clean_rows=400)
    none, one, ten = (cell["readers"] for cell in found["cells"])
    for name in ("head_all", "resmem", "pooled"):
        assert ten[name]["accuracy"] > none[name]["accuracy"] + 10
    assert ten["base"]["accuracy"] == none["base"]["accuracy"] and "head_target" not in none and "head_target" in one
    assert len(found["stream"]["half_lives"]) == len(shift.STAGES)
    assert (
        set(shift.tables(found)) == {"accuracies", "log-losses", "gains", "gains over the network", "stream"}
        and shift.draw(found).axes
    )


def test_corruptions_change_an_image_and_not_its_shape():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    for kind in shift.KINDS:
        spoilt = shift.corrupted(images, kind, 0)
        assert spoilt.shape == images.shape and spoilt.dtype == np.uint8 and (spoilt != images).mean() > 0.5
        np.testing.assert_array_equal(spoilt, shift.corrupted(images, kind, 0))
    assert (shift.corrupted(images, "noise", 0) != shift.corrupted(images, "noise", 1)).any()


def test_a_row_weighs_twice_as_much_after_a_half_life():
    memory = shift.weighed([(0, rows("train", "clean", 4)), (3, rows("train", "jpeg", 4))], 1.5)
    assert memory.column("weight")[memory.active_rows].tolist() == [1.0] * 4 + [4.0] * 4
