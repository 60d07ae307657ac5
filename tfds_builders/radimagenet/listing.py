"""The released tables, held compactly: some 80 bytes a row, for 1.35 million rows."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np

from radimagenet_jax.data.image_builder import Example
from radimagenet_jax.data.source_files import Row

IMAGES = "radiology_ai"
MODALITIES = ("CT", "MR", "US")
ANATOMIES = (
    "abd", "af", "brain", "hip", "knee", "lung", "mriabd", "shoulder", "spine", "usabd",
    "usthyroid",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One row of a table.

    Attributes:
      key: The image's path below the root, as the table gives it.
      label: Index of its class.
      line: The row's line in the table.
    """

    key: str
    label: int
    line: int


class Listing:
    """The rows of one split's table, in its order.

    Attributes:
      table: The table's file name, for messages.
    """

    def __init__(self, table: str):
        self.table = table
        self._keys = bytearray()
        self._ends = array("Q")
        self._labels = array("B")
        self._lines = array("I")
        self._hashes = array("q")

    def append(self, entry: Entry) -> None:
        """Adds a row."""
        self._keys += entry.key.encode()
        self._ends.append(len(self._keys))
        self._labels.append(entry.label)
        self._lines.append(entry.line)
        self._hashes.append(hash(entry.key))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: int) -> Entry:
        start = self._ends[place - 1] if place else 0
        key = self._keys[start : self._ends[place]].decode()
        return Entry(key, self._labels[place], self._lines[place])

    def __iter__(self) -> Iterator[Entry]:
        return (self[place] for place in range(len(self)))

    def hashes(self) -> np.ndarray:
        """Returns (N,) int64: equal for equal keys, in this process."""
        return np.frombuffer(self._hashes, np.int64)


class Examples(Sequence[Example]):
    """A split's examples, made when they are asked for."""

    def __init__(self, listing: Listing, kept: np.ndarray, make: Callable[[Entry], Example]):
        """Makes the sequence.

        Args:
          listing: The split's rows.
          kept: (K,) places in it, in order.
          make: Makes the example of a row.
        """
        self._listing, self._kept, self._make = listing, kept, make

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Example]: ...

    def __getitem__(self, place: int | slice) -> Example | Sequence[Example]:
        if isinstance(place, slice):
            return Examples(self._listing, self._kept[place], self._make)
        return self._make(self._listing[int(self._kept[place])])


def entry_of(row: Row, labels: dict[str, int]) -> Entry:
    """Reads a row of a released table.

    Args:
      row: With 'filename' and 'label'.
      labels: Class name to index.

    Raises:
      DataError: If the path leaves the root or is not one of the released layout, or the label is
        none of the 165.
    """
    path = PurePosixPath(row["filename"].replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or Path(row["filename"]).drive:
        raise row.error(
            f"the filename '{row['filename']}' leaves the data set's folder; it must begin with "
            f"{IMAGES}/."
        )
    if len(path.parts) < 4 or path.parts[0] != IMAGES or path.parts[1] not in MODALITIES:
        raise row.error(
            f"the filename '{row['filename']}' is not of the released layout, "
            f"{IMAGES}/<{'|'.join(MODALITIES)}>/.../<class>/<name>.png; download the table again."
        )
    modality = path.parts[1]
    # Class names hold hyphens and anatomies do not.
    anatomy, _, finding = row["label"].partition("-")
    if modality == "MR" and anatomy == "abd":
        anatomy = "mriabd"  # both spellings are about
    name = f"{modality}-{anatomy}-{finding}"
    if name not in labels:
        raise row.error(
            f"the label '{row['label']}' of a {modality} image is none of the {len(labels)} "
            "classes, which are <anatomy>-<class>; download the table again."
        )
    return Entry(str(path), labels[name], row.number)
