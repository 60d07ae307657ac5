"""Laws of thresholds that are fixed on the validation set."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from radimagenet_jax.statistics import operating_points
from radimagenet_jax.statistics.operating_points import SENSITIVE, SPECIFIC, YOUDEN


def drawn(seed=0, n=200, decimals=8):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    score = np.round(1 / (1 + np.exp(-rng.normal(size=n) - labels)), decimals)
    return score, labels


def two(score):
    return np.stack([1 - score, score], axis=1)


@pytest.mark.parametrize("decimals", [8, 1])
def test_points_are_those_of_scikit_learns_curve_ties_included(decimals):
    score, labels = drawn(decimals=decimals)
    points = {one.name: one.threshold for one in operating_points.fix(score, labels == 1)}
    alarms, hits, thresholds = roc_curve(labels, score, drop_intermediate=False)
    for name, expected in (
        (YOUDEN, thresholds[np.argmax(hits - alarms)]),
        (SENSITIVE, thresholds[hits >= 0.9].max()),
        (SPECIFIC, thresholds[1 - alarms >= 0.9].min()),
    ):
        # Half way to the score below: the same images, and no rounding moves one across.
        below = score[score < expected].max()
        assert points[name] == (expected + below) / 2


def test_thresholds_are_applied_unchanged_to_another_split():
    points = operating_points.fix(*(lambda s, y: (s, y == 1))(*drawn()))
    score, labels = drawn(seed=1)
    rows = operating_points.evaluate(two(score), labels, [""] * 200, 1, points)
    for point, row in zip(points, rows, strict=True):
        called = score >= point.threshold
        assert row["threshold"] == point.threshold
        assert row["sensitivity"] == called[labels == 1].mean()
        assert row["specificity"] == (~called)[labels == 0].mean()
        assert row["accuracy"] == (called == (labels == 1)).mean()
        assert row["ppv"] == (labels == 1)[called].mean()
        assert row["npv"] == (labels == 0)[~called].mean()
        assert row["prevalence"] == labels.mean()
        right, n = int(called[labels == 1].sum()), int(labels.sum())
        wilson = binomtest(right, n).proportion_ci(method="wilson")
        assert row["sensitivity_ci95"] == pytest.approx([wilson.low, wilson.high], abs=1e-6)
    json.dumps(rows, allow_nan=False)


def test_at_a_tie_the_point_of_one_half_calls_what_the_confusion_matrix_calls():
    points = operating_points.fix(np.array([0.2, 0.5]), np.array([False, True]))
    row = operating_points.evaluate(
        two(np.array([0.2, 0.5])), np.array([0, 1]), ["", ""], 1, points
    )
    assert row[0]["sensitivity"] == 0


def test_one_class_in_the_validation_set_leaves_one_half_and_says_why():
    half, *others = operating_points.fix(np.array([0.2, 0.5]), np.array([True, True]))
    assert half.threshold == 0.5
    assert [one.threshold for one in others] == [None] * 3
    assert all("one class only" in one.reason for one in others)
    row = operating_points.evaluate(
        two(np.array([0.2, 0.6])), np.array([1, 1]), ["a", "b"], 1, [half, *others]
    )
    assert (row[0]["sensitivity"], row[0]["specificity"]) == (0.5, None)
    assert "sensitivity" not in row[1]


def test_scores_that_are_all_equal_have_no_threshold_of_90_percent_specificity():
    points = operating_points.fix(np.full(10, 0.5), np.arange(10) < 5)
    assert points[-1].threshold is None
    assert "highest score" in points[-1].reason


def test_predictive_values_at_the_sets_own_prevalence_are_the_counted_ones():
    score, labels = drawn()
    points = operating_points.fix(score, labels == 1)
    for row in operating_points.evaluate(
        two(score), labels, [""] * 200, 1, points, float(labels.mean())
    ):
        for name in ("ppv", "npv"):
            assert row["at_prevalence"][name] == pytest.approx(row[name])
            low, high = row["at_prevalence"][f"{name}_ci95"]
            assert low < row[name] < high


def test_predictive_values_at_another_prevalence_are_bayes_rule():
    row = {"sensitivity": 0.9, "specificity": 0.8}
    row |= {"sensitivity_ci95": (0.85, 0.94), "specificity_ci95": (0.74, 0.85)}
    found = operating_points.at_prevalence(row, 0.1)
    assert found["ppv"] == pytest.approx(0.09 / (0.09 + 0.18))
    assert found["npv"] == pytest.approx(0.72 / (0.72 + 0.01))
    # Where one of the two is known for sure, the limits are those that the other gives.
    row["sensitivity_ci95"] = (0.9, 0.9)
    low, high = operating_points.at_prevalence(row, 0.1)["ppv_ci95"]
    assert low == pytest.approx(0.09 / (0.09 + 0.9 * 0.26))
    assert high == pytest.approx(0.09 / (0.09 + 0.9 * 0.15))


def test_a_perfect_specificity_has_a_predictive_value_of_one_with_a_limit_below_it():
    row = {"sensitivity": 0.9, "specificity": 1.0}
    row |= {"sensitivity_ci95": (0.8, 0.95), "specificity_ci95": (0.9, 1.0)}
    found = operating_points.at_prevalence(row, 0.1)
    assert found["ppv"] == 1
    assert found["ppv_ci95"][1] == 1
    assert 0.4 < found["ppv_ci95"][0] < 0.6


def test_of_many_classes_the_positive_one_stands_against_the_rest():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 3, 90), rng.dirichlet(np.ones(3), 90)
    points = operating_points.fix(scores[:, 2], labels == 2)
    rows = operating_points.evaluate(scores, labels, [""] * 90, 2, points)
    called = scores[:, 2] >= points[1].threshold
    assert rows[1]["specificity"] == (~called)[labels != 2].mean()
