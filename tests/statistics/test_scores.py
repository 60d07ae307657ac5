"""Laws of the scores of a split."""

import pytest

from radimagenet_jax.statistics.scores import Predictions


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ("a", "a")},
        {"patients": ["x"]},
        {"labels": [0, 2]},
        {"scores": [[0.5, 0.5]]},
    ],
)
def test_parts_that_do_not_belong_together_are_refused(change):
    parts = {
        "class_names": ("a", "b"),
        "keys": ["k", "l"],
        "patients": ["", ""],
        "labels": [0, 1],
        "scores": [[0.5, 0.5], [0.5, 0.5]],
    }
    with pytest.raises(ValueError, match=r"class|belong|labels"):
        Predictions(**{**parts, **change})
