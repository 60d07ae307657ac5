"""Intervals and paired differences of AUROCs over patients with one or many images each.

Each image has a placement value: the share of the other class that it is ranked right against
(DeLong et al. 1988, Biometrics 44:837). Ranks give all of them in n log n (Sun and Xu 2014, IEEE
Signal Processing Letters 21:1389). They are summed per patient first, so that images of one patient
may depend on each other in any way (Obuchowski 1997, Biometrics 53:567).

Over few patients that variance is a bad guess, too small most of the time: what makes it large are
patients with many mistakes, and the fewer patients, the likelier it is that none of these is among
them. So it is weighed against the variance of `normal_scores` for the same patients, the more the
more patients there are; where no score is on the wrong side, the latter stands alone. Limits are
the true areas from which the observed one lies just t standard errors away, the error being that of
the true area (a score interval, as Wilson's of a share): they never leave [0, 1] and have a width
where the area is 1. Degrees of freedom are Satterthwaite's for what is estimated of the variance,
how much images of a patient resemble each other; there are infinitely many with one image each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, stdtr, stdtrit
from scipy.stats import norm, rankdata

from radimagenet_jax.statistics import intervals
from radimagenet_jax.statistics.intervals import LEVEL, units
from radimagenet_jax.statistics.limits import EDGE, correction, satterthwaite, score_limits, weighed
from radimagenet_jax.statistics.normal_scores import NormalScores, normal_scores

# What an interval is called where each image stands alone, and what is added of known patients.
MACRO = "DeLong's variance on the logit scale"
METHOD = "DeLong's variance in a score interval"
CLUSTERED = ", clustered by patient"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Areas:
    """AUROCs of K classifiers on the same examples.

    Attributes:
      auroc: (K,) float64 in [0, 1].
      covariance: (K, K) float64, DeLong's, clustered.
      holders: Independent units (patients, or images that stand alone) with a positive, and with a
        negative, example.
      sums: (K, units) float64, how each unit moves each area; the covariance rests on them.
      theory: The dependence of scores, for the covariance of normal theory.
    """

    auroc: Floats
    covariance: Floats
    holders: tuple[int, int]
    sums: Floats
    theory: NormalScores

    @property
    def inner(self) -> Floats:
        """The areas (K,), those of 0 and 1 moved in by half a pair of patients."""
        pairs = self.holders[0] * self.holders[1]
        return (self.auroc * pairs + 0.5) / (pairs + 1)

    def of(self, k: int) -> "Areas":
        """The same of one classifier alone."""
        one = slice(k, k + 1)
        return Areas(
            self.auroc[one],
            self.covariance[one, one],
            self.holders,
            self.sums[one],
            self.theory.of(k),
        )


@dataclass(frozen=True)
class Difference:
    """The first classifier's AUROC minus the second's.

    Attributes:
      value: In [-1, 1].
      standard_error: >= 0.
      low, high: 95 % interval.
      p_value: Two-sided, of the hypothesis that there is no difference.
      effect: Difference of the separations d = sqrt(2) * probit(AUROC), in standard deviations of
        normal scores (the binormal model of equal variances); None where an AUROC is 0 or 1.
      effect_low, effect_high: Its interval, by the delta method.
    """

    value: float
    standard_error: float
    low: float
    high: float
    p_value: float
    effect: float | None
    effect_low: float | None
    effect_high: float | None


def areas(
    scores: ArrayLike,
    positive: ArrayLike,
    patients: Sequence[str] | intervals.Units | None = None,
) -> Areas:
    """Computes AUROCs and their covariance.

    Args:
      scores: (K, N) finite numbers, higher for the positive class.
      positive: (N,) bool.
      patients: N names, '' where not known (such an image stands alone), or the units that they
        make; None: all stand alone.

    Raises:
      ValueError: If shapes differ, a score is not finite, or fewer than two independent units
        hold a positive, or a negative, example.
    """
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if scores.ndim != 2 or positive.shape != scores.shape[1:]:
        raise ValueError(f"scores {scores.shape} and labels {positive.shape} must be (K, N), (N,).")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite.")
    if not isinstance(patients, intervals.Units):
        patients = units([""] * len(positive) if patients is None else patients)
    clusters = patients
    if len(clusters.index) != len(positive):
        raise ValueError(f"{len(positive)} labels, but {len(clusters.index)} patients.")
    member, count = clusters.index, clusters.count
    held_by = intervals.held(positive, clusters), intervals.held(~positive, clusters)
    if min(held_by) < 2:
        raise ValueError(
            "a variance needs two independent units with positive and two with negative examples, "
            f"not {held_by[0]} and {held_by[1]}."
        )
    placed = _placements(scores, positive)
    area = placed[:, positive].mean(axis=1)
    totals, covariance = [], np.zeros((len(scores), len(scores)))
    for chosen in (positive, ~positive):
        deviations = placed[:, chosen] - area[:, None]
        sums = np.stack([np.bincount(member[chosen], row, count) for row in deviations])
        totals.append(sums / chosen.sum())
        covariance += totals[-1] @ totals[-1].T * correction(np.bincount(member[chosen]))
    # What a patient with images of both classes adds; zero where there is none.
    between = totals[0] @ totals[1].T * (count / (count - 1))
    return Areas(
        area,
        covariance + between + between.T,
        held_by,
        totals[0] + totals[1],
        normal_scores(scores, positive, clusters),
    )


def _placements(scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Share of the other class ranked on the right side, ties one half; (K, N)."""
    placed = np.empty_like(scores)
    everywhere = rankdata(scores, axis=1)
    positives, negatives = positive.sum(), (~positive).sum()
    within = rankdata(scores[:, positive], axis=1)
    placed[:, positive] = (everywhere[:, positive] - within) / negatives
    within = rankdata(scores[:, ~positive], axis=1)
    placed[:, ~positive] = 1 - (everywhere[:, ~positive] - within) / positives
    return placed


def interval(found: Areas) -> tuple[float, float]:
    """The 95 % interval of an AUROC, with width also at 0 and 1.

    Args:
      found: Of one classifier.
    """
    return score_limits(float(found.auroc[0]), _error(found))


def p_value(found: Areas, true: float) -> float:
    """Two-sided p-value of a true AUROC; `interval` holds those that have 0.05 or more.

    Args:
      found: Of one classifier.
      true: In (0, 1).
    """
    variance, degrees = _error(found)(true)
    return float(2 * stdtr(degrees, -abs(true - found.auroc[0]) / np.sqrt(variance)))


def _error(found: Areas) -> Callable[[float], tuple[float, float]]:
    """From a true area to the variance of the observed one and its degrees of freedom."""
    factor, theory = _scale(found, np.ones(1)), found.theory

    def error(true: float) -> tuple[float, float]:
        whole, *parts = theory.parts(np.array([true]))[:, 0, 0].tolist()
        return factor * whole, _freedom(parts, found.holders)

    return error


def _scale(found: Areas, contrast: Floats) -> float:
    """By what a contrast's variance of normal theory is multiplied, to be weighed as above."""
    observed = max(0.0, float(contrast @ found.covariance @ contrast))
    expected, *parts = _parts(found, contrast)
    return weighed(observed, expected, _patients(parts, found.holders), contrast @ found.sums)


def _parts(found: Areas, contrast: Floats, at: Floats | None = None) -> list[float]:
    """Of a contrast, what `NormalScores.parts` has of areas, by default at the observed ones."""
    parts = found.theory.parts(found.inner if at is None else at)
    return [float(contrast @ part @ contrast) for part in parts]


def _freedom(parts: Sequence[float], holders: tuple[int, int]) -> float:
    return satterthwaite((parts[0], parts[2]), (parts[1], parts[3]), holders)


def _patients(parts: Sequence[float], holders: tuple[int, int]) -> float:
    """The same where all is estimated, as how alike the scores of two classifiers are."""
    return satterthwaite((parts[0], parts[2]), (parts[0], parts[2]), holders)


def covariance(found: Areas, contrasts: Floats) -> Floats:
    """Covariance (S, S) of contrasts (S, K), that of normal theory weighed with DeLong's."""
    expected = contrasts @ found.theory.covariance(found.inner) @ contrasts.T
    factors = np.sqrt([_scale(found, contrast) for contrast in contrasts])
    return np.asarray(expected * np.outer(factors, factors))


def freedom(found: Areas, contrast: Floats) -> float:
    """Degrees of freedom of the variance of a difference of areas, a contrast (K,)."""
    return _patients(_parts(found, contrast)[1:], found.holders)


def difference(found: Areas) -> Difference:
    """Compares the first two classifiers of `areas`, which were scored on the same examples.

    A true difference is tried with the observed mean of both areas, or the nearest mean there is
    to it (as Mee 1984, Biometrics 40:1175, for shares); zero is a limit just where the p-value is
    0.05.

    Args:
      found: Of K >= 2 classifiers.
    """
    contrast = np.zeros(len(found.auroc))
    contrast[:2] = 1, -1
    value, factor = float(contrast @ found.auroc), _scale(found, contrast)
    middle = float(found.auroc[:2].mean())

    def error(true: float) -> tuple[float, float]:
        gap = abs(true) / 2
        mean = min(max(middle, gap), 1 - gap)
        at = found.inner
        at[:2] = np.clip([mean + true / 2, mean - true / 2], EDGE, 1 - EDGE)
        whole, *parts = _parts(found, contrast, at)
        return factor * whole, _patients(parts, found.holders)

    low, high = score_limits(value, error, least=-1)
    # Without any spread, a difference is certain, and so is its absence.
    p_value = float(value == 0)
    spread, degrees = error(0.0)
    if spread > 1e-15:
        p_value = float(2 * stdtr(degrees, -abs(value) / np.sqrt(spread)))
    spread = covariance(found, contrast[None])[0, 0]
    half = float(stdtrit(freedom(found, contrast), (1 + LEVEL) / 2))
    return Difference(
        value, float(np.sqrt(max(0.0, spread))), low, high, p_value, *_effect(found, half)
    )


def _effect(found: Areas, half: float) -> tuple[float | None, float | None, float | None]:
    pair = found.auroc[:2]
    if pair.min() <= 0 or pair.max() >= 1:
        return None, None, None
    quantile = norm.ppf(pair)
    slope = np.zeros(len(found.auroc))
    slope[:2] = np.sqrt(2) / norm.pdf(quantile) * [1, -1]
    value = float(np.sqrt(2) * (quantile[0] - quantile[1]))
    error = half * float(np.sqrt(max(0.0, covariance(found, slope[None])[0, 0])))
    return value, value - error, value + error


def macro_interval(
    scores: Floats, labels: NDArray[np.int64], clusters: intervals.Units
) -> tuple[float, float] | None:
    """The 95 % interval of the mean AUROC of each class against the rest.

    It is symmetric on the logit scale (Pepe 2003, section 5.2.5), of the t distribution with the
    degrees of freedom of the class of the fewest patients; None where nothing is ranked wrong.

    Args:
      scores: (N, C) finite.
      labels: (N,) integers in [0, C), of at least two classes, each of two units or more.
      clusters: Of the N images.
    """
    present = np.unique(labels)
    sums, area = np.zeros(clusters.count), 0.0
    for label in present:
        positive = labels == label
        placed = _placements(scores[None, :, label], positive)[0]
        own = float(placed[positive].mean())
        area += own / len(present)
        for chosen in (positive, ~positive):
            part = np.bincount(clusters.index[chosen], placed[chosen] - own, clusters.count)
            sums += part / chosen.sum() / len(present)
    fewest = min(intervals.held(labels == label, clusters) for label in present)
    error = float(np.sqrt((sums**2).sum() * fewest / (fewest - 1)))
    if not 0 < area < 1 or error < 1e-9:
        return None
    centre, slope = logit(area), area * (1 - area)
    half = float(stdtrit(fewest - 1, (1 + LEVEL) / 2)) * error / slope
    return float(expit(centre - half)), float(expit(centre + half))
