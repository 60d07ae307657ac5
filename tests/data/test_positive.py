"""Laws of which class is positive where nobody said it."""

import pytest

from radimagenet_jax.data import datasets
from radimagenet_jax.data.positive import positive_by_name


@pytest.mark.parametrize(
    ("names", "positive"),
    [
        (("covid", "normal"), "covid"),
        (("malignant", "benign")[::-1], "malignant"),
        (("Abnormal", "No_Finding"), "Abnormal"),
        (("1", "0"), "1"),
        (("0", "1"), "1"),
        (("COVID", "non-COVID"), "COVID"),
        (("a", "b"), "b"),
        (("healthy", "normal"), "normal"),
        (("nodule", "normals2"), "normals2"),
        (("a", "b", "normal"), "normal"),
    ],
)
def test_of_two_classes_the_healthy_one_is_never_positive_in_silence(names, positive):
    assert names[positive_by_name(names)] == positive
    assert names[datasets.positive_class("", names, "set")] == positive


def test_a_healthy_class_may_be_asked_for():
    assert datasets.positive_class("normal", ("covid", "normal"), "set") == 1
