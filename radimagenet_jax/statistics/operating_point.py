"""Operating points of two classes: chosen on one set of images, measured on another.

A threshold that is chosen on the images it is judged by looks better than it is. So `youden` is
given validation scores, and `at_threshold` those of new images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radimagenet_jax.statistics import intervals
from radimagenet_jax.statistics.calibration import wilson_interval
from radimagenet_jax.statistics.roc import RankedScores

# Share to its numerator and denominator, by the cells of `_cells`.
_SHARES = {
    "sensitivity": (("tp",), ("tp", "fn")),
    "specificity": (("tn",), ("tn", "fp")),
    "positive_predictive_value": (("tp",), ("tp", "fp")),
    "negative_predictive_value": (("tn",), ("tn", "fn")),
    "accuracy": (("tp", "tn"), ("tp", "tn", "fp", "fn")),
}


def youden(scores: ArrayLike, positive: ArrayLike) -> float:
    """Chooses the threshold of the highest sensitivity + specificity (Youden 1950, Cancer 3:32).

    It lies half way to the next lower score, so that rounding moves no image across. Of
    several, the highest is taken, which has the highest specificity.

    Args:
      scores: (N,) finite, higher for the positive class.
      positive: (N,) bool, with both classes.

    Raises:
      ValueError: As `RankedScores`.
    """
    curve = RankedScores(scores, positive).curve()
    index = (curve.true_positive_rate - curve.false_positive_rate)[1:]
    # The first point, of a threshold that nothing reaches, is no operating point.
    best = int(np.argmax(index)) + 1
    here = curve.thresholds[best]
    below = curve.thresholds[best + 1] if best + 1 < len(curve.thresholds) else here
    return float((here + below) / 2)


def at_threshold(
    scores: ArrayLike, positive: ArrayLike, patients: Sequence[str], threshold: float, seed: int = 0
) -> dict[str, Any]:
    """Measures the calls of a threshold that was fixed before.

    Args:
      scores: (N,) of the positive class.
      positive: (N,) bool.
      patients: N names, '' where not known.
      threshold: Scores >= it are called positive.
      seed: Of the bootstrap.

    Returns:
      A dictionary ready for strict JSON: 'threshold', the cells 'tp', 'fn', 'fp' and 'tn', and
      'sensitivity', 'specificity', 'positive_predictive_value', 'negative_predictive_value' and
      'accuracy', None without images, each with its '<name>_ci95' ([low, high] or None): Wilson's
      where every image is a unit of its own, else a percentile bootstrap over patients, or, where
      no resample differs, Wilson's with patients as trials.
    """
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    cells = _cells(scores >= threshold, positive)
    totals = {name: float(members.sum()) for name, members in cells.items()}
    units = intervals.units(patients)
    figures: dict[str, Any] = {"threshold": float(threshold)}
    figures |= {name: int(total) for name, total in totals.items()}
    drawn: dict[str, NDArray[np.float64]] = {}
    if units.count < len(scores) and units.count > 1 and 0 < positive.sum() < len(positive):
        drawn = _drawn(cells, units, positive, seed)
    for name, (top, bottom) in _SHARES.items():
        n = sum(totals[cell] for cell in bottom)
        share = sum(totals[cell] for cell in top) / n if n else None
        figures[name], figures[f"{name}_ci95"] = share, None
        if share is None:
            continue
        low, high = intervals.percentile_interval(drawn[name]) if name in drawn else (0.0, 0.0)
        if low == high:
            # Where resamples do not differ, as where all are right, patients count as trials.
            own = np.any([cells[cell] for cell in bottom], axis=0)
            low, high = map(float, wilson_interval(share, len(np.unique(units.index[own]))))
        figures[f"{name}_ci95"] = [low, high]
    return figures


def _cells(called: NDArray[np.bool_], positive: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    return {
        "tp": called & positive,
        "fn": ~called & positive,
        "fp": called & ~positive,
        "tn": ~called & ~positive,
    }


def _drawn(
    cells: dict[str, NDArray[np.bool_]],
    units: intervals.Units,
    positive: NDArray[np.bool_],
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Each share on every resample of patients."""
    members = np.stack([*cells.values()], axis=1).astype(np.float32)
    counts = intervals.bootstrap(
        lambda weights: (weights @ members).astype(np.float64),
        units,
        positive.astype(int),
        seed=seed,
    )
    by_name = dict(zip(cells, counts.T, strict=True))
    shares = {}
    for name, (top, bottom) in _SHARES.items():
        n = np.sum([by_name[cell] for cell in bottom], axis=0)
        won = np.sum([by_name[cell] for cell in top], axis=0)
        # A resample without a single such call has no share.
        shares[name] = won[n > 0] / n[n > 0]
    return {name: drawn for name, drawn in shares.items() if len(drawn)}
