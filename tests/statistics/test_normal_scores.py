"""Laws of the variance that AUROCs have where scores are normal."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from radimagenet_jax.statistics import delong
from radimagenet_jax.statistics.intervals import units
from radimagenet_jax.statistics.normal_scores import normal_scores, orthant
from tests.benchmarks.coverage import Setting, draw


@pytest.mark.parametrize("seed", range(10))
def test_an_orthant_is_scipys(seed):
    rng = np.random.default_rng(seed)
    h, k, correlation = *rng.normal(size=2), rng.uniform(-1, 1)
    expected = multivariate_normal.cdf([h, k], cov=[[1, correlation], [correlation, 1]])
    assert orthant(h, k, correlation) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("images", ["1", "5", "unequal"])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_covariance_is_that_of_many_simulated_test_sets(images, mixed):
    setting = Setting((15, 25), images, 0.6, (0.8, 0.7), mixed and images != "1")
    rng = np.random.default_rng(0)
    areas, expected = [], []
    for _ in range(600):
        found = delong.areas(*draw(setting, rng))
        areas.append(found.auroc)
        expected.append(found.theory.covariance(np.array(setting.areas)))
    # A variance over 600 has a standard error of 6 %; correlations are estimated from 40 patients.
    np.testing.assert_allclose(np.mean(expected, axis=0), np.cov(np.transpose(areas)), rtol=0.2)


def test_correlations_of_a_patients_images_are_found():
    scores, positive, clusters = draw(
        Setting((400, 400), "5", 0.6, (0.8, 0.8)), np.random.default_rng(0)
    )
    found = normal_scores(scores, positive, clusters)
    for one in (found.positive, found.negative):
        np.testing.assert_allclose(np.diagonal(one.shared), 0.6, atol=0.06)
        assert one.same[0, 1] == pytest.approx(0.7, abs=0.05)
    assert found.mixed == 0


def test_a_rising_function_of_the_scores_changes_nothing():
    scores, positive, clusters = draw(Setting((6, 9), "5", 0.6, (0.8,)), np.random.default_rng(0))
    plain, bent = (delong.areas(s, positive, clusters) for s in (scores, np.exp(scores)))
    assert delong.interval(plain) == delong.interval(bent)


def test_equal_scores_are_taken_as_one_a_patient():
    found = normal_scores(np.zeros((1, 8)), np.arange(8) < 4, units(list("aabbccdd")))
    assert found.positive.shared[0, 0] == 1
