import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def clusters():
    """4 000 keys and 200 unseen queries of 16 dimensions in 40 clusters, far from the origin."""
    rng = np.random.default_rng(7)
    centres = 2 * rng.normal(size=(40, 16)) + 50
    spread = 0.4 * rng.normal(size=(8, 16))
    points = centres[rng.integers(40, size=4200)] + rng.normal(size=(4200, 8)) @ spread
    points = torch.from_numpy(points.astype(np.float32))
    return points[:4000], points[4000:]
