"""The released tables, held compactly: some 30 bytes a row, for 1.35 million rows."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np

from radimagenet_jax.data.image_builder import Example
from radimagenet_jax.data.tables import Row

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
      folders: The folders that its images lie in.
    """

    def __init__(self, table: str):
        self.table = table
        self.folders: list[str] = []
        self._numbers: dict[str, int] = {}
        self._names = bytearray()
        self._ends = array("I")
        self._folder = array("H")
        self._labels = array("B")
        self._lines = array("I")

    def append(self, entry: Entry) -> None:
        """Adds a row."""
        folder, _, name = entry.key.rpartition("/")
        if folder not in self._numbers:
            self._numbers[folder] = len(self.folders)
            self.folders.append(folder)
        self._folder.append(self._numbers[folder])
        self._names += name.encode()
        self._ends.append(len(self._names))
        self._labels.append(entry.label)
        self._lines.append(entry.line)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: int) -> Entry:
        start = self._ends[place - 1] if place else 0
        name = self._names[start : self._ends[place]].decode()
        key = f"{self.folders[self._folder[place]]}/{name}"
        return Entry(key, self._labels[place], self._lines[place])

    def __iter__(self) -> Iterator[Entry]:
        return (self[place] for place in range(len(self)))

    def hashes(self) -> np.ndarray:
        """Returns (N,) int64: equal for equal keys, in this process."""
        return np.fromiter((hash(entry.key) for entry in self), np.int64, len(self))

    def places_in(self, folder: int) -> np.ndarray:
        """Returns the places of the rows whose image lies in a folder, by its number."""
        return np.flatnonzero(np.frombuffer(self._folder, np.uint16) == folder)


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
