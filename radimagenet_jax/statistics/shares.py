"""Intervals over patients of shares: sensitivity, specificity, accuracy, predictive values.

With one image a patient they are Wilson's (1927, JASA 22:209). With more, the variance has a second
part, for images of one patient resemble each other: how much, the scores tell by their correlation
(`normal_scores`), and what was observed of the share itself is weighed in, as in `delong`.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from radimagenet_jax.statistics.intervals import FEWEST
from radimagenet_jax.statistics.limits import correction, satterthwaite, score_limits, weighed
from radimagenet_jax.statistics.normal_scores import NormalScores, OneClass, orthant

METHOD = "Wilson's score interval, clustered by patient"
Interval = tuple[float, float]


def interval(
    right: NDArray[np.bool_], member: NDArray[np.int64], correlation: float
) -> Interval | None:
    """The 95 % interval of a share of images; None if they are of fewer patients than `FEWEST`.

    Args:
      right: (N,) bool, which images count.
      member: (N,) the patient of each.
      correlation: Of scores of a patient's images, in [0, 1].
    """
    _, member, images = np.unique(member, return_inverse=True, return_counts=True)
    n, patients = len(right), len(images)
    if patients < FEWEST:
        return None
    share = float(right.mean())
    same = float((images * (images - 1.0)).sum() / n**2)
    sums = np.bincount(member, right - share) / n
    inner = (share * patients + 0.5) / (patients + 1)
    factor = 1.0
    if same:
        expected = sum(_variance(inner, n, same, correlation))
        observed = float((sums**2).sum()) * correction(images)
        factor = weighed(observed, expected, patients - 1, sums)

    def error(true: float) -> tuple[float, float]:
        alone, shared = _variance(true, n, same, correlation)
        whole = alone + shared
        return factor * whole, satterthwaite((whole,), (shared,), (patients,))

    return score_limits(share, error)


def _variance(true: float, n: int, same: float, correlation: float) -> tuple[float, float]:
    """Of images that stand alone, and what images of one patient add."""
    alone = true * (1 - true) / n
    if not same:
        return alone, 0.0
    limit = np.array(ndtri(true) or 1e-9)
    return alone, same * float(orthant(limit, limit, np.array(correlation)) - true**2)


def correlation(theory: NormalScores) -> tuple[float, float]:
    """Correlation of a patient's images in the positive and negative class, of one classifier."""
    return float(theory.positive.shared[0, 0]), float(theory.negative.shared[0, 0])


def sensitivity_at(specificity: float, observed: float, theory: NormalScores) -> Interval | None:
    """The 95 % interval of a sensitivity where the specificity is given, whatever the threshold.

    The threshold is unsure too: an error of the specificity there moves the sensitivity by the
    slope of the ROC curve, which in theory follows from both (Pepe 2003, section 5.2.3).

    Args:
      specificity: In (0, 1).
      observed: The sensitivity, in [0, 1].
      theory: Of one classifier.
    """
    positive, negative = theory.positive, theory.negative
    if min(positive.patients, negative.patients) < FEWEST:
        return None
    # Beyond half an image, an observed rate says nothing of the next.
    rate = min(max(1 - specificity, negative.image / 2), 1 - negative.image / 2)
    of_rate = _of_class(rate, negative)
    limit = ndtri(rate)

    def error(true: float) -> tuple[float, float]:
        slope = float(np.exp((limit**2 - ndtri(true) ** 2) / 2))
        alone, shared = _of_class(true, positive)
        by_rate = [slope**2 * part for part in of_rate]
        degrees = satterthwaite(
            (alone + shared, sum(by_rate)),
            (shared, by_rate[1]),
            (positive.patients, negative.patients),
        )
        return alone + shared + sum(by_rate), degrees

    return score_limits(observed, error)


def _of_class(true: float, images: OneClass) -> tuple[float, float]:
    return _variance(true, round(1 / images.image), images.patient, float(images.shared[0, 0]))
