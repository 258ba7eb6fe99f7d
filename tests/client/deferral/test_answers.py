"""The student's answer about an image, and the vendor's."""

import numpy as np
import pytest

from client.deferral.answers import Answer


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_together_the_vendor_decides_on_rejection_and_the_student_on_exactness(
    kind: type[np.floating],
) -> None:
    own = Answer(np.array([0.9, 0.1], kind), "student", rejected=True)
    vendor = Answer(np.array([0.1, 0.9]), "vendor", cost_micros=100)
    both = own.with_vendor(vendor)
    assert (both.answered_by, both.cost_micros, both.rejected) == ("vendor", 100, False)
    assert both.probabilities.dtype == kind
    assert 0.5 < both.probabilities[1] < 0.9
