"""Whether a gain is beyond doubt, by hand."""

import numpy as np
import pytest

from residua.readers.judged import Judged, paired_z


def test_a_ratio_of_sums_by_hand():
    mean, z, count = paired_z(np.array([3.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 2]))
    # Sums 4, 0, 0 of sizes 2, 1, 1 about the mean 1: residuals 2, -1, -1, so sqrt(6 * 3 / 2) / 4 is one standard error.
    assert (mean, count) == (1.0, 3) and z == pytest.approx(1 / 0.75)
    assert paired_z(np.zeros(5), None) == (0.0, 0.0, 5)


@pytest.mark.parametrize(("others", "matched", "rests"), [(0.2, 0.5, False), (0.05, 1.5, True)])
def test_a_gain_rests_on_remembered_rows_where_the_others_show_no_sign_of_one(others, matched, rests):
    known = np.arange(100) < 20
    gains = np.where(known, matched, others) + np.tile([1.0, -1.0], 50)
    seen = Judged("log_loss", np.stack([gains, gains, 0 * gains]), None, None, known, False)
    found = seen.beyond_matches(2, 1, 1.96, by_accuracy=False)
    assert found.z > 1.96 and not found.used and found.matches == 20
    assert seen.unmatched().evidence(2, 1, 1.96, False).z < 1.96
    assert found.rests_on_matches == rests
