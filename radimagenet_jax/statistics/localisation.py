"""How well maps point at lesions: overlap at every threshold, pointing, and their intervals.

A map says of each pixel how much speaks for a class. Its region is where it reaches a threshold,
and the region's overlap with the lesion's mask is what is judged:

* Dice = 2 |region and lesion| / (|region| + |lesion|) (Dice 1945, Ecology 26:297);
* IoU = |region and lesion| / |region or lesion| (Jaccard's index);
* the pointing game (Zhang et al. 2016, ECCV, LNCS 9908:543): whether the map's highest place lies
  in the lesion, here without their tolerance of some pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from radimagenet_jax.statistics.intervals import LEVEL, Units, units

MAXIMUM, QUANTILE = "maximum", "quantile"
_STEPS = tuple(step / 50 for step in range(1, 50))
# Nothing is a region where a map says nothing.
_LEAST = np.nextafter(np.float32(0), np.float32(1))


@dataclass(frozen=True)
class Threshold:
    """What a place of a map has to reach to be in its region.

    Attributes:
      family: `MAXIMUM`, a fraction of the map's maximum, or `QUANTILE`, what that share of the
        map's places lies below.
      value: The fraction or the share, in (0, 1).
    """

    family: str
    value: float

    def of(self, ordered: NDArray[np.float32]) -> np.float32:
        """The threshold of a map, whose places are given in ascending order.

        It is above 0, since what is 0 is never in a region.
        """
        if self.family == MAXIMUM:
            found = np.float32(self.value * float(ordered[-1]))
        else:
            found = ordered[int(self.value * len(ordered))]
        return max(found, _LEAST)


THRESHOLDS = tuple(Threshold(family, value) for family in (MAXIMUM, QUANTILE) for value in _STEPS)


@dataclass(frozen=True)
class Overlap:
    """How the regions of N maps at K thresholds lie to the lesions.

    Attributes:
      region: (N, K) float64, share of the image that the region covers.
      dice: (N, K) float64 in [0, 1].
      iou: (N, K) float64 in [0, 1].
      points: (N,) bool, whether the map's highest place lies in the lesion; a map without a place
        above 0 points nowhere, and so not there.
    """

    region: NDArray[np.float64]
    dice: NDArray[np.float64]
    iou: NDArray[np.float64]
    points: NDArray[np.bool_]

    @classmethod
    def stacked(cls, parts: Sequence["Overlap"]) -> "Overlap":
        """Puts overlaps of the same thresholds one below the other."""
        names = ("region", "dice", "iou", "points")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def region(activation: NDArray[np.float32], threshold: Threshold) -> NDArray[np.bool_]:
    """Where a map (H, W), >= 0, reaches a threshold: (H, W) bool."""
    return activation >= threshold.of(np.sort(activation, axis=None))


def sweep(
    activation: NDArray[np.float32],
    mask: NDArray[np.bool_],
    thresholds: Sequence[Threshold] = THRESHOLDS,
) -> Overlap:
    """Overlap of one map with one lesion at every threshold.

    Args:
      activation: (H, W) float32, >= 0.
      mask: (H, W) bool, with a place in the lesion at least.
      thresholds: K thresholds.

    Returns:
      The overlap of N = 1 map.
    """
    # What is sorted once tells for each threshold how many places reach it.
    every, inside = np.sort(activation, axis=None), np.sort(activation[mask])
    limits = np.array([threshold.of(every) for threshold in thresholds], np.float32)
    areas = every.size - np.searchsorted(every, limits)
    both = inside.size - np.searchsorted(inside, limits)
    highest = int(np.argmax(activation))
    points = bool(activation.flat[highest] > 0 and mask.flat[highest])
    return _overlap(areas, both, mask, points)


def overlap(chosen: NDArray[np.bool_], mask: NDArray[np.bool_], *, points: bool) -> Overlap:
    """Overlap of one region with one lesion, (H, W) bool each: N = K = 1."""
    return _overlap(np.array([chosen.sum()]), np.array([(chosen & mask).sum()]), mask, points)


def _overlap(
    areas: NDArray[np.int64], both: NDArray[np.int64], mask: NDArray[np.bool_], points: bool
) -> Overlap:
    lesion = int(mask.sum())
    return Overlap(
        region=(areas / mask.size)[None],
        dice=(2 * both / (areas + lesion))[None],
        iou=(both / (areas + lesion - both))[None],
        points=np.array([points]),
    )


def choose(found: Overlap) -> int:
    """The threshold with the highest mean Dice, the first of equal ones: 0 to K - 1."""
    return int(np.argmax(found.dice.mean(axis=0)))


def disc(shape: tuple[int, int], share: float) -> NDArray[np.bool_]:
    """A disc in the middle of an image: (H, W) bool.

    Args:
      shape: H and W.
      share: Of the image, its area; where it would leave the image it is cut off.
    """
    height, width = shape
    rows = np.arange(height)[:, None] - (height - 1) / 2
    columns = np.arange(width) - (width - 1) / 2
    return rows**2 + columns**2 <= share * height * width / np.pi


@dataclass(frozen=True)
class Estimate:
    """A mean over images with its 95 % interval.

    Attributes:
      value: The mean.
      low, high: The interval; None with fewer than two patients.
    """

    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain values."""
        interval = None if self.low is None else [self.low, self.high]
        return {"mean": self.value, "ci95": interval}


def mean(values: ArrayLike, patients: Sequence[str]) -> Estimate:
    """The mean over images, with an interval over patients.

    The variance is that of sums of patients about the mean (Liang and Zeger 1986, Biometrika 73:13,
    times G / (G - 1) for G patients), the interval Student's with G - 1 degrees of freedom: images
    of one patient may depend on each other in any way.

    Args:
      values: (N,) numbers; differences of two maps on the same images are paired so.
      patients: N names, '' where not known; such an image stands alone.
    """
    values = np.asarray(values, np.float64)
    groups = units(patients)
    value, error = float(values.mean()), _standard_error(values, groups)
    if error is None:
        return Estimate(value, None, None)
    reach = _quantile(groups) * error
    return Estimate(value, value - reach, value + reach)


def share(hits: ArrayLike, patients: Sequence[str]) -> Estimate:
    """The share of images that something is true of, with an interval over patients.

    Wilson's score interval with the number of independent images that the variance over patients
    amounts to (Korn and Graubard 1998, Survey Methodology 24:193), and Student's quantile.

    Args:
      hits: (N,) bool.
      patients: N names, '' where not known; such an image stands alone.
    """
    hits = np.asarray(hits, np.float64)
    groups = units(patients)
    value, error = float(hits.mean()), _standard_error(hits, groups)
    if error is None:
        return Estimate(value, None, None)
    # Where all images agree, the patients are what has been seen.
    count = min(value * (1 - value) / error**2, len(hits)) if error else groups.count
    z = _quantile(groups)
    middle = (value + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * np.sqrt(value * (1 - value) / count + (z / count / 2) ** 2)
    # Rounding may leave 0 or 1 outside.
    low, high = float(middle - reach), float(middle + reach)
    return Estimate(value, min(max(0.0, low), value), max(min(1.0, high), value))


def _standard_error(values: NDArray[np.float64], groups: Units) -> float | None:
    if groups.count < 2:
        return None
    sums = np.bincount(groups.index, values - values.mean(), groups.count)
    variance = groups.count / (groups.count - 1) * (sums**2).sum() / len(values) ** 2
    return float(np.sqrt(variance))


def _quantile(groups: Units) -> float:
    return float(t.ppf((1 + LEVEL) / 2, groups.count - 1))


def verdict(difference: Estimate) -> str:
    """What a difference of means says: 'better', 'worse', or 'undecided' where 0 is within."""
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "undecided"


@dataclass(frozen=True)
class Judged:
    """A kind of map on the validation and test images.

    Attributes:
      title: What it is, in words.
      val: At every threshold, on validation.
      test: The same on test.
      threshold: The one chosen on validation; None for what is a region already.
    """

    title: str
    val: Overlap
    test: Overlap
    threshold: Threshold | None

    @property
    def at(self) -> int:
        """The column of `val` and `test` that is applied."""
        return 0 if self.threshold is None else THRESHOLDS.index(self.threshold)

    def column(self, split: str, figure: str) -> NDArray[np.float64]:
        """A figure of each image at the threshold: (N,).

        Args:
          split: 'val' or 'test'.
          figure: 'region', 'dice' or 'iou'.
        """
        return getattr(getattr(self, split), figure)[:, self.at]


def judged(title: str, val: Overlap, test: Overlap) -> Judged:
    """Chooses a threshold on validation, which is then applied to test unchanged.

    Args:
      title: What kind of map it is, in words.
      val: At `THRESHOLDS`, or at none: K = 1.
      test: The same.
    """
    threshold = None if val.dice.shape[1] == 1 else THRESHOLDS[choose(val)]
    return Judged(title, val, test, threshold)
