"""Laws of the ROC curve, with scikit-learn as the reference."""

import numpy as np
import pytest
from sklearn import metrics as sk

from radimagenet_jax.statistics.roc import RankedScores, auroc


def examples(n, *, ties, seed, share=0.4):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < share
    positive[:2] = [True, False]
    scores = rng.normal(size=n) + positive
    return (np.round(scores) if ties else scores), positive


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 3, 17, 500])
@pytest.mark.parametrize("seed", range(3))
def test_area_equals_scikit_learn(n, ties, seed):
    scores, positive = examples(n, ties=ties, seed=seed)
    assert auroc(scores, positive) == pytest.approx(sk.roc_auc_score(positive, scores), abs=1e-14)


def test_area_is_half_when_all_scores_are_equal():
    assert auroc(np.zeros(7), np.arange(7) < 3) == 0.5


def test_area_survives_scores_that_differ_in_the_last_bit_only():
    low, high = 0.1, np.nextafter(0.1, 1)
    assert auroc([high, low, low], [True, False, False]) == 1.0
    assert auroc([low, high, low], [True, False, False]) == 0.25


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("n", [30, 900])
def test_weighted_area_equals_that_of_repeated_examples(n, ties, share):
    # 900 examples at share 0.5 take the ranking's path; the others take the path over pairs.
    scores, positive = examples(n, ties=ties, seed=1, share=share)
    weights = np.random.default_rng(2).integers(0, 4, (8, n))
    weights[:, :2] = 1
    areas = RankedScores(scores, positive).auroc(weights)
    for row, area in zip(weights, areas, strict=True):
        expected = sk.roc_auc_score(positive.repeat(row), scores.repeat(row))
        assert area == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("n", [10, 1200])
def test_a_weighting_without_a_class_has_no_area(n):
    scores, positive = examples(n, ties=False, seed=3, share=0.5)
    weights = np.stack([positive, ~positive, np.ones(n, bool)]).astype(int)
    areas = RankedScores(scores, positive).auroc(weights)
    assert np.isnan(areas).tolist() == [True, True, False]


@pytest.mark.parametrize("ties", [False, True])
def test_curve_equals_scikit_learn(ties):
    scores, positive = examples(200, ties=ties, seed=4)
    curve = RankedScores(scores, positive).curve()
    fpr, tpr, thresholds = sk.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, fpr)
    np.testing.assert_allclose(curve.true_positive_rate, tpr)
    np.testing.assert_allclose(curve.thresholds, thresholds)


def test_sensitivity_at_a_rate_takes_the_upper_end_of_vertical_parts():
    # Falling scores: + + - + -, so the curve is (0, 0) (0, 2/3) (1/2, 2/3) (1/2, 1) (1, 1).
    ranked = RankedScores([5, 4, 3, 2, 1], [True, True, False, True, False])
    at = ranked.sensitivity_at([0, 0.25, 0.5, 1])[0]
    np.testing.assert_allclose(at, [2 / 3, 2 / 3, 1, 1])


def test_area_under_the_interpolated_curve_is_the_area():
    scores, positive = examples(100, ties=True, seed=5)
    ranked = RankedScores(scores, positive)
    grid = np.linspace(0, 1, 100_001)
    area = np.trapezoid(ranked.sensitivity_at(grid)[0], grid)
    assert area == pytest.approx(ranked.auroc()[0], abs=1e-4)


@pytest.mark.parametrize(
    ("scores", "positive", "message"),
    [
        ([1.0, 2.0], [True], "must be"),
        ([1.0, np.nan], [True, False], "finite"),
        ([1.0, 2.0], [True, True], "positive and negative"),
    ],
)
def test_scores_that_have_no_curve_are_refused(scores, positive, message):
    with pytest.raises(ValueError, match=message):
        RankedScores(scores, positive)
