"""Figures of a classifier of many classes in each group of its classes.

RadImageNet's classes are named `<modality>-<anatomy>-<class>`: a group is a modality, or a modality
with an anatomy. An image belongs to the group of its label; it may be called any class.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radimagenet_jax.statistics import metrics
from radimagenet_jax.statistics.roc import auroc

_LEVELS = {"by_modality": 1, "by_anatomy": 2}  # how many parts of the name make the group


def grouped(
    scores: NDArray[np.floating], labels: NDArray[np.integer], class_names: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Computes the figures of each modality and anatomy.

    Args:
      scores: (N, C) probabilities.
      labels: (N,) integers in [0, C).
      class_names: C names.

    Returns:
      {'by_modality': {'CT': figures, ...}, 'by_anatomy': {'CT-abd': figures, ...}}, groups with
      images only, in alphabetical order; nothing unless every name has the three parts and there
      are more than two classes. Figures are 'n', 'classes' (with images), 'accuracy',
      'top5_accuracy', 'balanced_accuracy', 'macro_f1', and 'auroc', the mean of each class against
      the group's other images, None where there is only one class.
    """
    if len(class_names) < 3 or any(name.count("-") < 2 for name in class_names):
        return {}
    return {
        title: _level(scores, labels, ["-".join(name.split("-")[:parts]) for name in class_names])
        for title, parts in _LEVELS.items()
    }


def _level(
    scores: NDArray[np.floating], labels: NDArray[np.integer], group_of_class: Sequence[str]
) -> dict[str, dict[str, Any]]:
    group = np.asarray(group_of_class)[labels]
    return {
        str(name): _figures(scores[group == name], labels[group == name])
        for name in np.unique(group)
    }


def _figures(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> dict[str, Any]:
    counts = metrics.confusion_matrix(scores, labels)
    present = np.unique(labels)
    areas = []
    if len(present) > 1:
        areas = [auroc(scores[:, label], labels == label) for label in present]
    return {
        "n": len(labels),
        "classes": len(present),
        "accuracy": float(counts.trace() / len(labels)),
        **metrics.many_classes(scores, labels, counts),
        "auroc": float(np.mean(areas)) if areas else None,
    }
