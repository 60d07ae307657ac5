"""Laws of the images that a report shows."""

import numpy as np

from radimagenet_jax.reports import examples
from radimagenet_jax.statistics.scores import Predictions


def scored(rows, classes=("no", "yes")):
    """Predictions from rows (key, patient, label, scores)."""
    keys, patients, labels, scores = zip(*rows, strict=True)
    return Predictions(classes, keys, patients, labels, scores)


ROWS = [
    ("a", "", 1, [0.1, 0.9]),
    ("b", "", 1, [0.4, 0.6]),
    ("c", "", 1, [0.8, 0.2]),
    ("d", "", 1, [0.3, 0.7]),
    ("e", "", 0, [0.05, 0.95]),
    ("f", "", 0, [0.45, 0.55]),
]


def keys(group):
    return [example.key for example in group.examples]


def test_groups_hold_the_surest_first_and_count_all():
    groups = {(g.label, g.right): g for g in examples.select(scored(ROWS), 2)}
    assert keys(groups["yes", True]) == ["a", "d"]
    assert groups["yes", True].total == 3
    assert keys(groups["yes", False]) == ["c"]
    assert keys(groups["no", False]) == ["e", "f"]
    assert ("no", True) not in groups  # no such image, no empty group


def test_an_example_tells_what_it_was_called_and_how_surely():
    wrong = examples.select(scored(ROWS), 1)[-1].examples[0]
    assert (wrong.label, wrong.called, wrong.score) == ("no", "yes", 0.95)


def test_a_patient_appears_once_a_group():
    rows = [(key, "same" if key in "ad" else "", *rest) for key, _, *rest in ROWS]
    groups = {(g.label, g.right): g for g in examples.select(scored(rows), 3)}
    assert keys(groups["yes", True]) == ["a", "b"]
    assert groups["yes", True].total == 3


def test_many_classes_share_one_pair_of_groups():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(6), 40)
    many = Predictions(
        [f"c{i}" for i in range(6)], [str(i) for i in range(40)], [""] * 40, [1] * 40, scores
    )
    right, wrong = examples.select(many, 5)
    assert (right.label, right.right, wrong.label, wrong.right) == (None, True, None, False)
    assert len(wrong.examples) == 5
    certainties = [example.score for example in wrong.examples]
    assert certainties == sorted(certainties, reverse=True)
    assert right.total + wrong.total == 40


def test_no_images_give_no_groups():
    assert examples.select(Predictions(("a", "b"), [], [], [], np.zeros((0, 2))), 3) == ()
