"""Laws of who is independent of whom."""

import numpy as np

from radimagenet_jax.statistics import intervals


def test_units_are_patients_and_images_without_one_stand_alone():
    units = intervals.units(["b", "", "a", "b", ""])
    assert units.index.tolist() == [0, 1, 2, 0, 3]
    assert (units.count, units.kind, units.patients, units.unknown) == (4, "patient", 2, 2)


def test_units_are_images_when_no_patient_is_known():
    units = intervals.units(["", "", ""])
    assert units.index.tolist() == [0, 1, 2]
    assert (units.count, units.kind, units.patients) == (3, "image", 0)


def test_a_patient_with_many_of_the_images_is_counted_once():
    units = intervals.units(["a", "a", "b", "", "b"])
    assert intervals.held(np.array([True, True, False, True, False]), units) == 2


def test_an_interval_needs_five_units_of_either_class():
    units = intervals.units(["a", "a", "b", "c", "d", "e", "f", "g", "h", "i", "i"])
    positive = np.arange(11) < 6  # a, a, b, c, d, e
    assert not intervals.enough(positive, units)  # f, g, h and i
    assert intervals.enough(positive, intervals.units([""] * 11))


def test_what_an_interval_is_over_says_patients_and_images():
    assert intervals.in_words(9, 15) == "9 patients and 15 images of unknown patients"
    assert intervals.in_words(1, 0) == "1 patient"
    assert intervals.in_words(0, 1200) == "1,200 images (patients not known)"
