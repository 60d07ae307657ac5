"""Laws of the figures of an evaluation, with scikit-learn and Keras as the references."""

import json
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import pytest
from sklearn import metrics as sk

from radimagenet_jax.errors import DataError
from radimagenet_jax.statistics import delong, metrics

UNKNOWN = [""] * 300


def softmax(logits):
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


def examples(n=300, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1
    return softmax(logits), labels


def two(p):
    p = np.asarray(p, float)
    return np.stack([1 - p, p], axis=1)


@pytest.mark.parametrize("positive", [0, 1])
def test_two_class_figures_equal_scikit_learn(positive):
    scores, labels = examples()
    figures = metrics.evaluate(scores, labels, UNKNOWN, positive)
    calls = scores.argmax(axis=1)
    assert figures["auroc"] == pytest.approx(
        sk.roc_auc_score(labels == positive, scores[:, positive]), abs=1e-14
    )
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(labels, calls))
    assert figures["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, calls))
    assert figures["loss"] == pytest.approx(sk.log_loss(labels, scores))
    assert figures["sensitivity"] == sk.recall_score(labels, calls, pos_label=positive)
    assert figures["specificity"] == sk.recall_score(labels, calls, pos_label=1 - positive)
    assert figures["confusion"] == sk.confusion_matrix(labels, calls).tolist()
    assert figures["n"] == 300
    assert figures["notes"] == []


def test_many_class_auroc_is_the_macro_mean_of_one_against_the_rest():
    scores, labels = examples(classes=7)
    figures = metrics.evaluate(scores, labels, UNKNOWN)
    expected = sk.roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    assert figures["auroc"] == pytest.approx(expected, abs=1e-14)
    low, high = figures["auroc_ci95"]
    assert low < figures["auroc"] < high
    assert "sensitivity" not in figures


def test_classes_without_examples_are_left_out_and_named():
    scores, labels = examples(classes=4)
    scores, labels = scores[labels != 2], labels[labels != 2]
    figures = metrics.evaluate(scores, labels, UNKNOWN[: len(labels)])
    areas = [sk.roc_auc_score(labels == c, scores[:, c]) for c in (0, 1, 3)]
    assert figures["auroc"] == pytest.approx(np.mean(areas), abs=1e-14)
    assert "1 of 4 classes" in figures["notes"][0]


def test_loss_equals_keras_at_the_clipped_ends():
    import keras

    scores = two([0, 1, 1e-9, 0.3, 1 - 1e-6]).astype(np.float64)
    labels = np.array([1, 1, 1, 0, 0])
    one_hot = np.eye(2)[labels]
    expected = keras.losses.CategoricalCrossentropy(dtype="float32")(one_hot, scores)
    # The clipping limit 1 - 1e-7 itself is only exact to 2**-24 in Keras' float32.
    assert metrics.cross_entropy(scores, labels) == pytest.approx(float(expected), rel=1e-5)


def test_interval_is_over_patients_where_they_are_known():
    scores, labels = examples()
    names = [str(i // 6) for i in range(300)]
    scores[:, 1] = np.repeat(scores[::6, 1], 6)  # six equal slices a patient
    scores[:, 0] = 1 - scores[:, 1]
    labels = np.repeat(labels[::6], 6)
    by_image = metrics.evaluate(scores, labels, UNKNOWN)
    by_patient = metrics.evaluate(scores, labels, names)
    assert (by_image["ci_unit"], by_image["n_patients"]) == ("image", 0)
    assert (by_patient["ci_unit"], by_patient["n_patients"]) == ("patient", 50)
    width = [np.diff(figures["auroc_ci95"])[0] for figures in (by_image, by_patient)]
    # Six equal slices carry the evidence of one: the interval is sqrt(6) times as wide.
    assert width[1] / width[0] == pytest.approx(np.sqrt(6), rel=0.15)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auroc_and_says_why(label):
    figures = metrics.evaluate(two([0.2, 0.7, 0.9]), np.full(3, label), ["a", "b", "c"])
    assert figures["auroc"] is None
    assert figures["auroc_ci95"] is None
    assert figures["accuracy"] == pytest.approx([1 / 3, 2 / 3][label])
    assert figures[["sensitivity", "specificity"][label]] is None
    assert f"class with index {label}" in figures["notes"][0]


def test_images_without_patient_are_counted_in_a_note():
    scores, _ = examples(n=6)
    figures = metrics.evaluate(scores, [0, 1, 0, 1, 0, 1], ["a", "b", "c", "a", "", ""])
    assert figures["n_patients"] == 3
    assert any("2 images is not known" in note for note in figures["notes"])


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_scores_that_are_not_finite_name_the_first_example(broken):
    scores, labels = examples()
    scores[[41, 99], 1] = broken
    with pytest.raises(DataError, match=r"2 of 300 .*example 41.*learning rate"):
        metrics.evaluate(scores, labels, UNKNOWN)


def test_an_empty_split_is_refused():
    with pytest.raises(DataError, match="no examples"):
        metrics.evaluate(np.zeros((0, 2)), np.zeros(0, int), [])


@pytest.mark.parametrize(
    ("scores", "labels", "patients", "positive"),
    [
        (np.full((2, 1), 1.0), [0, 0], ["", ""], 1),
        (two([0.5, 0.5]), [0, 2], ["", ""], 1),
        (two([0.5, 0.5]), [0.0, 1.0], ["", ""], 1),
        (two([0.5, 0.5]), [0, 1], [""], 1),
        (two([0.5, 0.5]), [0, 1], ["", ""], 2),
        (np.array([[2.0, -1.0]]), [0], [""], 1),
        (np.array([[0.5, 0.1]]), [0], [""], 1),
    ],
)
def test_arguments_that_make_no_sense_are_refused(scores, labels, patients, positive):
    with pytest.raises(ValueError, match=r"scores|labels|positive"):
        metrics.evaluate(scores, labels, patients, positive)


def test_figures_are_strict_json():
    scores, labels = examples(n=5, seed=3)
    json.dumps(metrics.evaluate(scores, labels, ["a"] * 5), allow_nan=False)
    json.dumps(metrics.evaluate(scores, labels * 0, ["a"] * 5), allow_nan=False)


def test_float32_scores_of_a_network_are_taken_as_they_are():
    scores, labels = examples(classes=165, n=300)
    figures = metrics.evaluate(scores.astype(np.float32), labels, UNKNOWN, with_interval=False)
    assert figures["auroc_ci95"] is None
    assert 0.5 < figures["auroc"] < 1


def test_the_interval_names_its_method():
    scores, labels = examples()
    names = [str(i // 2) for i in range(300)]
    for patients in (UNKNOWN, names):
        figures = metrics.evaluate(scores, labels, patients)
        found = delong.areas(scores[None, :, 1], labels == 1, patients)
        assert figures["auroc_ci95"] == list(delong.interval(found))
        named = delong.METHOD + (delong.CLUSTERED if patients is names else "")
        assert figures["ci_method"] == named
        assert figures["auroc_ci95_reason"] is None
    many, labels = examples(classes=3)
    assert metrics.evaluate(many, labels, names)["ci_method"] == delong.MACRO + delong.CLUSTERED
    left_out = metrics.evaluate(scores, labels % 2, UNKNOWN, with_interval=False)
    assert left_out["ci_method"] is None


@pytest.mark.parametrize("positives", [1, 4])
def test_fewer_than_five_patients_of_a_class_have_no_interval_and_it_says_why(positives):
    labels = np.repeat(np.arange(30) < positives, 4).astype(int)
    scores = two(np.clip(labels * 0.4 + np.linspace(0, 0.5, 120), 0, 1))
    figures = metrics.evaluate(scores, labels, [str(i // 4) for i in range(120)])
    assert figures["auroc_ci95"] is None
    assert f"the positive class has {positives}, the negative class" in figures["auroc_ci95_reason"]
    assert "5 patients" in figures["auroc_ci95_reason"]
    assert figures["auroc_ci95_reason"] in figures["notes"]


def test_an_auroc_of_one_has_an_interval_below_it():
    labels = np.arange(12) // 6
    figures = metrics.evaluate(two(0.3 + 0.4 * labels), labels, [""] * 12)
    low, high = figures["auroc_ci95"]
    assert 0.4 < low < 0.8
    assert high == figures["auroc"] == 1


@pytest.mark.parametrize(("score", "called"), [(0.6, "positive"), (0.4, "negative")])
def test_a_network_that_calls_all_the_same_is_told_so(score, called):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    figures = metrics.evaluate(two(score + 0.05 * rng.random(40)), labels, [""] * 40)
    assert f"calls every image {called}" in figures["warnings"][0]
    assert "At chance" in figures["warnings"][1]


def test_a_network_that_tells_classes_apart_has_no_warning():
    assert metrics.evaluate(*examples(), UNKNOWN)["warnings"] == []


def test_known_and_unknown_patients_are_both_counted():
    scores, _ = examples(n=24)
    names = [str(i) for i in range(9)] + [""] * 15
    figures = metrics.evaluate(scores, np.arange(24) % 2, names)
    assert (figures["n_patients"], figures["n_unknown"]) == (9, 15)
