"""Laws of the mean difference over tasks, against another package's figures of BCG trials."""

import numpy as np
import pytest

from radimagenet_jax.statistics import tasks

# Thirteen trials of BCG vaccination against tuberculosis (Colditz et al. 1994, JAMA 271:698): cases
# and others among the vaccinated, then among those who were not.
BCG = np.array([
    (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619),
    (33, 5036, 47, 5761), (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892),
    (29, 7470, 45, 7232), (17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338),
    (27, 16886, 29, 17825),
])  # fmt: skip


def test_the_bcg_trials_give_the_figures_of_statsmodels():
    a, b, c, d = BCG.T
    values = np.log(a / (a + b)) - np.log(c / (c + d))
    errors = np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))
    found = tasks.join(values, errors)
    # combine_effects(..., method_re="iterated", use_t=True) of statsmodels 0.14.
    assert found.between**2 == pytest.approx(0.3180684522, rel=1e-6)
    assert found.value == pytest.approx(-0.7149681535, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((-1.10909838, -0.32083793), rel=1e-6)
    assert found.q == pytest.approx(152.23300808, rel=1e-8)
    assert found.share == pytest.approx(0.9211734685, rel=1e-8)


def test_tasks_that_agree_have_nothing_between_them_and_no_shorter_interval_for_it():
    found = tasks.join([0.02, 0.02, 0.02], [0.01, 0.01, 0.01])
    assert (found.value, found.between, found.share) == (pytest.approx(0.02), 0.0, 0.0)
    # Student's t of two degrees of freedom times the error of a mean of three.
    assert found.high - found.value == pytest.approx(4.302653 * 0.01 / np.sqrt(3), rel=1e-6)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        errors = rng.uniform(0.005, 0.02, 8)
        found = tasks.join(0.01 + rng.normal(0, 0.01, 8) + rng.normal(0, errors), errors)
        held += found.low <= 0.01 <= found.high
    assert 0.935 < held / 2000 < 0.975


@pytest.mark.parametrize(("values", "errors"), [([1.0], [1.0]), ([1, 2], [1, 0]), ([1, 2], [1])])
def test_what_cannot_be_joined_is_refused(values, errors):
    with pytest.raises(ValueError, match="cannot be joined"):
        tasks.join(values, errors)
