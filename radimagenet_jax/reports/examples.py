"""Which images a person should look at: those a network is surest of, rightly and wrongly."""

from dataclasses import dataclass

import numpy as np

from radimagenet_jax.statistics.scores import Predictions

# Beyond this many classes, two strips a class would be too many to look at.
_CLASSES_SHOWN_APART = 4


@dataclass(frozen=True)
class Example:
    """One image and what the network made of it.

    Attributes:
      key: Name of the image.
      patient: Name of the patient, '' where not known.
      label: Name of its class.
      called: Name of the class of the highest score.
      score: That score, in [0, 1].
    """

    key: str
    patient: str
    label: str
    called: str
    score: float


@dataclass(frozen=True)
class ExampleGroup:
    """Images of one class (of all classes, when there are many) called right, or wrong.

    Attributes:
      label: Name of the class, None for all.
      right: Whether the images were called right.
      total: How many such images there are.
      examples: The surest of them, surest first.
    """

    label: str | None
    right: bool
    total: int
    examples: tuple[Example, ...]


def select(predictions: Predictions, n: int) -> tuple[ExampleGroup, ...]:
    """Selects the images called right, and wrong, with the highest scores.

    At most one image a patient is taken into a group where patients are known, so that a group
    shows n patients and not n neighbouring slices of one.

    Args:
      predictions: Scores of a split.
      n: Images a group.

    Returns:
      Groups by class, the last class first (the positive one, by custom), right before wrong;
      with more than four classes one pair of groups for all. Groups without images are left out.
    """
    calls = predictions.scores.argmax(axis=1) if len(predictions.keys) else np.zeros(0, int)
    classes: list[int | None] = list(reversed(range(len(predictions.class_names))))
    if len(classes) > _CLASSES_SHOWN_APART:
        classes = [None]
    groups = []
    for wanted in classes:
        of_class = np.ones(len(calls), bool) if wanted is None else predictions.labels == wanted
        for right in (True, False):
            members = np.flatnonzero(of_class & ((calls == predictions.labels) == right))
            if len(members):
                examples = _surest(predictions, members, calls, n)
                label = None if wanted is None else predictions.class_names[wanted]
                groups.append(ExampleGroup(label, right, len(members), examples))
    return tuple(groups)


def _surest(
    predictions: Predictions, members: np.ndarray, calls: np.ndarray, n: int
) -> tuple[Example, ...]:
    certainty = predictions.scores[members, calls[members]]
    chosen: list[Example] = []
    seen: set[str] = set()
    for position in members[np.argsort(-certainty, kind="stable")]:
        patient = predictions.patients[position]
        if len(chosen) == n:
            break
        if patient and patient in seen:
            continue
        seen.add(patient)
        chosen.append(
            Example(
                key=predictions.keys[position],
                patient=patient,
                label=predictions.class_names[predictions.labels[position]],
                called=predictions.class_names[calls[position]],
                score=float(predictions.scores[position, calls[position]]),
            )
        )
    return tuple(chosen)
