"""Laws of the figures for many classes, as a whole and by modality and anatomy."""

import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from radimagenet_jax.statistics import groups, metrics

NAMES = ["CT-abd-a", "CT-abd-b", "CT-lung-a", "MR-knee-a", "MR-knee-b", "MR-knee-c", "US-usabd-x"]
RNG = np.random.default_rng(4)
LABELS = RNG.choice(7, 300, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
LOGITS = RNG.normal(size=(300, 7)) + 1.2 * np.eye(7)[LABELS]
SCORES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def test_the_figures_of_many_classes_are_those_of_scikit_learn():
    found = metrics.evaluate(SCORES, LABELS, [""] * 300, with_interval=False)
    calls = SCORES.argmax(axis=1)
    assert found["top5_accuracy"] == pytest.approx(
        top_k_accuracy_score(LABELS, SCORES, k=5, labels=range(7))
    )
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(LABELS, calls))
    assert found["macro_f1"] == pytest.approx(f1_score(LABELS, calls, average="macro"))
    assert found["auroc"] == pytest.approx(roc_auc_score(LABELS, SCORES, multi_class="ovr"))


def test_classes_without_images_do_not_count():
    some = LABELS < 5
    found = metrics.evaluate(
        SCORES[some], LABELS[some], [""] * int(some.sum()), with_interval=False
    )
    expected = f1_score(LABELS[some], SCORES[some].argmax(axis=1), average="macro", labels=range(5))
    assert found["macro_f1"] == pytest.approx(expected)


def test_of_equal_scores_the_first_classes_are_the_highest_five():
    scores = np.full((7, 7), 1 / 7)
    counts = metrics.confusion_matrix(scores, np.arange(7))
    found = metrics.many_classes(scores, np.arange(7), counts)
    assert found["top5_accuracy"] == pytest.approx(5 / 7)


def test_two_classes_have_no_figures_of_many():
    found = metrics.evaluate(SCORES[:, :2] / SCORES[:, :2].sum(1)[:, None], LABELS % 2, [""] * 300)
    assert "top5_accuracy" not in found
    assert "macro_f1" not in found


def test_each_group_holds_the_images_of_its_labels():
    found = groups.grouped(SCORES, LABELS, NAMES)
    assert list(found["by_modality"]) == ["CT", "MR", "US"]
    assert list(found["by_anatomy"]) == ["CT-abd", "CT-lung", "MR-knee", "US-usabd"]
    for level in found.values():
        assert sum(group["n"] for group in level.values()) == 300
    inside = (LABELS >= 3) & (LABELS <= 5)
    knee = found["by_anatomy"]["MR-knee"]
    assert found["by_modality"]["MR"] == knee
    assert knee["n"] == inside.sum()
    assert knee["classes"] == 3
    assert knee["accuracy"] == pytest.approx(
        np.mean(SCORES[inside].argmax(axis=1) == LABELS[inside])
    )
    areas = [roc_auc_score(LABELS[inside] == c, SCORES[inside][:, c]) for c in (3, 4, 5)]
    assert knee["auroc"] == pytest.approx(np.mean(areas))
    assert found["by_modality"]["US"]["auroc"] is None


def test_classes_of_another_naming_have_no_groups():
    assert groups.grouped(SCORES, LABELS, [f"class {i}" for i in range(7)]) == {}
