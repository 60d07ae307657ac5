"""Laws of the mean difference over settings that share their patients."""

import numpy as np
import pytest

from radimagenet_jax.statistics import mixed


def shared(settings, correlation):
    return (1 - correlation) * np.eye(settings) + correlation


def test_without_sampling_error_it_is_the_one_sample_t_test():
    from scipy.stats import ttest_1samp

    values = np.array([0.1, 0.4, -0.2, 0.3, 0.25])
    found = mixed.mean_effect(values, np.zeros((5, 5)))
    expected = ttest_1samp(values, 0)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.between == pytest.approx(values.std(ddof=1))


def test_settings_that_all_say_the_same_are_no_more_evidence_than_one():
    found = mixed.mean_effect([0.3] * 24, 0.01 * np.ones((24, 24)))
    assert found.standard_error == pytest.approx(0.1)
    assert found.between == 0
    assert found.high == pytest.approx(0.3 + 1.959964 * 0.1)


def test_ignoring_shared_patients_would_claim_too_much():
    rng = np.random.default_rng(0)
    covariance = 0.01 * shared(24, 0.7)
    values = rng.multivariate_normal(np.zeros(24), covariance)
    whole = mixed.mean_effect(values, covariance).standard_error
    apart = mixed.mean_effect(values, np.diag(covariance.diagonal())).standard_error
    assert whole > 3 * apart


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_settings_are_refused(count):
    with pytest.raises(ValueError, match="do not fit"):
        mixed.mean_effect(np.zeros(count), np.zeros((count, count)))


@pytest.mark.parametrize(
    ("settings", "between", "correlation"),
    [
        (24, 0.0, 0.7),
        (24, 1.0, 0.7),
        (24, 0.5, 0.3),
        (6, 1.0, 0.7),
        (6, 0.0, 0.7),
        (3, 0.0, 0.7),
        (3, 1.0, 0.7),
        (3, 2.0, 0.7),
    ],
)
def test_intervals_of_95_percent_cover_the_truth_in_93_to_97_percent(
    settings, between, correlation
):
    rng = np.random.default_rng(0)
    covariance = shared(settings, correlation)
    errors = rng.multivariate_normal(np.zeros(settings), covariance, 2_000)
    covered = 0
    for error in errors:
        found = mixed.mean_effect(error + between * rng.normal(size=settings), covariance)
        covered += found.low <= 0 <= found.high
    assert 0.93 <= covered / 2_000 <= 0.97


def test_with_few_patients_the_interval_is_as_wide_as_their_number_makes_it():
    known = mixed.mean_effect([0.3] * 4, 0.01 * np.ones((4, 4)))
    few = mixed.mean_effect([0.3] * 4, 0.01 * np.ones((4, 4)), patients=4)
    assert few.freedom == pytest.approx(4)
    assert (few.high - 0.3) / (known.high - 0.3) == pytest.approx(2.776 / 1.96, rel=1e-3)
