"""Laws of comparing many settings at once; tests/reports has those of whole studies."""

import pytest

from radimagenet_jax.statistics import comparisons


def test_holm_is_its_worked_definition():
    assert comparisons.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert comparisons.holm([0.6, 0.9]) == [1, 1]
    assert comparisons.holm([]) == []
