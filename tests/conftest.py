import os
from pathlib import Path

# Before torch and FAISS load OpenMP: its threads spin while they wait, which on a busy machine makes k-means on a few
# thousand rows fifteen times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import pytest
import torch

SHARED = Path(os.environ.get("RESIDUA_SHARED", Path(__file__).resolve().parents[2] / "shared"))

torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile(
    "residua", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("residua")


def pytest_collection_modifyitems(items):
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)
        if item.get_closest_marker("shared") and not (SHARED / "models").is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no data and models in {SHARED}; set RESIDUA_SHARED"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and trained models; a test that asks for it is marked ``shared``."""
    return SHARED
