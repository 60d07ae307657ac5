"""Variance and covariance of AUROCs without resampling, for independent or clustered images.

Each example has a placement value: the share of the other class that it is ranked right against
(DeLong et al. 1988, Biometrics 44:837). Ranks give all of them in n log n (Sun and Xu 2014, IEEE
Signal Processing Letters 21:1389). With several images a patient the values are summed per
patient first, so that images of one patient may depend on each other in any way (Obuchowski
1997, Biometrics 53:567).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm, rankdata

from radimagenet_jax.statistics.intervals import LEVEL, Units, units

LOGIT = "DeLong's variance on the logit scale"
SCORE = "Newcombe's score method"
# Of either class, so many independent units at least have to be there for a variance.
FEWEST = 2
# Where the search for a limit begins, away from the observed area, at which the equation of the
# score interval is negative or, at 0 and 1, zero.
_GAP = 1e-9


@dataclass(frozen=True)
class Areas:
    """AUROCs of K classifiers on the same examples.

    Attributes:
      auroc: (K,) float64 in [0, 1].
      covariance: (K, K) float64.
      holders: Independent units (patients, or images that stand alone) with a positive, and with a
        negative, example.
    """

    auroc: NDArray[np.float64]
    covariance: NDArray[np.float64]
    holders: tuple[int, int]


@dataclass(frozen=True)
class Difference:
    """The first classifier's AUROC minus the second's.

    Attributes:
      value: In [-1, 1].
      standard_error: >= 0.
      low, high: Wald interval of the level asked for.
      p_value: Two-sided, of the hypothesis that there is no difference.
      effect: Difference of the separations d = sqrt(2) * probit(AUROC), in standard deviations of
        normal scores (the binormal model of equal variances); None where an AUROC is 0 or 1.
      effect_low, effect_high: Its Wald interval, by the delta method.
    """

    value: float
    standard_error: float
    low: float
    high: float
    p_value: float
    effect: float | None
    effect_low: float | None
    effect_high: float | None


def holders(positive: NDArray[np.bool_], clusters: Units) -> tuple[int, int]:
    """Independent units with a positive, and with a negative, example; see `FEWEST`.

    Args:
      positive: (N,) bool.
      clusters: Of the N examples.
    """
    with_positive, with_negative = (
        len(np.unique(clusters.index[chosen])) for chosen in (positive, ~positive)
    )
    return with_positive, with_negative


def areas(scores: ArrayLike, positive: ArrayLike, patients: Sequence[str] | None = None) -> Areas:
    """Computes AUROCs and their covariance.

    Args:
      scores: (K, N) finite numbers, higher for the positive class.
      positive: (N,) bool.
      patients: N names, '' where not known (such an image stands alone); None: all stand alone.

    Raises:
      ValueError: If shapes differ, a score is not finite, or fewer than two independent units
        hold a positive, or a negative, example.
    """
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if scores.ndim != 2 or positive.shape != scores.shape[1:]:
        raise ValueError(f"scores {scores.shape} and labels {positive.shape} must be (K, N), (N,).")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite.")
    if patients is not None and len(patients) != len(positive):
        raise ValueError(f"{len(positive)} labels, but {len(patients)} patients.")
    clusters = units([""] * len(positive) if patients is None else patients)
    member, count = clusters.index, clusters.count
    held_by = holders(positive, clusters)
    if min(held_by) < FEWEST:
        raise ValueError(
            "a variance needs two independent units with positive and two with negative examples, "
            f"not {held_by[0]} and {held_by[1]}."
        )
    placed = _placements(scores, positive)
    area = placed[:, positive].mean(axis=1)
    totals = []
    for chosen in (positive, ~positive):
        deviations = placed[:, chosen] - area[:, None]
        sums = np.stack([np.bincount(member[chosen], row, count) for row in deviations])
        totals.append(sums / chosen.sum())
    positives, negatives = totals
    within = [
        total @ total.T * (held / (held - 1)) for total, held in zip(totals, held_by, strict=True)
    ]
    # What a patient with images of both classes adds; zero where there is none.
    between = positives @ negatives.T * (count / (count - 1))
    covariance = within[0] + within[1] + between + between.T
    return Areas(area, covariance, held_by)


def _placements(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the other class ranked on the right side, ties one half; (K, N)."""
    placed = np.empty_like(scores)
    everywhere = rankdata(scores, axis=1)
    positives, negatives = positive.sum(), (~positive).sum()
    within = rankdata(scores[:, positive], axis=1)
    placed[:, positive] = (everywhere[:, positive] - within) / negatives
    within = rankdata(scores[:, ~positive], axis=1)
    placed[:, ~positive] = 1 - (everywhere[:, ~positive] - within) / positives
    return placed


def interval(
    auroc: float, variance: float, holders: tuple[int, int], level: float = LEVEL
) -> tuple[float, float, str]:
    """An interval of one AUROC, also where no score is on the wrong side.

    It is symmetric on the logit scale (Pepe 2003, section 5.2.5). An AUROC of 0 or 1, or of scores
    that are all equal, has no variance of its own; there it is `score_interval`.

    Args:
      auroc: In [0, 1].
      variance: Of the AUROC, >= 0.
      holders: As in `Areas`.
      level: In (0, 1).

    Returns:
      Lower limit, upper limit, and the method's name.
    """
    # Below this, rounding of sums that cancel is all there is.
    if not 0 < auroc < 1 or variance <= 1e-15:
        return *score_interval(auroc, holders, level), SCORE
    centre = np.log(auroc / (1 - auroc))
    half = norm.ppf((1 + level) / 2) * np.sqrt(variance) / (auroc * (1 - auroc))
    low, high = 1 / (1 + np.exp(-(centre + np.array([-half, half]))))
    return float(low), float(high), LOGIT


def score_interval(
    auroc: float, holders: tuple[int, int], level: float = LEVEL
) -> tuple[float, float]:
    """An interval from an AUROC and two counts alone, with width at 0 and 1 too.

    The limits are the true areas from which the observed one lies just z standard errors away,
    with the variance of Hanley and McNeil at the true area, in which both counts but those of the
    pairs are replaced by their mean (Newcombe 2006, Statistics in Medicine 25:559, method 5).

    Args:
      auroc: In [0, 1].
      holders: Independent units with a positive, and with a negative, example; each >= 1.
      level: In (0, 1).
    """
    positives, negatives = holders
    others = (positives + negatives) / 2 - 1
    z = float(norm.ppf((1 + level) / 2))

    def excess(true: float) -> float:
        spread = 1 + others * ((1 - true) / (2 - true) + true / (1 + true))
        variance = true * (1 - true) * spread / (positives * negatives)
        return (true - auroc) ** 2 - z**2 * variance

    low = 0.0 if auroc == 0 else float(brentq(excess, 0, auroc - _GAP * auroc))
    high = 1.0 if auroc == 1 else float(brentq(excess, auroc + _GAP * (1 - auroc), 1))
    return low, high


def difference(found: Areas, level: float = LEVEL) -> Difference:
    """Compares the first two classifiers of `areas`, which were scored on the same examples.

    Args:
      found: Of K >= 2 classifiers.
      level: Of the interval, in (0, 1).
    """
    contrast = np.array([1.0, -1.0])
    value = float(contrast @ found.auroc[:2])
    error = float(np.sqrt(max(0.0, contrast @ found.covariance[:2, :2] @ contrast)))
    z = float(norm.ppf((1 + level) / 2))
    # Without any spread, a difference is certain, and so is its absence.
    p_value = float(value == 0)
    if error > 0:
        p_value = float(2 * norm.sf(abs(value) / error))
    effect = _effect(found, z)
    return Difference(value, error, value - z * error, value + z * error, p_value, *effect)


def _effect(found: Areas, z: float) -> tuple[float | None, float | None, float | None]:
    pair = found.auroc[:2]
    if pair.min() <= 0 or pair.max() >= 1:
        return None, None, None
    quantile = norm.ppf(pair)
    slope = np.sqrt(2) / norm.pdf(quantile) * [1, -1]
    value = float(np.sqrt(2) * (quantile[0] - quantile[1]))
    half = z * float(np.sqrt(max(0.0, slope @ found.covariance[:2, :2] @ slope)))
    return value, value - half, value + half
