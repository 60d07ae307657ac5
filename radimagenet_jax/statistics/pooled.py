"""What names a setting of a study, and its test scores, pooled over its folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A run as a table has it: column to text.
Row = Mapping[str, str]

# What `model` is where a head was trained on a table of features, whose name is in `init`.
EMBEDDING = "embedding"
# What a run is beside its fold: the columns that name a setting and what it began from.
IDENTITY = (
    *("dataset", "model", "init", "structure", "learning_rate"),
    *("seed", "preprocessing", "views"),
)


@dataclass(frozen=True)
class Pooled:
    """A setting's out-of-fold test scores, one after the other.

    Attributes:
      images: N pairs of fold and key; each image once in a fold.
      positive: (N,) bool, the label.
      patients: N names, '' where not known.
      scores: (N,) float64 in [0, 1], of the positive class.
      event: The positive class's name.
    """

    images: tuple[tuple[str, str], ...]
    positive: NDArray[np.bool_]
    patients: tuple[str, ...]
    scores: NDArray[np.float64]
    event: str

    def at(self, images: Sequence[tuple[str, str]]) -> "Pooled":
        """The same for some of the images, in the order given."""
        place = {image: number for number, image in enumerate(self.images)}
        chosen = [place[image] for image in images]
        return Pooled(
            tuple(images),
            self.positive[chosen],
            tuple(self.patients[k] for k in chosen),
            self.scores[chosen],
            self.event,
        )


def finished(rows: Sequence[Row]) -> list[Row]:
    """The runs that ended with a test AUROC."""
    return [row for row in rows if row["status"] == "ok" and row["auroc_test"]]


def identity(row: Row) -> tuple[str, ...]:
    """The values of `IDENTITY`."""
    return tuple(row[name] for name in IDENTITY)
