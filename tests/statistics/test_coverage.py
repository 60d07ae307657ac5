"""Intervals of 95 % hold the truth as often as they say, from five patients a class on.

`python -m tests.benchmarks.coverage` tries many more settings; the table is in the folder's README.
"""

import pytest
from scipy.stats import binom

from tests.benchmarks.coverage import Setting, coverage

DRAWS = 300
# What binomial chance leaves of a true coverage of 93 to 97.5 %, but for one in a thousand.
LOWEST, HIGHEST = binom.ppf(0.001, DRAWS, 0.93) / DRAWS, binom.ppf(0.999, DRAWS, 0.975) / DRAWS


@pytest.mark.parametrize(
    ("what", "setting"),
    [
        ("auroc", Setting((5, 5), "20", 0.8, (0.98,))),
        ("auroc", Setting((5, 20), "5", 0.8, (0.9,))),
        ("auroc", Setting((10, 40), "unequal", 0.3, (0.75,))),
        ("difference", Setting((5, 20), "5", 0.3, (0.75, 0.65))),
        ("shares", Setting((10, 10), "20", 0.8, (0.9,))),
    ],
)
def test_intervals_cover_the_truth_in_93_to_97_percent(what, setting):
    for share in coverage(what, setting, DRAWS):
        assert LOWEST <= share <= HIGHEST


def test_images_counted_as_independent_would_claim_too_much():
    # What the patients are for: the same images without their names.
    import numpy as np

    from radimagenet_jax.statistics import delong
    from tests.benchmarks.coverage import draw

    rng, setting = np.random.default_rng(0), Setting((5, 20), "20", 0.8, (0.9,))
    held = 0
    for _ in range(DRAWS):
        scores, positive, _ = draw(setting, rng)
        held += delong.p_value(delong.areas(scores, positive), 0.9) >= 0.05
    assert held / DRAWS < 0.6
