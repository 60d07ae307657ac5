"""Laws of what intervals of areas and of shares have in common."""

import numpy as np
import pytest

from radimagenet_jax.statistics import limits


@pytest.mark.parametrize("images", [1, 7])
def test_the_correction_of_equal_patients_is_that_of_a_sample_variance(images):
    assert limits.correction(np.full(5, images)) == pytest.approx(5 / 4)


def test_it_makes_the_sum_of_squares_right_on_average_where_patients_differ():
    rng, images = np.random.default_rng(0), np.array([1, 2, 4, 8])
    # Of a patient, the images' sum of one draw that they share: independent from the others'.
    sums = rng.normal(size=(100_000, 4)) * images
    about = sums - images * sums.sum(axis=1, keepdims=True) / images.sum()
    found = (about**2).sum(axis=1).mean() * limits.correction(images)
    assert found == pytest.approx((images**2).sum(), rel=0.01)
