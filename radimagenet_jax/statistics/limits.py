"""Limits of an interval where the variance depends on the true value, and guesses of variances.

A score interval holds the true values from which the observed one lies less than t standard errors
away, the error being that of the true value (Wilson 1927, JASA 22:209, for a share).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

from radimagenet_jax.statistics.intervals import LEVEL

# The true values that are tried lie this far from the ends.
EDGE = 1e-9
# How many patients the variance of theory counts for, where the observed one is larger, and where
# it is smaller: a few patients lack rare large mistakes sooner than they have too many.
_MORE, _LESS = 10, 20


def score_limits(
    observed: float,
    error: Callable[[float], tuple[float, float]],
    least: float = 0,
) -> tuple[float, float]:
    """The true values from which the observed one lies just t standard errors away.

    Args:
      observed: In [least, 1].
      error: From a true value in (least, 1) to the variance and its degrees of freedom there.
      least: The least value there is.
    """

    def excess(true: float) -> float:
        variance, degrees = error(true)
        quantile = float(stdtrit(degrees, (1 + LEVEL) / 2))
        return (true - observed) ** 2 - quantile**2 * variance

    limits = []
    inside = min(max(observed, least + 2 * EDGE), 1 - 2 * EDGE)
    for end, edge in ((least, least + EDGE), (1, 1 - EDGE)):
        if observed != end and excess(edge) > 0 > excess(inside):
            limits.append(float(brentq(excess, edge, inside, xtol=1e-7)))
        elif observed != end and excess(inside) < 0:
            limits.append(float(end))
        else:
            limits.append(observed)
    return limits[0], limits[1]


def correction(images: NDArray[np.int64]) -> float:
    """The factor by which a sum of squares about an estimated mean is too small.

    It is m / (m - 1) for m patients with as many images each, more where some have most of them.

    Args:
      images: Of each patient, how many.
    """
    share = images / images.sum()
    squares = float((share**2).sum())
    return squares / float((share**2 * (1 - 2 * share + squares)).sum())


def weighed(observed: float, expected: float, patients: float, sums: NDArray[np.float64]) -> float:
    """By what a variance of theory is multiplied to be weighed with the observed one.

    Args:
      observed: Variance, >= 0.
      expected: The same in theory.
      patients: Independent patients, less one, that the observed one rests on.
      sums: Of each patient, by what it moves the estimate.
    """
    if expected <= 1e-15:  # rounding is all there is
        return 1.0
    ratio, against = observed / expected, _MORE
    if ratio < 1:
        # As many patients as would, with equal parts in the variance, tell as much about it.
        squares = sums**2
        patients = float(squares.sum() ** 2 / max((squares**2).sum(), 1e-300))
        against = _LESS
    return 1 + (ratio - 1) * patients / (patients + against)


def satterthwaite(
    whole: Sequence[float], estimated: Sequence[float], patients: Sequence[int]
) -> float:
    """Degrees of freedom of a variance (1946, Biometrics Bulletin 2:110).

    Args:
      whole: Its parts.
      estimated: What is estimated of each.
      patients: From how many patients.
    """
    least = min(patients) - 1
    squares = sum(part**2 / (count - 1) for part, count in zip(estimated, patients, strict=True))
    # Parts of a difference may cancel, which makes the rest no worse known than by one class.
    return max(least, sum(whole) ** 2 / squares) if squares > 0 else np.inf
