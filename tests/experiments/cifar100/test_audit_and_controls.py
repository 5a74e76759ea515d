"""The experiments audit and controls as a whole, on the miniature."""

import pytest

from experiments import audit, controls
from experiments.work import Work

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore:the labels use")
def test_an_audit_of_a_network_that_was_trained_on_wrong_labels(small_cifar, tmp_path, monkeypatch):
    monkeypatch.setattr(
        audit, "cost", lambda *_: {"n": 60, "seconds": 1, "cpu_seconds": 1, "gigabytes": 1, "missed": 0}
    )
    results = audit.measure(Work(), epochs=1, data="", checkpoints=str(tmp_path))
    assert results["n"] == 120 and results["wrong"] == 12
    assert {"base", "audit", "audit_resmem", "audit_votes", "shapley", "memorisation"} <= set(results["found"])
    assert results["found"]["audit_votes"]["auroc"] > 0.7
    assert set(audit.tables(results)) >= {"found", "cost", "mended"}
    again = audit.measure(Work(), epochs=1, data="", checkpoints=str(tmp_path))  # nothing is trained again
    assert again["found"] == results["found"]


def test_controls_of_a_network(small_cifar, small_weights, monkeypatch):
    monkeypatch.setattr(controls, "split", lambda *_: None)
    options = {"layer_images": 60, "rows": 200, "groups": 20, "seeds": 2}
    results = controls.measure(Work(), weights=(small_weights,), data="", **options)
    (one,) = results["networks"]
    assert set(one["readers"]) == set(controls.READERS) and one["name"] == "model"
    assert one["readers"]["linear"]["accuracy"] > one["base"]
    assert [layer["dim"] for layer in results["layers"].values()] == [16, 16, 32, 64, 100]
    assert {layer["memory"] for layer in results["layers"].values()} == {60}
    assert len(controls.tables(results)) == 6
