"""Whether scores can be read as probabilities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
_BINS = 10


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: ten equal bins in which predictions and outcomes are compared.

    Empty bins are left out; K is the number of the others.

    Attributes:
      predicted: (K,) float64, mean predicted probability.
      observed: (K,) float64, share of examples in which the event happened.
      low, high: (K,) float64, 95 % Wilson score interval of the observed share.
      counts: (K,) int64, examples.
      expected_error: Expected calibration error: mean of |observed - predicted|, weighted by
        the counts (Naeini et al. 2015, AAAI).
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    counts: NDArray[np.int64]
    expected_error: float


def reliability(probability: ArrayLike, happened: ArrayLike) -> Reliability:
    """Compares predicted probabilities with what happened, in ten bins.

    A probability on a limit belongs to the upper bin.

    Args:
      probability: (N,) in [0, 1], N >= 1.
      happened: (N,) bool.
    """
    probability = np.asarray(probability, np.float64)
    happened = np.asarray(happened, bool)
    edges = np.linspace(0, 1, _BINS + 1)
    member = np.clip(np.searchsorted(edges, probability, "right") - 1, 0, _BINS - 1)
    counts = np.bincount(member, minlength=_BINS)
    used = counts > 0
    counts = counts[used]
    predicted = np.bincount(member, probability, _BINS)[used] / counts
    observed = np.bincount(member, happened, _BINS)[used] / counts
    low, high = wilson_interval(observed, counts)
    return Reliability(
        predicted=predicted,
        observed=observed,
        low=low,
        high=high,
        counts=counts,
        expected_error=float(np.abs(observed - predicted) @ counts / counts.sum()),
    )


def wilson_interval(
    share: ArrayLike, count: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % score interval of a share (Wilson 1927, JASA 22:209).

    Args:
      share: (...) observed shares in [0, 1].
      count: (...) trials, >= 1.
    """
    share, count = np.asarray(share, np.float64), np.asarray(count, np.float64)
    z2 = _Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z95 / (1 + z2 / count) * np.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def brier(probability: ArrayLike, happened: ArrayLike) -> float:
    """Mean squared difference of probability and outcome (Brier 1950), in [0, 1].

    Args:
      probability: (N,) in [0, 1], N >= 1.
      happened: (N,) bool.
    """
    difference = np.asarray(probability, np.float64) - np.asarray(happened, np.float64)
    return float(np.mean(difference**2))
