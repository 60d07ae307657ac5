"""The figures of an evaluation, all recomputable from the scores alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radimagenet_jax.errors import DataError
from radimagenet_jax.statistics import delong, intervals
from radimagenet_jax.statistics.roc import RankedScores

# keras.config.epsilon(): Keras clips probabilities to [1e-7, 1 - 1e-7] before the logarithm.
KERAS_EPSILON = 1e-7

_TOP = 5


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    positive: int = 1,
    *,
    with_interval: bool = True,
) -> dict[str, Any]:
    """Computes the figures of a split.

    An image is called the class with the highest score; with two classes that is the threshold
    0.5. With more than two classes the AUROC is the unweighted (macro) mean of each class
    against the rest, over the classes that have examples.

    Args:
      scores: (N, C) probabilities, rows sum to 1, C >= 2.
      labels: (N,) integers in [0, C).
      patients: N names, '' where not known. The interval is over patients where any is known
        (an image without one counts as a patient of its own), else over images. With two classes
        it is that of `delong.interval`, with more that of `delong.macro_interval`.
      positive: Index of the positive class; not used when C > 2.
      with_interval: False leaves the interval out, for speed.

    Returns:
      A dictionary ready for strict JSON: 'auroc' (None when one class only has examples),
      'auroc_ci95' ([low, high] or None), 'auroc_ci95_reason' (why it is None, else None),
      'ci_method' (its name, or None), 'accuracy',
      'balanced_accuracy' (mean recall of the classes with examples), 'loss' (mean cross-entropy
      in nats), 'n', 'n_patients' (known ones), 'n_unknown' (images whose patient is not known),
      'ci_unit' ('patient' or 'image'), 'confusion' (C x C counts, rows the label, columns the
      call), with two classes also 'sensitivity' and 'specificity' (None without examples), with
      more those of `many_classes`; 'notes', sentences on what could not be computed or must be
      read with care, and 'warnings', what belongs beside the AUROC wherever it stands.

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
        "auroc_ci95_reason": None,
        "ci_method": None,
        "accuracy": float(counts.trace() / n),
        "balanced_accuracy": float(recall.mean()),
        "loss": cross_entropy(scores, labels),
        "n": n,
        "n_patients": units.patients,
        "n_unknown": units.unknown,
        "ci_unit": units.kind,
        "confusion": counts.tolist(),
        "notes": notes,
        "warnings": [],
    }
    if classes == 2:
        by_class = [
            float(row[i] / row.sum()) if row.sum() else None for i, row in enumerate(counts)
        ]
        figures |= {"sensitivity": by_class[positive], "specificity": by_class[1 - positive]}
    else:
        figures |= many_classes(scores, labels, counts)
    if present.sum() < 2:
        reason = (
            f"All examples (n = {n}) are of the class with index {int(labels[0])}, "
            "so there is no AUROC."
        )
        notes.append(reason)
        return figures | {"auroc_ci95_reason": reason}
    if classes > 2 and not present.all():
        absent = int(classes - present.sum())
        notes.append(
            f"{absent} of {classes} classes have no example; the AUROC is the mean of the others."
        )
    ranked = rank_classes(scores, labels, positive)
    figures["auroc"] = float(np.mean([one.auroc()[0] for one in ranked]))
    if with_interval:
        figures |= _interval(scores, labels, units, positive)
        if figures["auroc_ci95_reason"]:
            notes.append(figures["auroc_ci95_reason"])
    if units.patients and units.unknown:
        notes.append(
            f"The patient of {units.unknown} images is not known: each counts as a patient of "
            "its own in intervals."
        )
    figures["warnings"] = _warnings(figures)
    return figures


def _interval(
    scores: NDArray[np.float64], labels: NDArray[np.int64], units: intervals.Units, positive: int
) -> dict[str, Any]:
    """The AUROC's interval with the name of its method, or the reason why there is none."""
    classes = np.unique(labels).tolist()
    held = [intervals.held(labels == label, units) for label in classes]
    few = [count for count in held if count < intervals.FEWEST]
    if few and scores.shape[1] > 2:
        return _none(f"{len(few)} of {len(classes)} classes have fewer", units)
    if few:
        counts = dict(zip(classes, held, strict=True))
        return _none(
            f"the positive class has {counts[positive]}, the negative class {counts[1 - positive]}",
            units,
        )
    if scores.shape[1] > 2:
        limits, method = delong.macro_interval(scores, labels, units), delong.MACRO
    else:
        found = delong.areas(scores[None, :, positive], labels == positive, units)
        limits, method = delong.interval(found), delong.METHOD
    if limits is None:
        reason = "The AUROC has no interval: no score is on the wrong side in any class."
        return {"auroc_ci95_reason": reason}
    named = method + (delong.CLUSTERED if units.patients else "")
    return {"auroc_ci95": list(limits), "ci_method": named}


def _none(held: str, units: intervals.Units) -> dict[str, Any]:
    kind = "patients" if units.patients else "images"
    return {
        "auroc_ci95_reason": f"The AUROC has no interval: it needs {intervals.FEWEST} {kind} of "
        f"every class, and {held}."
    }


def _warnings(figures: Mapping[str, Any]) -> list[str]:
    """What a headline must say, so that nobody is misled by it."""
    found = []
    sensitivity, specificity = figures.get("sensitivity"), figures.get("specificity")
    if {sensitivity, specificity} == {0, 1}:
        called, shares = ("positive", (100, 0)) if sensitivity else ("negative", (0, 100))
        found.append(
            f"The network calls every image {called} (sensitivity {shares[0]} %, specificity "
            f"{shares[1]} %): at the threshold 0.5 it tells nothing apart."
        )
    area, limits = figures["auroc"], figures["auroc_ci95"]
    if limits is not None and limits[0] <= 0.5 <= limits[1]:
        found.append(
            f"At chance: the interval of the AUROC, {limits[0]:.3f} to {limits[1]:.3f}, includes "
            "0.5, what a toss of a coin has."
        )
    elif area <= 0.5:
        found.append("At chance or worse: the AUROC is not above 0.5, what a toss of a coin has.")
    return found


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
