"""The images of a split whose lesion somebody has outlined, each with its mask."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radimagenet_jax.data.images import decode
from radimagenet_jax.data.masks import decode_mask
from radimagenet_jax.data.registry import damaged
from radimagenet_jax.data.streaming import StreamedSplit
from radimagenet_jax.errors import DataError

_PORTION = 32  # records that one thread reads at a time


@dataclass(frozen=True)
class Lesions:
    """The N images of a split that have a mask which is not empty, in the split's order.

    Attributes:
      split: The split.
      places: (N,) int, where they are in it.
      shares: (N,) float64 in (0, 1], of the image that the lesion covers.
    """

    split: StreamedSplit
    places: NDArray[np.int64]
    shares: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def left_out(self) -> int:
        """Images of the split without a mask, or with an empty one."""
        return len(self.split) - len(self)

    @property
    def keys(self) -> tuple[str, ...]:
        """N unique names."""
        return tuple(self.split.keys[place] for place in self.places)

    @property
    def patients(self) -> tuple[str, ...]:
        """N pseudonyms, '' where the patient is unknown."""
        return tuple(self.split.patients[place] for place in self.places)

    @property
    def labels(self) -> NDArray[np.int32]:
        """(N,) indices into the class names."""
        return self.split.labels[self.places]

    def inputs(self, start: int, end: int) -> NDArray[np.uint8]:
        """Images `start` to before `end` as training reads them: (B, S, S, C) uint8."""
        return self.split.read(self.places[start:end])

    def read(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Reads one image and its mask in the size in which they are stored.

        Args:
          number: Of the image, 0 to N - 1.

        Returns:
          (H, W, 1 or 3) uint8, and (H, W) bool, True in the lesion.

        Raises:
          DataError: If the files are damaged.
        """
        record = self.split.source.read([int(self.places[number])])[0]
        name = f"'{self.split.keys[self.places[number]]}'"
        try:
            image = decode(record["image"], name=name)
            mask = decode_mask(record["mask"], name=f"the mask of {name}", shape=image.shape[:2])
        except DataError as error:
            raise damaged(self.split.source.folder, error) from error
        return image, mask


def find(split: StreamedSplit, dataset: str) -> Lesions:
    """Finds the images of a split that have a lesion, by reading all masks.

    Args:
      split: The split.
      dataset: The data set's name, for messages.

    Raises:
      DataError: If the data set has no masks, the split has no lesion, or the files are damaged.
    """
    source = split.source

    def portion(start: int) -> list[float]:
        places = range(start, min(start + _PORTION, source.count))
        return [
            _share(record, split.keys[place], split, dataset)
            for place, record in zip(places, source.read(places), strict=True)
        ]

    with ThreadPoolExecutor() as pool:
        parts: Sequence[list[float]] = list(pool.map(portion, range(0, source.count, _PORTION)))
    shares = np.array([share for part in parts for share in part], np.float64)
    if not shares.any():
        raise DataError(
            f"no image of the {source.split} split of {dataset} has a mask with a lesion, so that "
            "nothing can be measured there; get the masks, delete the folder "
            f"{source.folder} and prepare it again."
        )
    places = np.flatnonzero(shares)
    return Lesions(split, places, shares[places])


def _share(record: dict[str, bytes], key: str, split: StreamedSplit, dataset: str) -> float:
    encoded = record.get("mask")
    if encoded is None:
        raise DataError(
            f"{dataset} has no masks of lesions; take a data set that has them, such as busi or "
            "ddti, or image_csv with a column mask."
        )
    if not encoded:
        return 0.0
    try:
        return float(decode_mask(encoded, name=f"the mask of '{key}'").mean())
    except DataError as error:
        raise damaged(split.source.folder, error) from error
