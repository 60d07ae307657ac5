"""Scores of the images of a split, from which figures are computed."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """The scores of a split.

    Attributes:
      class_names: C names, in the order of the score columns.
      keys: N unique names of images.
      patients: N names, '' where not known.
      labels: (N,) int64 in [0, C).
      scores: (N, C) float64, probabilities.
    """

    class_names: tuple[str, ...]
    keys: tuple[str, ...]
    patients: tuple[str, ...]
    labels: NDArray[np.int64] = field(repr=False)
    scores: NDArray[np.float64] = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("class_names", "keys", "patients"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "labels", np.asarray(self.labels, np.int64))
        object.__setattr__(self, "scores", np.asarray(self.scores, np.float64))
        n, classes = len(self.keys), len(self.class_names)
        if len(set(self.class_names)) != classes:
            raise ValueError(f"class names must differ: {self.class_names}.")
        if not len(self.patients) == n == len(self.labels) or self.scores.shape != (n, classes):
            raise ValueError(
                f"{n} keys, {len(self.patients)} patients, labels {self.labels.shape} and scores "
                f"{self.scores.shape} for {classes} classes do not belong together."
            )
        if n and not 0 <= self.labels.min() <= self.labels.max() < classes:
            raise ValueError(f"labels must be in [0, {classes}).")
