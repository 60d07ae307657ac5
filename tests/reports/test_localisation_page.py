"""What the page on the localisation says and shows."""

import numpy as np
import pytest

from radimagenet_jax.reports import localisation_page
from radimagenet_jax.reports.localisation_page import Compared
from radimagenet_jax.statistics import localisation
from radimagenet_jax.statistics.localisation import Judged, Overlap, Threshold


def constant(title, dice):
    """Images of these Dice at the only threshold."""
    values = np.array(dice, float)[:, None]
    found = Overlap(values, values, values / 2, np.ones(len(dice), bool))
    return Judged(title, found, found, None)


def compared(own, disc, other=None):
    judged = {"map": constant("maps of a", own)}
    if other is not None:
        judged["against"] = constant("maps of b", other)
    judged["disc"] = constant("disc", disc)
    patients = [""] * len(own)
    differences = {
        name: localisation.mean(np.subtract(own, one.column("test", "dice")), patients)
        for name, one in judged.items()
        if name != "map"
    }
    return Compared(judged, differences, "disc", "against" if other is not None else "")


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12, 100])
def test_no_image_is_shown_twice_and_groups_are_in_order(count):
    dice = np.random.default_rng(count).permutation(np.linspace(0, 1, count))
    groups = localisation_page.select(dice)
    shown = [number for group in groups.values() for number in group]
    assert len(shown) == len(set(shown)) == min(count if count < 3 else 3 * (count // 3), 12)
    assert dice[shown[0]] == dice.max()
    if count > 1:
        assert dice[shown[-1]] == dice.min()
    if count >= 3:
        assert list(groups) == ["Best", "Middle", "Worst"]
        assert np.median(dice) in dice[groups["Middle"]] or count % 2 == 0


def test_thresholds_in_words():
    assert localisation_page.in_words(Threshold("maximum", 0.44)) == "44 % of the map’s maximum"
    assert localisation_page.in_words(Threshold("quantile", 0.9)) == "the highest 10 % of the map"
    assert localisation_page.in_words(None) == ""


def test_the_sentence_says_better_worse_or_neither_than_the_disc():
    high, low = [0.5, 0.6, 0.7, 0.6], [0.1, 0.2, 0.2, 0.1]
    patients = [""] * 4
    better = localisation_page.sentence(compared(high, low), patients)
    assert "mean Dice of 0.600 (95 % interval" in better
    assert "better than a disc in the middle of the image, which has 0.150" in better
    worse = localisation_page.sentence(compared(low, high), patients)
    assert "worse than a disc" in worse
    assert "(difference −0.450; 95 % interval −" in worse
    assert "not told apart from a disc" in localisation_page.sentence(
        compared([0.1, 0.5, 0.3, 0.3], [0.5, 0.1, 0.3, 0.3]), patients
    )
    # One patient alone gives no interval, and so decides nothing.
    alone = localisation_page.sentence(compared([0.9], [0.1]), ["p"])
    assert "not told apart" in alone
    assert "interval" not in alone


def test_the_better_of_two_runs_is_named_first():
    high, low, disc = [0.5, 0.6, 0.7, 0.6], [0.1, 0.2, 0.2, 0.1], [0.3] * 4
    ahead = localisation_page.comparison(compared(high, disc, low))
    assert ahead.startswith("The maps of a overlap the lesions better than the maps of b")
    behind = localisation_page.comparison(compared(low, disc, high))
    assert behind.startswith("The maps of b overlap the lesions better than the maps of a")
    assert "do not tell" in localisation_page.comparison(compared(low, disc, low[::-1]))
