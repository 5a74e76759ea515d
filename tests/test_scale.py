"""The cost model: its record, its tables, and what it says of sizes it was not made from."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale

ROOT = Path(__file__).resolve().parents[1]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "scale.json").read_text("utf-8"))["results"]


def test_the_largest_run_was_predicted_within_30_percent():
    largest = RESULTS["largest"]
    size = scale.Size(largest["n"], largest["dim"])
    assert size.n == 10_000_000 and size.n > max(one["n"] for one in RESULTS["measured"])
    said = scale.predicted(RESULTS["constants"], size)
    for what, value in said.items():
        assert value == pytest.approx(largest["predicted"][what]) and abs(value / largest["run"][what] - 1) < 0.3


def test_the_page_has_the_tables_of_the_record():
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    assert scale.one_machine(RESULTS["constants"]) in page and scale.machines(RESULTS["constants"]) in page
    for what, ratio in RESULTS["predicted_over_run"].items():
        assert ratio == pytest.approx(RESULTS["largest"]["predicted"][what] / RESULTS["largest"]["run"][what], abs=1e-3)
        assert f"| {ratio:.2f} |" in page


def test_constants_are_found_again():
    rng, true = np.random.default_rng(0), {"ram_bytes": [5e7, 1.2, 9.0], "build_cpu_s": [5e-6, 2e-7, 0.0, 7e-11]}
    sizes = [scale.Size(n, dim) for n in (10**5, 10**6, 10**7) for dim in (64, 256, 768)]
    for what, constants in true.items():
        costs = [np.dot(constants, scale.COSTS[what](size)) * rng.uniform(0.97, 1.03) for size in sizes]
        found = scale.fitted([(size, {what: cost}) for size, cost in zip(sizes, costs)], what)
        again = [np.dot(found, scale.COSTS[what](size)) for size in sizes]
        np.testing.assert_allclose(again, costs, rtol=0.08)


@pytest.mark.slow
def test_the_bytes_of_a_folder_are_known():
    pytest.importorskip("faiss")
    size = scale.Size(20_000, 64)
    found = scale.measured(size)
    assert found["disk_bytes"] == pytest.approx(size.disk()[0], rel=0.03)
    assert found["recall"] > 0.8 and all(found[what] > 0 for what in ("build_cpu_s", "search_cpu_ms", "alone_ms"))
