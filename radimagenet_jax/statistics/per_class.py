"""Class by class: who is mistaken for whom, and which classes are hard."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from radimagenet_jax.statistics import metrics
from radimagenet_jax.statistics.roc import auroc
from radimagenet_jax.statistics.scores import Predictions

_MOST_CELLS_A_SIDE = 12  # a confusion matrix of more classes is a picture, not a table
_MOST_CONFUSIONS = 12


@dataclass(frozen=True)
class ClassRow:
    """Figures of one class against the rest.

    Attributes:
      name: Name of the class.
      n: Images with this label.
      called: Images that got the highest score for it.
      auroc: Of its score, None without images of it or of the rest.
      recall: Share of its images called right, None without images.
      precision: Share of its calls that were right, None without calls.
    """

    name: str
    n: int
    called: int
    auroc: float | None
    recall: float | None
    precision: float | None


def rows(predictions: Predictions) -> list[ClassRow]:
    """Figures of each class against the rest, in the classes' order.

    Args:
      predictions: At least one example.
    """
    counts = metrics.confusion_matrix(predictions.scores, predictions.labels)
    by_label, by_call = counts.sum(axis=1), counts.sum(axis=0)
    table = []
    for index, name in enumerate(predictions.class_names):
        n, called, right = int(by_label[index]), int(by_call[index]), int(counts[index, index])
        has_roc = 0 < n < len(predictions.keys)
        area = auroc(predictions.scores[:, index], predictions.labels == index) if has_roc else None
        table.append(
            ClassRow(
                name, n, called, area, right / n if n else None, right / called if called else None
            )
        )
    return table


def confusion_cells(counts: ArrayLike) -> list[list[tuple[int, float | None]]] | None:
    """Cells (count, share of the label's images) of a confusion matrix, None if it is too large.

    Args:
      counts: (C, C), rows the label, columns the call. A label without images has shares None.
    """
    counts = np.asarray(counts)
    if len(counts) > _MOST_CELLS_A_SIDE:
        return None
    totals = counts.sum(axis=1)
    return [
        [(int(cell), float(cell / total) if total else None) for cell in row]
        for row, total in zip(counts, totals, strict=True)
    ]


def frequent_confusions(
    counts: ArrayLike, names: Sequence[str]
) -> list[tuple[str, str, int, float]] | None:
    """The most frequent mistakes (label, call, count, share of the label), None if C is small.

    Args:
      counts: (C, C), rows the label, columns the call.
      names: C names.
    """
    counts = np.asarray(counts)
    if len(counts) <= _MOST_CELLS_A_SIDE:
        return None
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        (names[i], names[j], int(wrong[i, j]), float(wrong[i, j] / counts[i].sum()))
        for i, j in pairs
        if wrong[i, j]
    ]
