"""Who is independent of whom, and when they are too few for an interval.

Images of one patient resemble each other, so counting images would pretend to more evidence than
there is: all intervals are over patients, and over images only where patients are not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
# Independent patients (or images) that must be there, of either class, for an interval: of fewer,
# how patients differ from each other cannot be seen.
FEWEST = 5


@dataclass(frozen=True)
class Units:
    """What is independent: patients where they are known, else images.

    Attributes:
      index: (N,) int64, the unit that each image belongs to, 0..count-1.
      count: Number of units.
      kind: 'patient' if any patient is known, else 'image'.
      patients: Number of known patients.
      unknown: Number of images whose patient is not known; each is a unit of its own.
    """

    index: NDArray[np.int64]
    count: int
    kind: str
    patients: int
    unknown: int


def units(patients: Sequence[str]) -> Units:
    """Groups images into units by patient.

    Args:
      patients: One name an image, '' where it is not known.
    """
    names: dict[object, int] = {}
    # An image without a patient gets its own position as its name, which no string equals.
    index = [
        names.setdefault(name or position, len(names)) for position, name in enumerate(patients)
    ]
    unknown = sum(not name for name in patients)
    known = len(names) - unknown
    return Units(
        index=np.asarray(index, np.int64),
        count=len(names),
        kind="patient" if known else "image",
        patients=known,
        unknown=unknown,
    )


def held(chosen: NDArray[np.bool_], clusters: Units) -> int:
    """How many units have one of the chosen images.

    Args:
      chosen: (N,) bool.
      clusters: Of the N images.
    """
    return len(np.unique(clusters.index[chosen]))


def enough(positive: NDArray[np.bool_], clusters: Units) -> bool:
    """Whether both classes have the units that an interval needs.

    Args:
      positive: (N,) bool.
      clusters: Of the N images.
    """
    return min(held(chosen, clusters) for chosen in (positive, ~positive)) >= FEWEST


def in_words(patients: int, unknown: int) -> str:
    """What an interval is over, such as '9 patients and 15 images of unknown patients'.

    Args:
      patients: Known patients.
      unknown: Images whose patient is not known.
    """
    known = f"{patients:,} patient{'' if patients == 1 else 's'}"
    images = f"{unknown:,} image{'' if unknown == 1 else 's'}"
    if not patients:
        return f"{images} (patients not known)"
    return f"{known} and {images} of unknown patients" if unknown else known
