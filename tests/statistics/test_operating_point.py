"""Laws of operating points: chosen as scikit-learn's curve says, counted as by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, roc_curve

from radimagenet_jax.statistics import operating_point


def drawn(n, seed=0, decimals=2):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    return np.round(np.clip(rng.normal(0.4 + 0.2 * positive, 0.2), 0, 1), decimals), positive


@pytest.mark.parametrize("seed", range(5))
def test_youdens_threshold_has_the_highest_index_of_the_curve(seed):
    scores, positive = drawn(80, seed)
    threshold = operating_point.youden(scores, positive)
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    called = scores >= threshold
    index = called[positive].mean() - called[~positive].mean()
    assert index == pytest.approx((true - false).max())
    assert threshold not in scores or threshold == scores.min()


def test_of_equal_thresholds_the_most_specific_is_chosen_half_way_to_the_next_score():
    assert operating_point.youden([0.1, 0.4, 0.8, 0.9], [False, False, True, True]) == (
        pytest.approx(0.6)
    )
    # 0.9 alone and all from 0.3 have the same index of one half.
    scores, positive = [0.9, 0.6, 0.3, 0.1], [True, False, True, False]
    assert operating_point.youden(scores, positive) == pytest.approx(0.75)
    # Scores that tell nothing leave a threshold that is a number.
    assert operating_point.youden([0.5, 0.5], [True, False]) == 0.5


def test_images_that_are_units_get_the_shares_of_a_count_and_wilsons_intervals():
    scores, positive = drawn(60)
    figures = operating_point.at_threshold(scores, positive, [""] * 60, 0.5)
    tn, fp, fn, tp = confusion_matrix(positive, scores >= 0.5).ravel()
    assert [figures[name] for name in ("tn", "fp", "fn", "tp")] == [tn, fp, fn, tp]
    for name, top, bottom in (
        *(("sensitivity", tp, tp + fn), ("specificity", tn, tn + fp)),
        *(("positive_predictive_value", tp, tp + fp), ("accuracy", tp + tn, 60)),
        ("negative_predictive_value", tn, tn + fn),
    ):
        assert figures[name] == pytest.approx(top / bottom)
        expected = binomtest(int(top), int(bottom)).proportion_ci(method="wilson")
        assert figures[f"{name}_ci95"] == pytest.approx([expected.low, expected.high], abs=1e-6)


def test_images_of_patients_get_wider_intervals_than_as_many_that_are_independent():
    scores, positive = drawn(40)
    scores, positive = np.repeat(scores, 5), np.repeat(positive, 5)
    patients = [f"p{number // 5}" for number in range(200)]
    clustered = operating_point.at_threshold(scores, positive, patients, 0.5)
    single = operating_point.at_threshold(scores, positive, [""] * 200, 0.5)
    for name in ("sensitivity", "specificity", "accuracy"):
        assert clustered[name] == single[name]
        low, high = clustered[f"{name}_ci95"]
        assert low < clustered[name] < high
        assert high - low > 1.5 * np.ptp(single[f"{name}_ci95"])


def test_where_all_calls_are_right_the_interval_still_has_a_width():
    positive = np.arange(20) % 2 == 0
    patients = [f"p{number // 4}{number % 2}" for number in range(20)]
    figures = operating_point.at_threshold(positive.astype(float), positive, patients, 0.5)
    expected = binomtest(5, 5).proportion_ci(method="wilson")
    assert figures["sensitivity_ci95"] == pytest.approx([expected.low, expected.high], abs=1e-6)


def test_what_has_no_images_has_no_share():
    figures = operating_point.at_threshold([0.1, 0.2], [False, False], ["", ""], 0.5)
    assert figures["sensitivity"] is figures["sensitivity_ci95"] is None
    assert figures["positive_predictive_value"] is None
    assert figures["specificity"] == 1
