"""What is timed is the network alone, the same with its memory, and the next size."""

import pytest

from experiments.cifar100.latency import latency


def test_three_ways_are_timed_and_sized(small_cifar, small_weights):
    found = latency(small_weights, "here", 1.0, 0, "cpu")
    assert list(found["milliseconds"]) == ["base", "resmem", "next"]
    assert all(time > 0 for time in found["milliseconds"].values())
    assert found["parameters"]["base"] == 81140 < found["parameters"]["next"]
    assert found["threads"] >= 1
    assert found["megabytes"]["keys"] == pytest.approx(120 * 64 * 4 / 1e6)
    assert found["megabytes"]["logits"] == pytest.approx(120 * 100 * 4 / 1e6)
