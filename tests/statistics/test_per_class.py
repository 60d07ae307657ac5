"""Laws of the figures of each class, with scikit-learn as the reference."""

import numpy as np
import pytest
from sklearn import metrics as sk

from radimagenet_jax.statistics import per_class
from radimagenet_jax.statistics.scores import Predictions


def made(classes=4, n=200, labels=None):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n) if labels is None else np.asarray(labels)
    scores = rng.dirichlet(np.ones(classes), len(labels))
    names = [f"class {i}" for i in range(classes)]
    return Predictions(
        names, [str(i) for i in range(len(labels))], [""] * len(labels), labels, scores
    )


def test_rows_equal_scikit_learn():
    p = made()
    calls = p.scores.argmax(axis=1)
    rows = per_class.rows(p)
    np.testing.assert_allclose(
        [r.recall for r in rows], sk.recall_score(p.labels, calls, average=None)
    )
    np.testing.assert_allclose(
        [r.precision for r in rows], sk.precision_score(p.labels, calls, average=None)
    )
    for index, row in enumerate(rows):
        expected = sk.roc_auc_score(p.labels == index, p.scores[:, index])
        assert row.auroc == pytest.approx(expected, abs=1e-14)
        assert row.n == (p.labels == index).sum()
        assert row.called == (calls == index).sum()


def test_a_class_without_images_has_no_figures():
    row = per_class.rows(made(labels=[0, 1, 1, 0, 2]))[3]
    assert (row.n, row.auroc, row.recall) == (0, None, None)


def test_one_class_alone_has_recall_but_no_auroc():
    row = per_class.rows(made(labels=[2, 2, 2]))[2]
    assert row.auroc is None
    assert row.recall is not None


def test_confusion_cells_are_shares_of_their_row():
    cells = per_class.confusion_cells([[3, 1], [0, 0]])
    assert cells == [[(3, 0.75), (1, 0.25)], [(0, None), (0, None)]]


def test_a_large_matrix_is_told_by_its_most_frequent_mistakes():
    counts = np.eye(13, dtype=int) * 5
    counts[3, 7], counts[8, 2] = 4, 6
    assert per_class.confusion_cells(counts) is None
    names = [f"c{i}" for i in range(13)]
    assert per_class.frequent_confusions(counts, names) == [
        ("c8", "c2", 6, 6 / 11),
        ("c3", "c7", 4, 4 / 9),
    ]
    assert per_class.frequent_confusions(counts[:4, :4], names[:4]) is None
