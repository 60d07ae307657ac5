"""Laws of the localisation's figures: by hand, by pixels, and by simulation."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import f1_score, jaccard_score

from radimagenet_jax.statistics import localisation
from radimagenet_jax.statistics.localisation import MAXIMUM, QUANTILE, THRESHOLDS, Threshold

RNG = np.random.default_rng(0)


def lesion(shape=(20, 30)):
    mask = np.zeros(shape, bool)
    mask[5:11, 8:18] = True
    return mask


def test_a_perfect_map_has_dice_1_and_an_empty_one_0_at_every_threshold():
    mask = lesion()
    perfect = localisation.sweep(mask.astype(np.float32), mask)
    of_maximum = [threshold.family == MAXIMUM for threshold in THRESHOLDS]
    assert (perfect.dice[0, of_maximum] == 1).all()
    assert (perfect.iou[0, of_maximum] == 1).all()
    # A tenth of the image is lesion, and what is 0 is in no region: neither do quantiles err.
    assert (perfect.dice == 1).all()
    assert perfect.points.tolist() == [True]
    empty = localisation.sweep(np.zeros(mask.shape, np.float32), mask)
    assert (empty.dice == 0).all()
    assert (empty.iou == 0).all()
    assert (empty.region == 0).all()
    assert empty.points.tolist() == [False]


def test_half_a_lesion_as_much_beside_it_by_hand():
    mask = lesion()  # 60 places
    activation = np.zeros(mask.shape, np.float32)
    activation[5:11, 13:23] = 1  # 60 places, 30 of them in the lesion
    found = localisation.sweep(activation, mask, [Threshold(MAXIMUM, 0.5)])
    assert found.dice.tolist() == [[2 * 30 / 120]]
    assert found.iou.tolist() == [[30 / 90]]
    assert found.region.tolist() == [[60 / 600]]


def test_the_sweep_is_what_scikit_learn_says_of_each_region():
    mask = RNG.random((17, 23)) < 0.3
    activation = np.maximum(RNG.normal(size=mask.shape), 0).astype(np.float32).round(1)  # ties
    found = localisation.sweep(activation, mask)
    for column, threshold in enumerate(THRESHOLDS):
        region = localisation.region(activation, threshold)
        assert found.region[0, column] == pytest.approx(region.mean())
        truth, called = mask.ravel(), region.ravel()
        assert found.dice[0, column] == pytest.approx(f1_score(truth, called, zero_division=0))
        assert found.iou[0, column] == pytest.approx(jaccard_score(truth, called, zero_division=0))


def test_a_threshold_is_of_the_maximum_or_of_the_quantile():
    activation = np.arange(100, dtype=np.float32).reshape(10, 10)
    assert localisation.region(activation, Threshold(MAXIMUM, 0.5)).sum() == 50  # 50 to 99
    assert localisation.region(activation, Threshold(QUANTILE, 0.9)).sum() == 10
    # The quantile follows how many places are high, the maximum how high the highest is.
    activation[0, 0] = 1000
    assert localisation.region(activation, Threshold(MAXIMUM, 0.5)).sum() == 1
    assert localisation.region(activation, Threshold(QUANTILE, 0.9)).sum() == 10


def test_the_pointing_game_asks_for_the_highest_place_alone():
    mask = lesion()
    activation = np.full(mask.shape, 0.5, np.float32)
    activation[7, 9] = 1
    assert localisation.sweep(activation, mask).points.tolist() == [True]
    activation[0, 0] = 2
    assert localisation.sweep(activation, mask).points.tolist() == [False]


def test_the_disc_by_hand():
    # Centres of a 5 x 5 image at most 1.5 away from the middle: 3 x 3 without nothing.
    found = localisation.disc((5, 5), np.pi * 1.5**2 / 25)
    expected = np.zeros((5, 5), bool)
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(found, expected)
    # Against a lesion of the middle row: 3 of 9 places of the disc, 3 of 5 of the lesion.
    mask = np.zeros((5, 5), bool)
    mask[2] = True
    overlap = localisation.overlap(found, mask, points=True)
    assert overlap.dice.tolist() == [[2 * 3 / (9 + 5)]]
    assert overlap.iou.tolist() == [[3 / 11]]


@pytest.mark.parametrize(("shape", "share"), [((300, 400), 0.1), ((257, 129), 0.03)])
def test_the_disc_is_round_in_the_middle_and_of_its_area(shape, share):
    found = localisation.disc(shape, share)
    assert found.mean() == pytest.approx(share, rel=0.02)
    np.testing.assert_array_equal(found, found[::-1, ::-1])
    rows, columns = found.any(axis=1).sum(), found.any(axis=0).sum()
    assert abs(int(rows) - int(columns)) <= 1


def split_of(count, seed):
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(count):
        activation = np.maximum(rng.normal(size=(12, 12)) + 2 * lesion((12, 12)), 0)
        parts.append(localisation.sweep(activation.astype(np.float32), lesion((12, 12))))
    return localisation.Overlap.stacked(parts)


def test_the_threshold_is_chosen_on_validation_alone():
    val, test = split_of(20, 0), split_of(30, 1)
    chosen = localisation.judged("map", val, test)
    best = val.dice.mean(axis=0).argmax()
    assert chosen.threshold == THRESHOLDS[best]
    np.testing.assert_array_equal(chosen.column("test", "dice"), test.dice[:, best])
    # Whatever the test images say, in another order or the contrary, it stays.
    other = localisation.Overlap(test.region, 1 - test.dice, 1 - test.iou, ~test.points)
    assert localisation.judged("map", val, other).threshold == chosen.threshold
    assert localisation.judged("map", test, val).threshold == THRESHOLDS[
        test.dice.mean(axis=0).argmax()
    ]  # fmt: skip


def test_what_is_a_region_already_has_no_threshold():
    one = localisation.overlap(lesion(), lesion(), points=True)
    judged = localisation.judged("disc", one, one)
    assert judged.threshold is None
    assert judged.column("test", "dice").tolist() == [1]


def test_of_independent_images_the_interval_is_students():
    values = RNG.normal(0.3, 0.2, 25)
    found = localisation.mean(values, [""] * 25)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.value == values.mean()


def test_copies_of_a_patients_images_are_no_evidence():
    values = RNG.normal(0.3, 0.2, 12)
    alone = localisation.mean(values, list("abcdefghijkl"))
    copied = localisation.mean(np.repeat(values, 5), np.repeat(list("abcdefghijkl"), 5).tolist())
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    hits = values > 0.3
    alone = localisation.share(hits, list("abcdefghijkl"))
    copied = localisation.share(np.repeat(hits, 5), np.repeat(list("abcdefghijkl"), 5).tolist())
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=0.02)


def test_one_patient_has_no_interval():
    assert localisation.mean([0.1, 0.3], ["a", "a"]).low is None
    assert localisation.share([True, False], ["a", "a"]).high is None


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    held, shares = 0, 0
    patients = np.repeat([f"p{number}" for number in range(30)], 3).tolist()
    for _ in range(600):
        level = np.repeat(rng.normal(0, 1, 30), 3)
        mean = localisation.mean(0.4 + 0.1 * (level + rng.normal(size=90)), patients)
        held += mean.low <= 0.4 <= mean.high
        # Hits of one patient depend on each other; 0.5 by symmetry.
        share = localisation.share(level + rng.normal(size=90) > 0, patients)
        shares += share.low <= 0.5 <= share.high
    # 95 % of 600 is 570, with a standard deviation of 5.3.
    assert 550 <= held <= 590
    assert 550 <= shares <= 592


@pytest.mark.parametrize("hits", [[True] * 9, [False] * 9])
def test_a_share_of_all_or_none_has_an_interval_within_its_range(hits):
    found = localisation.share(hits, [""] * 9)
    assert 0 <= found.low < found.high <= 1
    assert found.low <= found.value <= found.high


def test_a_paired_difference_is_surer_than_two_means_and_changes_its_sign():
    base = RNG.random(40)
    better = base + 0.05 + RNG.normal(0, 0.01, 40)
    difference = localisation.mean(better - base, [""] * 40)
    assert localisation.verdict(difference) == "better"
    assert localisation.verdict(localisation.mean(base - better, [""] * 40)) == "worse"
    assert localisation.verdict(localisation.mean(base - base[::-1], [""] * 40)) == "undecided"
    assert difference.high - difference.low < 0.1 * (
        localisation.mean(base, [""] * 40).high - localisation.mean(base, [""] * 40).low
    )
