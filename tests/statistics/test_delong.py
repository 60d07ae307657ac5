"""Laws of the AUROC's variance without resampling."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from radimagenet_jax.statistics import delong


def _by_definition(scores, positive):
    """DeLong's covariance from all pairs, as the paper writes it."""
    wins = [
        (np.sign(row[positive][:, None] - row[~positive]) + 1) / 2 for row in np.asarray(scores)
    ]
    by_positive = np.cov([w.mean(axis=1) for w in wins]) / positive.sum()
    by_negative = np.cov([w.mean(axis=0) for w in wins]) / (~positive).sum()
    return by_positive + by_negative


def _draw(seed, n=40):
    rng = np.random.default_rng(seed)
    positive = np.arange(n) % 3 == 0
    # Rounded, so that there are ties.
    return np.round(rng.normal(size=(2, n)) + positive, 1), positive


@pytest.mark.parametrize("seed", range(5))
def test_areas_and_covariances_are_those_of_all_pairs_ties_included(seed):
    scores, positive = _draw(seed)
    found = delong.areas(scores, positive)
    expected = [roc_auc_score(positive, row) for row in scores]
    np.testing.assert_allclose(found.auroc, expected, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, _by_definition(scores, positive), rtol=1e-10)


def test_area_and_variance_are_the_published_ones_of_a_clinical_score():
    # The WFNS grade of 113 patients with aneurysmal subarachnoid haemorrhage, by outcome (Turck et
    # al. 2010, Intensive Care Medicine 36:107), as the R package pROC's own tests give its ROC
    # points, area and DeLong variance.
    good, poor = [37, 20, 3, 8, 4], [2, 12, 1, 8, 18]
    grades = np.concatenate([np.repeat(range(1, 6), good), np.repeat(range(1, 6), poor)])
    found = delong.areas(grades[None], np.arange(113) >= 72)
    assert found.auroc[0] == pytest.approx(0.82367886178861793, rel=1e-12)
    assert found.covariance[0, 0] == pytest.approx(0.00146991470882363, rel=1e-12)
    assert found.holders == (41, 72)


@pytest.mark.parametrize("area", [0.0, 0.02, 0.5, 0.9, 1.0])
def test_score_limits_lie_z_standard_errors_from_the_observed_area(area):
    m, n = 20, 35
    limits = delong.score_interval(area, (m, n))
    assert limits[0] <= area <= limits[1]
    others = (m + n) / 2 - 1
    for true in limits:
        spread = 1 + others * (1 - true) / (2 - true) + others * true / (1 + true)
        error = np.sqrt(true * (1 - true) * spread / (m * n))
        assert abs(true - area) == pytest.approx(norm.ppf(0.975) * error, abs=1e-9)


def test_an_area_of_one_or_of_equal_scores_has_an_interval_with_width():
    positive = np.arange(20) < 8
    for scores, area in ((positive.astype(float), 1.0), (np.zeros(20), 0.5)):
        found = delong.areas(scores[None], positive)
        low, high, method = delong.interval(found.auroc[0], found.covariance[0, 0], found.holders)
        assert found.auroc[0] == area
        assert low < area - 0.1
        assert high == 1 or high > area + 0.1
        assert method == delong.SCORE


def test_the_effect_size_is_the_shift_of_unit_normals():
    rng = np.random.default_rng(5)
    positive = np.arange(40_000) < 20_000
    scores = rng.normal(size=(2, 40_000)) + positive * np.array([[1.5], [1.0]])
    found = delong.difference(delong.areas(scores, positive))
    assert found.effect == pytest.approx(0.5, abs=0.04)
    assert found.effect_low < 0.5 < found.effect_high
    perfect = delong.areas(np.stack([positive[::1000], scores[0, ::1000]]), positive[::1000])
    assert delong.difference(perfect).effect is None


def test_patients_of_one_image_each_change_nothing():
    scores, positive = _draw(0)
    alone = delong.areas(scores, positive)
    named = delong.areas(scores, positive, [f"p{i}" for i in range(40)])
    np.testing.assert_array_equal(alone.covariance, named.covariance)


def test_images_repeated_within_patients_are_no_further_evidence():
    scores, positive = _draw(1)
    once = delong.areas(scores, positive)
    names = [f"p{i}" for i in range(40)]
    thrice = delong.areas(np.tile(scores, 3), np.tile(positive, 3), names * 3)
    np.testing.assert_allclose(thrice.covariance, once.covariance, rtol=1e-10)


def test_equal_classifiers_do_not_differ():
    scores, positive = _draw(2)
    same = delong.difference(delong.areas(scores[[0, 0]], positive))
    assert (same.value, same.p_value) == (0, 1)
    assert same.standard_error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("positive", [[True, False, False], [True] * 3])
def test_too_few_of_a_class_are_refused(positive):
    with pytest.raises(ValueError, match="two independent units"):
        delong.areas([[1.0, 2.0, 3.0]], positive)


def _simulated(rng, n, shift, images):
    """Two classifiers of equal area on patients whose images resemble each other."""
    patient = np.arange(n) // images
    positive = rng.random(n) < 0.3
    shared = rng.normal(size=patient[-1] + 1)[patient] + rng.normal(size=n)
    noise = rng.normal(size=(2, n)) * np.sqrt(2)
    return (shared + noise) / 2 + shift * positive, positive, [str(name) for name in patient]


@pytest.mark.slow
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize(("n", "shift"), [(60, 1.2), (150, 1.2), (150, 2.2)])
def test_intervals_of_95_percent_cover_the_truth_in_93_to_97_percent(n, shift, images):
    rng = np.random.default_rng(1)
    truth = norm.cdf(shift / np.sqrt(2))
    covered = np.zeros(2)
    for _ in range(2_000):
        found = delong.areas(*_simulated(rng, n, shift, images))
        low, high, _ = delong.interval(found.auroc[0], found.covariance[0, 0], found.holders)
        paired = delong.difference(found)
        covered += low <= truth <= high, paired.low <= 0 <= paired.high
    share = covered / 2_000
    np.testing.assert_allclose(share, 0.95, rtol=0, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("m", "n", "shift"), [(10, 20, 2.2), (10, 20, 3.2), (20, 40, 3.2)])
def test_intervals_near_one_are_not_too_short(m, n, shift):
    # Up to four in ten of these samples have an area of exactly one. The intervals are then
    # conservative: measured 97.4 to 98.0 %.
    rng = np.random.default_rng(1)
    positive = np.arange(m + n) < m
    truth = norm.cdf(shift / np.sqrt(2))
    covered = 0
    for _ in range(2_000):
        found = delong.areas((rng.normal(size=m + n) + shift * positive)[None], positive)
        low, high, _ = delong.interval(found.auroc[0], found.covariance[0, 0], found.holders)
        covered += low <= truth <= high
    assert 0.93 <= covered / 2_000 <= 0.99
