"""Laws of the AUROC's variance without resampling."""

import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from radimagenet_jax.statistics import delong
from radimagenet_jax.statistics.intervals import units


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


def test_an_area_of_one_or_of_equal_scores_has_an_interval_with_width():
    positive = np.arange(20) < 8
    for scores, area in ((positive.astype(float), 1.0), (np.zeros(20), 0.5)):
        found = delong.areas(scores[None], positive)
        low, high = delong.interval(found)
        assert found.auroc[0] == area
        assert low < area - 0.1
        assert high == 1 or high > area + 0.1


@pytest.mark.parametrize("seed", range(4))
def test_a_limit_is_where_the_p_value_is_five_percent(seed):
    scores, positive = _draw(seed)
    found = delong.areas(scores[:1], positive, [f"p{i // 2}" for i in range(40)])
    for limit in delong.interval(found):
        assert delong.p_value(found, limit) == pytest.approx(0.05, abs=1e-3)


def test_a_difference_has_a_p_value_of_five_percent_just_where_its_interval_ends_at_zero():
    rng = np.random.default_rng(3)
    positive = np.arange(60) < 25
    for _ in range(20):
        scores = rng.normal(size=(2, 60)) + positive * np.array([[1.3], [0.7]])
        found = delong.difference(delong.areas(scores, positive, [str(i // 2) for i in range(60)]))
        assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)


def test_over_many_patients_the_interval_is_delongs():
    rng = np.random.default_rng(0)
    positive = np.arange(4000) < 1500
    # Not normal with one variance, so that only what was observed can be right.
    scores = np.where(positive, 1 + 2 * rng.normal(size=4000), rng.normal(size=4000))
    found = delong.areas(scores[None], positive)
    half = 1.96 * np.sqrt(found.covariance[0, 0])
    expected = found.auroc[0] - half, found.auroc[0] + half
    assert delong.interval(found) == pytest.approx(expected, abs=1e-3)


def test_the_clustered_variance_is_near_that_of_leaving_patients_out():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    positive = (patient % 3 == 0) | ((patient % 5 == 0) & (rng.random(len(patient)) < 0.5))
    scores = rng.normal(size=60)[patient] + rng.normal(size=len(patient)) + positive
    left = [roc_auc_score(positive[patient != p], scores[patient != p]) for p in range(60)]
    jackknife = 59 / 60 * np.sum((np.array(left) - np.mean(left)) ** 2)
    found = delong.areas(scores[None], positive, [str(p) for p in patient])
    assert found.covariance[0, 0] == pytest.approx(jackknife, rel=0.12)


def test_the_macro_interval_of_two_classes_is_that_of_one_on_the_logit_scale():
    scores, positive = _draw(0)
    probability = 1 / (1 + np.exp(-scores[0]))
    both = np.stack([1 - probability, probability], axis=1)
    low, high = delong.macro_interval(both, positive.astype(np.int64), units([""] * 40))
    area = roc_auc_score(positive, scores[0])
    centre = (np.log(low / (1 - low)) + np.log(high / (1 - high))) / 2
    assert centre == pytest.approx(np.log(area / (1 - area)))
    half = (np.log(high / (1 - high)) - centre) * area * (1 - area)
    error = np.sqrt(delong.areas(scores[:1], positive).covariance[0, 0])
    assert half == pytest.approx(t.ppf(0.975, positive.sum() - 1) * error, rel=0.03)
