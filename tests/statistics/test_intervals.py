"""Laws of the bootstrap over patients."""

import time

import numpy as np
import pytest

from radimagenet_jax.statistics import intervals, metrics
from radimagenet_jax.statistics.roc import RankedScores


def test_units_are_patients_and_images_without_one_stand_alone():
    units = intervals.units(["b", "", "a", "b", ""])
    assert units.index.tolist() == [0, 1, 2, 0, 3]
    assert (units.count, units.kind, units.patients, units.unknown) == (4, "patient", 2, 2)


def test_units_are_images_when_no_patient_is_known():
    units = intervals.units(["", "", ""])
    assert units.index.tolist() == [0, 1, 2]
    assert (units.count, units.kind, units.patients) == (3, "image", 0)


def test_all_images_of_a_patient_are_drawn_together():
    patients = np.random.default_rng(0).choice(list("abcdefgh"), 60)
    units = intervals.units(patients)
    for weights in intervals.resamples(units, np.arange(60) % 2, count=50):
        for patient in set(patients):
            columns = weights[:, patients == patient]
            assert (columns == columns[:, :1]).all()
        drawn = weights[:, np.unique(units.index, return_index=True)[1]]
        assert (drawn.sum(axis=1) == units.count).all()


def test_each_unit_is_drawn_once_on_average():
    units = intervals.units([""] * 30)
    weights = np.concatenate(list(intervals.resamples(units, np.arange(30) % 2, count=4000)))
    # A count is binomial(30, 1/30): its mean over 4,000 has a standard error of 0.016.
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.08)
    assert weights.var() == pytest.approx(29 / 30, abs=0.05)


def test_equal_seeds_give_equal_resamples_and_others_do_not():
    units, labels = intervals.units([""] * 20), np.arange(20) % 2

    def draw(seed):
        return np.concatenate(list(intervals.resamples(units, labels, count=10, seed=seed)))

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


@pytest.mark.parametrize("positives", [1, 19])
def test_resamples_of_one_class_are_drawn_again(positives):
    labels = (np.arange(20) < positives).astype(int)
    weights = np.concatenate(
        list(intervals.resamples(intervals.units([""] * 20), labels, count=500))
    )
    assert len(weights) == 500
    assert ((weights @ labels > 0) & (weights @ (1 - labels) > 0)).all()


def test_one_unit_or_one_class_is_refused():
    with pytest.raises(ValueError, match="two units"):
        next(intervals.resamples(intervals.units(["a"] * 4), np.arange(4) % 2))
    with pytest.raises(ValueError, match="two classes"):
        next(intervals.resamples(intervals.units([""] * 4), np.zeros(4, int)))


def test_bootstrap_is_that_of_a_plain_loop():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    scores = rng.normal(size=40) + labels
    units = intervals.units([str(i) for i in rng.integers(0, 12, 40)])
    fast = intervals.bootstrap(RankedScores(scores, labels == 1).auroc, units, labels, count=30)
    slow = [
        np.mean(
            [
                0.5 * (s > t) + 0.5 * (s >= t)
                for s, w in zip(scores[labels == 1], weights[labels == 1], strict=True)
                for t, v in zip(scores[labels == 0], weights[labels == 0], strict=True)
                for _ in range(int(w * v))
            ]
        )
        for chunk in intervals.resamples(units, labels, count=30)
        for weights in chunk
    ]
    np.testing.assert_allclose(fast, slow)


def test_two_thousand_resamples_of_five_thousand_images_take_about_a_second():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 5000)
    ranked = RankedScores(rng.normal(size=5000) + labels, labels == 1)
    # Processor time, which other processes do not add to. Measured 0.5 s.
    start = time.process_time()
    intervals.bootstrap(ranked.auroc, intervals.units([""] * 5000), labels)
    assert time.process_time() - start < 3


def simulate(rng, patients, images, between):
    """Scores of `patients` with `images` each, whose true AUROC is known."""
    labels = (np.arange(patients) % 2).repeat(images)
    shared = rng.normal(size=patients).repeat(images) * np.sqrt(between)
    own = rng.normal(size=patients * images) * np.sqrt(1 - between)
    names = np.arange(patients).repeat(images).astype(str)
    return 1.5 * labels + shared + own, labels, names


TRUE_AUROC = 0.8555778168267576  # Phi(1.5 / sqrt(2)), of two unit normals 1.5 apart


def coverage(images, between, by_patient, trials=400):
    rng = np.random.default_rng(7)
    hits = 0
    for trial in range(trials):
        scores, labels, names = simulate(rng, 200 // images, images, between)
        probability = 1 / (1 + np.exp(-scores))
        low, high = metrics.evaluate(
            np.stack([1 - probability, probability], axis=1),
            labels,
            names if by_patient else [""] * len(labels),
            seed=trial,
            resamples=1000,
        )["auroc_ci95"]
        hits += low <= TRUE_AUROC <= high
    return hits / trials


@pytest.mark.slow
@pytest.mark.parametrize(("images", "between"), [(1, 0.0), (4, 0.7)])
def test_intervals_over_patients_cover_the_truth_as_often_as_they_say(images, between):
    # 400 trials have a standard error of 1.1 %; the percentile interval is known to be
    # slightly short in samples of this size.
    assert 0.91 <= coverage(images, between, by_patient=True) <= 0.98


@pytest.mark.slow
def test_intervals_over_images_of_the_same_patients_would_claim_too_much():
    assert coverage(4, 0.7, by_patient=False) < 0.85
