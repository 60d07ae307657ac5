"""Laws of intervals of shares."""

import numpy as np
import pytest
from scipy.stats import binomtest

from radimagenet_jax.statistics import shares


@pytest.mark.parametrize(("right", "n"), [(0, 5), (3, 5), (18, 20), (20, 20), (57, 130)])
def test_with_an_image_a_patient_they_are_wilsons(right, n):
    expected = binomtest(right, n).proportion_ci(method="wilson")
    found = shares.interval(np.arange(n) < right, np.arange(n), 0.7)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_images_repeated_within_patients_are_no_further_evidence():
    right = np.arange(30) < 24
    once = shares.interval(right, np.arange(30), 1.0)
    low, high = shares.interval(np.tile(right, 10), np.tile(np.arange(30), 10), 1.0)
    # As far as the correlation, which is estimated then, makes the quantile that of t.
    assert low <= once[0] + 1e-6
    assert high >= once[1] - 1e-6
    assert high - low == pytest.approx(once[1] - once[0], rel=0.1)


def test_independent_images_of_patients_are_nearly_wilsons():
    rng = np.random.default_rng(0)
    right, member = rng.random(600) < 0.8, np.repeat(np.arange(200), 3)
    expected = binomtest(int(right.sum()), 600).proportion_ci(method="wilson")
    assert shares.interval(right, member, 0.0) == pytest.approx(
        (expected.low, expected.high), abs=0.01
    )


def test_four_patients_are_too_few():
    assert shares.interval(np.ones(40, bool), np.repeat(np.arange(4), 10), 0.5) is None
