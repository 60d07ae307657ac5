"""Thresholds that are fixed on the validation set, and what they give on any set.

A threshold chosen on the images that it is judged by flatters. So it is chosen on the validation
scores, once, and applied unchanged to the test scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from radimagenet_jax.statistics import intervals, shares
from radimagenet_jax.statistics.normal_scores import normal_scores
from radimagenet_jax.statistics.roc import RankedScores

AIM = 0.9
HALF = "0.5"
YOUDEN = "Youden"
SENSITIVE = "90 % sensitivity"
SPECIFIC = "90 % specificity"

Interval = tuple[float, float]


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold: images whose score of the positive class is as high or higher are called it.

    Attributes:
      name: `HALF`, `YOUDEN` (the largest sum of sensitivity and specificity), `SENSITIVE` or
        `SPECIFIC` (the other figure is the best there is with at least 0.9 of this one).
      threshold: None where the validation set has none.
      reason: Why it has none, in words.
    """

    name: str
    threshold: float | None
    reason: str | None = None


def fix(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> list[OperatingPoint]:
    """Fixes the operating points on validation scores; images of equal score stay together.

    Args:
      scores: (N,) of the positive class.
      positive: (N,) bool.
    """
    points = [OperatingPoint(HALF, 0.5)]
    if positive.all() or not positive.any():
        reason = "the validation set has images of one class only"
        return points + [OperatingPoint(n, None, reason) for n in (YOUDEN, SENSITIVE, SPECIFIC)]
    curve = RankedScores(scores, positive).curve()
    # Without the first point, which calls nothing positive at a threshold that is no number.
    hits, alarms = curve.true_positive_rate[1:], curve.false_positive_rate[1:]
    # Half way to the next lower score, so that rounding moves no image across.
    thresholds = curve.thresholds[1:].copy()
    thresholds[:-1] = (thresholds[:-1] + thresholds[1:]) / 2
    points.append(OperatingPoint(YOUDEN, float(thresholds[np.argmax(hits - alarms)])))
    # Rounding must not turn nine of ten into less than 0.9. The last point calls all positive.
    first = int(np.argmax(hits >= AIM - 1e-9))
    points.append(OperatingPoint(SENSITIVE, float(thresholds[first])))
    specific = np.flatnonzero(1 - alarms >= AIM - 1e-9)
    if len(specific):
        return [*points, OperatingPoint(SPECIFIC, float(thresholds[specific[-1]]))]
    reason = "the highest score is that of more than a tenth of the negative validation images"
    return [*points, OperatingPoint(SPECIFIC, None, reason)]


def evaluate(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    patients: Sequence[str],
    positive: int,
    points: Sequence[OperatingPoint],
    prevalence: float = 0,
) -> list[dict[str, Any]]:
    """Applies operating points to a split.

    Args:
      scores: (N, C) probabilities; of more than two classes the positive one stands against the
        rest.
      labels: (N,) integers in [0, C).
      patients: N names, '' where not known.
      positive: Index of the positive class.
      points: Of `fix`.
      prevalence: A share of positive images in (0, 1), for further predictive values; 0: none.

    Returns:
      Of each point, ready for strict JSON: 'name', 'threshold', 'reason' (a sentence's part, why
      there is no threshold, else None) and, where there is one, 'sensitivity', 'specificity',
      'accuracy', 'ppv' and 'npv', each in [0, 1] or None without such images, each with its 95 %
      interval over patients as '..._ci95' ([low, high], None of fewer patients than
      `intervals.FEWEST`); 'prevalence', that of the split, which the predictive values are at; and
      with a prevalence given, 'at_prevalence', the same two and the prevalence.
    """
    clusters = intervals.units(patients)
    is_positive = labels == positive
    own = np.asarray(scores[:, positive], np.float64)
    alike = (1.0, 1.0)  # of one class alone nothing is estimated: the most there can be
    if is_positive.any() and not is_positive.all():
        alike = shares.correlation(normal_scores(own[None], is_positive, clusters))
    called_best = scores.argmax(axis=1) == positive
    rows = []
    for point in points:
        row: dict[str, Any] = {
            "name": point.name,
            "threshold": point.threshold,
            "reason": point.reason,
        }
        if point.threshold is not None:
            # Of two equal scores, the first class is called; so at 0.5 this is what was called.
            called = called_best if point.name == HALF else own >= point.threshold
            row |= _figures(called, is_positive, clusters.index, alike, prevalence)
        rows.append(row)
    return rows


def _figures(
    called: NDArray[np.bool_],
    positive: NDArray[np.bool_],
    member: NDArray[np.int64],
    alike: tuple[float, float],
    prevalence: float,
) -> dict[str, Any]:
    right = called == positive
    both = float(np.average(alike, weights=[positive.mean(), 1 - positive.mean()]))
    figures: dict[str, Any] = {}
    for name, among, correlation in (
        ("sensitivity", positive, alike[0]),
        ("specificity", ~positive, alike[1]),
        ("accuracy", np.ones_like(positive), both),
        ("ppv", called, both),
        ("npv", ~called, both),
    ):
        figures[name] = float(right[among].mean()) if among.any() else None
        limits = shares.interval(right[among], member[among], correlation) if among.any() else None
        figures[f"{name}_ci95"] = None if limits is None else list(limits)
    figures["prevalence"] = float(positive.mean())
    if prevalence:
        figures["at_prevalence"] = {"prevalence": prevalence, **at_prevalence(figures, prevalence)}
    return figures


def at_prevalence(figures: dict[str, Any], prevalence: float) -> dict[str, Any]:
    """Predictive values where another share of images is positive than in the split.

    Their limits come from those of sensitivity and specificity (Zou and Donner 2008, Statistics in
    Medicine 27:1693): a value c is possible where true and false alarms may be as c to 1 - c.

    Args:
      figures: With 'sensitivity', 'specificity' and their intervals.
      prevalence: In (0, 1).
    """
    given: dict[str, Any] = dict.fromkeys(("ppv", "ppv_ci95", "npv", "npv_ci95"))
    sides = [(figures[name], figures[f"{name}_ci95"]) for name in ("sensitivity", "specificity")]
    if None in (sides[0][0], sides[1][0]):
        return given
    weights = (prevalence, 1 - prevalence)
    for name, k in (("ppv", 0), ("npv", 1)):
        (true, limits), (other, its) = sides[k], sides[1 - k]
        right, wrong = true * weights[k], (1 - other) * weights[1 - k]
        if right + wrong == 0:
            continue
        given[name] = right / (right + wrong)
        if limits is not None and its is not None:
            given[f"{name}_ci95"] = list(
                _part_of(
                    (true, limits, weights[k]),
                    (1 - other, (1 - its[1], 1 - its[0]), weights[1 - k]),
                    given[name],
                )
            )
    return given


def _part_of(
    one: tuple[float, Interval, float], other: tuple[float, Interval, float], value: float
) -> Interval:
    """Limits of a w / (a w + b v), from (a, limits of a, w) and (b, limits of b, v)."""
    (a, (a_low, a_high), w), (b, (b_low, b_high), v) = one, other

    def margin(down: float, up: float) -> Callable[[float], float]:
        def excess(c: float) -> float:
            x, y = (1 - c) * w, c * v
            return abs(x * a - y * b) - float(np.hypot(x * (a - down), y * (b - up)))

        return excess

    limits = []
    for end, excess in ((0.0, margin(a_low, b_high)), (1.0, margin(a_high, b_low))):
        if value == end or excess(end) <= 0:
            limits.append(end)
        else:
            limits.append(float(brentq(excess, end, value)))
    return limits[0], limits[1]
