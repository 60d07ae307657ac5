"""Intervals by bootstrap over patients.

Images of one patient resemble each other, so drawing images one by one would pretend to more
evidence than there is. What is drawn here, with replacement, are patients with all their
images (the cluster bootstrap: Davison and Hinkley 1997, section 3.8; for ROC curves: Rutter
2000, Academic Radiology 7:413). Intervals are percentile intervals.

A resample that happens to hold one class only has no ROC curve. It is drawn again, so that the
intervals are conditional on more than one class being seen. At least every second draw
succeeds, even with one positive patient only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2_000
LEVEL = 0.95

# Entries of the weight matrices held at one time: 16 MB of float32, which stays near the caches.
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Units:
    """What a resample draws: patients where they are known, else images.

    Attributes:
      index: (N,) int64, the unit that each image belongs to, 0..count-1.
      count: Number of units.
      kind: 'patient' if any patient is known, else 'image'.
      patients: Number of known patients.
      unknown: Number of images whose patient is not known; each is a unit of its own.
    """

    index: NDArray[np.int64]
    count: int
    kind: str
    patients: int
    unknown: int


def units(patients: Sequence[str]) -> Units:
    """Groups images into units by patient.

    Args:
      patients: One name an image, '' where it is not known.
    """
    names: dict[object, int] = {}
    # An image without a patient gets its own position as its name, which no string equals.
    index = [
        names.setdefault(name or position, len(names)) for position, name in enumerate(patients)
    ]
    unknown = sum(not name for name in patients)
    known = len(names) - unknown
    return Units(
        index=np.asarray(index, np.int64),
        count=len(names),
        kind="patient" if known else "image",
        patients=known,
        unknown=unknown,
    )


def resamples(
    units: Units, labels: ArrayLike, *, count: int = RESAMPLES, seed: int = 0
) -> Iterator[NDArray[np.float32]]:
    """Draws bootstrap resamples. The same arguments give the same resamples.

    Args:
      units: What is drawn; at least two.
      labels: (N,) integers >= 0 with at least two classes. Resamples with fewer than two
        classes are drawn again.
      count: How many resamples.
      seed: Seed of `np.random.default_rng`.

    Yields:
      Chunks (R, N) of how often each image was drawn: whole numbers, as float32 because
      matrix products of integers are slow.

    Raises:
      ValueError: If there are fewer than two units or classes.
    """
    labels = np.asarray(labels)
    classes, label_index = np.unique(labels, return_inverse=True)
    if units.count < 2 or len(classes) < 2:
        raise ValueError(
            f"a bootstrap needs two units and two classes, not {units.count} and {len(classes)}."
        )
    present = np.zeros((units.count, len(classes)), np.float32)
    present[units.index, label_index] = 1
    rng = np.random.default_rng(seed)
    # Sized by the arguments alone, so that the draws do not depend on the machine.
    rows = max(1, min(count, _CHUNK // max(len(labels), units.count)))
    missing = count
    while missing:
        drawn = rng.integers(0, units.count, (rows, units.count))
        drawn += np.arange(rows)[:, None] * units.count
        times = np.bincount(drawn.ravel(), minlength=rows * units.count)
        times = times.reshape(rows, units.count).astype(np.float32)
        usable = np.count_nonzero(times @ present, axis=1) >= 2
        times = times[usable][:missing]
        missing -= len(times)
        if len(times):
            yield times[:, units.index]


def percentile_interval(values: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """The central part of a bootstrap distribution.

    Args:
      values: (R,) one figure a resample, finite.
      level: Share of the distribution inside the interval, in (0, 1).
    """
    tail = (1 - level) / 2
    low, high = np.quantile(np.asarray(values, np.float64), [tail, 1 - tail])
    return float(low), float(high)


def bootstrap(
    statistic: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    units: Units,
    labels: ArrayLike,
    *,
    count: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """A statistic on every resample.

    Args:
      statistic: Function from weights (R, N) float32 to (R, ...) float64.
      units: What is drawn.
      labels: (N,) integers >= 0.
      count: How many resamples.
      seed: Equal seeds give equal resamples, so that two statistics can be paired.

    Returns:
      (count, ...) float64.

    Raises:
      ValueError: As `resamples`.
    """
    return np.concatenate(
        [statistic(weights) for weights in resamples(units, labels, count=count, seed=seed)]
    )
