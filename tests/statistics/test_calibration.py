"""Laws of calibration figures, with scikit-learn and published examples as the references."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from radimagenet_jax.statistics import calibration

RNG = np.random.default_rng(0)
PROBABILITY = RNG.random(400)
HAPPENED = RNG.random(400) < PROBABILITY**2


def test_bins_equal_scikit_learn():
    diagram = calibration.reliability(PROBABILITY, HAPPENED)
    observed, predicted = calibration_curve(HAPPENED, PROBABILITY, n_bins=10)
    np.testing.assert_allclose(diagram.observed, observed)
    np.testing.assert_allclose(diagram.predicted, predicted)
    assert diagram.counts.sum() == 400


def test_expected_error_is_zero_for_perfect_and_one_for_inverted_scores():
    happened = np.array([True, False, True])
    assert calibration.reliability(happened.astype(float), happened).expected_error == 0
    assert calibration.reliability(1.0 - happened, happened).expected_error == 1


def test_empty_bins_are_left_out_and_the_ends_belong_to_the_outer_bins():
    diagram = calibration.reliability([0, 1, 1], [False, True, False])
    assert diagram.predicted.tolist() == [0, 1]
    assert diagram.observed.tolist() == [0, 0.5]
    assert diagram.counts.tolist() == [1, 2]


def test_wilson_interval_equals_the_published_example():
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 81/263, 15/148, 0/20 and 1/29.
    low, high = calibration.wilson_interval(
        np.array([81 / 263, 15 / 148, 0, 1 / 29]), [263, 148, 20, 29]
    )
    np.testing.assert_allclose(low, [0.2553, 0.0624, 0.0, 0.0061], atol=5e-5)
    np.testing.assert_allclose(high, [0.3662, 0.1605, 0.1611, 0.1718], atol=5e-5)


def test_brier_equals_scikit_learn():
    expected = brier_score_loss(HAPPENED, PROBABILITY)
    assert calibration.brier(PROBABILITY, HAPPENED) == pytest.approx(expected)
