"""The figures of an evaluation, all recomputable from the scores alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radimagenet_jax.errors import DataError
from radimagenet_jax.statistics import delong, intervals
from radimagenet_jax.statistics.roc import RankedScores

# keras.config.epsilon(): Keras clips probabilities to [1e-7, 1 - 1e-7] before the logarithm.
KERAS_EPSILON = 1e-7

_TOP = 5
# Weighted scores that all resamples of an interval may sum over: some minutes of work.
_MOST_COMPARISONS = 2e10


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    positive: int = 1,
    seed: int = 0,
    *,
    resamples: int = intervals.RESAMPLES,
) -> dict[str, Any]:
    """Computes the figures of a split.

    An image is called the class with the highest score; with two classes that is the threshold
    0.5. With more than two classes the AUROC is the unweighted (macro) mean of each class
    against the rest, over the classes that have examples; in a resample, over those it holds.

    Args:
      scores: (N, C) probabilities, rows sum to 1, C >= 2.
      labels: (N,) integers in [0, C).
      patients: N names, '' where not known. The interval is over patients where any is known
        (an image without one counts as a patient of its own), else over images. With two classes
        and one image a unit it is that of `delong.interval`, else a percentile bootstrap.
      positive: Index of the positive class; not used when C > 2.
      seed: Seed of the bootstrap.
      resamples: Number of bootstrap resamples; 0 leaves the interval out, for speed.

    Returns:
      A dictionary ready for strict JSON: 'auroc' (None when one class only has examples),
      'auroc_ci95' ([low, high] or None), 'ci_method' (its name, or None), 'accuracy',
      'balanced_accuracy' (mean recall of the classes with examples), 'loss' (mean cross-entropy
      in nats), 'n', 'n_patients' (known ones), 'ci_unit' ('patient' or 'image'), 'confusion'
      (C x C counts, rows the label, columns the call), with two classes also 'sensitivity' and
      'specificity' (None without examples), with more those of `many_classes`, and 'notes',
      sentences on what could not be computed or must be read with care.

    Raises:
      DataError: If there are no scores, or a score is not finite.
      ValueError: If shapes or ranges are not as above.
    """
    scores, labels = _checked(scores, labels, patients, positive)
    n, classes = scores.shape
    counts = confusion_matrix(scores, labels)
    present = counts.sum(axis=1) > 0
    recall = counts.diagonal()[present] / counts.sum(axis=1)[present]
    units = intervals.units(patients)
    notes: list[str] = []
    figures: dict[str, Any] = {
        "auroc": None,
        "auroc_ci95": None,
        "ci_method": None,
        "accuracy": float(counts.trace() / n),
        "balanced_accuracy": float(recall.mean()),
        "loss": cross_entropy(scores, labels),
        "n": n,
        "n_patients": units.patients,
        "ci_unit": units.kind,
        "confusion": counts.tolist(),
        "notes": notes,
    }
    if classes == 2:
        by_class = [
            float(row[i] / row.sum()) if row.sum() else None for i, row in enumerate(counts)
        ]
        figures |= {"sensitivity": by_class[positive], "specificity": by_class[1 - positive]}
    else:
        figures |= many_classes(scores, labels, counts)
    if present.sum() < 2:
        notes.append(
            f"All examples (n = {n}) are of the class with index {int(labels[0])}, "
            "so there is no AUROC."
        )
        return figures
    if classes > 2 and not present.all():
        absent = int(classes - present.sum())
        notes.append(
            f"{absent} of {classes} classes have no example; the AUROC is the mean of the others."
        )
    ranked = rank_classes(scores, labels, positive)
    figures["auroc"] = float(_macro(ranked, np.ones((1, n), np.float32))[0])
    if not resamples:
        return figures
    if classes == 2 and units.count == n:
        figures["auroc_ci95"], figures["ci_method"] = _analytic(
            scores[:, positive], labels == positive, units, figures["auroc"]
        )
    elif resamples * n * len(ranked) > _MOST_COMPARISONS:
        notes.append(
            f"The AUROC has no interval: {resamples:,} resamples of {n:,} images in {len(ranked)} "
            "classes would take too long."
        )
    else:
        figures["auroc_ci95"] = _interval(ranked, units, labels, seed, resamples, notes)
        if figures["auroc_ci95"] is not None:
            figures["ci_method"] = f"percentile bootstrap over {units.kind}s"
    if figures["auroc_ci95"] is not None and units.patients and units.unknown:
        notes.append(
            f"The patient of {units.unknown} images is not known: each counts as a patient of "
            "its own in the interval."
        )
    return figures


def rank_classes(scores: ArrayLike, labels: ArrayLike, positive: int = 1) -> list[RankedScores]:
    """Ranks the scores of the positive class, or of each class that has examples when C > 2.

    Args:
      scores: (N, C) finite.
      labels: (N,) integers in [0, C), of at least two classes.
      positive: Index of the positive class; not used when C > 2.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    chosen = [positive] if scores.shape[1] == 2 else np.unique(labels).tolist()
    return [RankedScores(scores[:, c], labels == c) for c in chosen]


def many_classes(
    scores: NDArray[np.floating], labels: NDArray[np.integer], counts: NDArray[np.int64]
) -> dict[str, float]:
    """Computes what a single accuracy hides where classes are many and of uneven size.

    Args:
      scores: (N, C), C > 2.
      labels: (N,) integers in [0, C).
      counts: (C, C), of `confusion_matrix`.

    Returns:
      'top5_accuracy' (the label is among the five highest scores; of equal scores the first classes
      count), 'balanced_accuracy' (mean recall) and 'macro_f1' (mean F1, 2 TP / (2 TP + FP + FN)),
      both over the classes with examples.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < labels[:, None]))
    by_label, by_call, right = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    present = by_label > 0
    return {
        "top5_accuracy": float(np.mean(before.sum(axis=1) < _TOP)),
        "balanced_accuracy": float(np.mean(right[present] / by_label[present])),
        "macro_f1": float(np.mean(2 * right[present] / (by_label + by_call)[present])),
    }


def confusion_matrix(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Counts (C, C) of images by label (row) and by the class of the highest score (column).

    Args:
      scores: (N, C). Of equal scores the first class is taken, as argmax does.
      labels: (N,) integers in [0, C).
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    classes = scores.shape[1]
    cells = labels.astype(np.int64) * classes + scores.argmax(axis=1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def cross_entropy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean cross-entropy in nats, with Keras' clipping of the probabilities.

    Args:
      scores: (N, C) probabilities.
      labels: (N,) integers in [0, C).
    """
    scores = np.asarray(scores, np.float64)
    chosen = scores[np.arange(len(scores)), np.asarray(labels)]
    return float(-np.log(np.clip(chosen, KERAS_EPSILON, 1 - KERAS_EPSILON)).mean())


def _macro(ranked: Sequence[RankedScores], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean AUROC (R,) of the classes that each weighting (R, N) holds."""
    areas = np.stack([scores.auroc(weights) for scores in ranked])
    held = ~np.isnan(areas)
    return np.where(held, areas, 0).sum(axis=0) / held.sum(axis=0)


def _interval(
    ranked: Sequence[RankedScores],
    units: intervals.Units,
    labels: NDArray[np.int64],
    seed: int,
    resamples: int,
    notes: list[str],
) -> list[float] | None:
    """The interval of the AUROC, and what must be known to read it, added to the notes."""
    if units.count < 2:
        notes.append("All images are of one patient, so the AUROC has no interval.")
        return None
    areas = intervals.bootstrap(
        lambda weights: _macro(ranked, weights), units, labels, count=resamples, seed=seed
    )
    low, high = intervals.percentile_interval(areas)
    if low == high:
        notes.append(
            "The interval has no width because no resample changes the order of the scores: it "
            "understates the uncertainty of so few errors or examples."
        )
    return [low, high]


def _analytic(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], units: intervals.Units, area: float
) -> tuple[list[float], str]:
    """The interval of independent images, which needs no resampling, and its method's name."""
    holders = delong.holders(positive, units)
    if min(holders) < delong.FEWEST:
        return list(delong.score_interval(area, holders)), delong.SCORE
    found = delong.areas(scores[None], positive)
    low, high, method = delong.interval(area, float(found.covariance[0, 0]), found.holders)
    return [low, high], method


def _checked(
    scores: ArrayLike, labels: ArrayLike, patients: Sequence[str], positive: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"scores {scores.shape} must be (N, C) with at least two classes.")
    n, classes = scores.shape
    if labels.shape != (n,) or len(patients) != n:
        raise ValueError(f"{n} scores, but {labels.shape} labels and {len(patients)} patients.")
    if n == 0:
        raise DataError("there is nothing to evaluate: the split has no examples.")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be integers in [0, {classes}).")
    if classes == 2 and positive not in (0, 1):
        raise ValueError(f"positive must be 0 or 1, not {positive}.")
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(broken):
        raise DataError(
            f"the scores of {len(broken)} of {n} examples are not finite numbers (the first is "
            f"example {broken[0]}, counted from 0): training has diverged; lower the learning rate."
        )
    # A float32 softmax over some hundred classes misses 1 by less than 1e-5.
    if scores.min() < 0 or not np.allclose(scores.sum(axis=1), 1, rtol=0, atol=1e-3):
        raise ValueError("scores must be probabilities whose rows sum to 1.")
    return scores, labels.astype(np.int64)
