"""Tables that name images: a CSV beside the files, with a row an image.

The columns are `filename` and, where they are there, `label`, `patient`, `split`, `mask`, `frame`,
`window_center` and `window_width`. The data set `image_csv` is prepared from such a table, and
`predict` scores the images of one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from radimagenet_jax.data.dicom import Window, header_of, pseudonym
from radimagenet_jax.data.patients import known_patients
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, one_of_equals
from radimagenet_jax.data.splits import by_path, relative_path
from radimagenet_jax.data.tables import Row, iterate_csv
from radimagenet_jax.errors import DataError

COLUMNS = ("filename", "label")
# What people write, and what it means here.
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# Enough of a DICOM file to hold all that comes before its pixels.
_HEADER_BYTES = 2**20
# A file has far fewer frames than a number of so many digits says.
_MOST_DIGITS = 9
# Groups are never written, so nobody can try patient numbers against them.
_GROUP_SALT = "image_csv"


@dataclass(frozen=True)
class NamedImage:
    """A good row of a table, with the files that it names.

    Attributes:
      row: The row.
      key: The filename, with `#<frame>` where the row names one.
      label: Its class, '' where the table has none.
      split: 'train', 'val' or 'test', '' where it was not asked for.
      file: The image.
      mask: The image of its lesion, None without one.
      window: In place of a DICOM file's own, None for that.
      frame: From 0; None for files with a single one.
    """

    row: Row
    key: str
    label: str
    split: str
    file: SourceFile
    mask: SourceFile | None
    window: Window | None
    frame: int | None


class ImageTable:
    """A table and the files that it may name.

    Attributes:
      file: The CSV file.
      header: Its columns.
    """

    def __init__(self, file: SourceFile, files: Sequence[SourceFile], required: Sequence[str]):
        """Reads the header.

        Args:
          file: The CSV file.
          files: All files that rows may name; paths are relative to the table's folder.
          required: Columns that must be there and filled.

        Raises:
          DataError: If the table cannot be read or lacks a required column.
        """
        self.file = file
        self._required = required
        self._files = by_path(files)
        self._names: dict[str, list[str]] = {}
        for path in self._files:
            self._names.setdefault(path.stem.lower(), []).append(str(path))
        self._before: dict[str, Row] = {}
        first = next(iterate_csv(file, required, Problems(file.shown)), None)
        self.header = frozenset(first.values if first else ())

    def rows(self, problems: Problems) -> Iterator[Row]:
        """Yields the rows that have all fields; see `tables.iterate_csv`."""
        return iterate_csv(self.file, self._required, problems)

    def named(self, row: Row, *, with_split: bool = False) -> NamedImage:
        """Returns what a row names; each row is asked for once, in the table's order.

        Args:
          row: One of `rows`.
          with_split: Read the column split, which is there.

        Raises:
          DataError: If a value is senseless, a file is not there, or the image was listed before.
        """
        path = relative_path(row, "filename")
        frame = _whole_number(row, "frame")
        key = str(path) if frame is None else f"{path}#{frame}"
        first = self._before.setdefault(key, row)
        if first is not row:
            same = "the same label" if label_of(first) == label_of(row) else "another label"
            raise row.error(
                f"'{key}' is listed before, in row {first.number}, with {same}; keep one."
            )
        file = self._find(row, "filename", path)
        mask = None
        if row.values.get("mask"):
            mask = self._find(row, "mask", relative_path(row, "mask"))
        split = split_of(row) if with_split else ""
        return NamedImage(row, key, label_of(row), split, file, mask, _window(row), frame)

    def _find(self, row: Row, column: str, path: PurePosixPath) -> SourceFile:
        if found := self._files.get(path):
            return one_of_equals(found, str(path))
        similar = [name for name in self._names.get(path.stem.lower(), []) if name[-4:] != ".csv"]
        hint = f" (did you mean '{similar[0]}'?)" if similar else ""
        raise row.error(
            f"the {column} '{path}' is not in the folder of {row.file.name}{hint}; put it there, "
            "mend the row or remove it."
        )


def label_of(row: Row) -> str:
    """Returns the label, '' without one; spaces of all kinds and lengths look alike, and are."""
    return " ".join(row.values.get("label", "").split())


def split_of(row: Row) -> str:
    """Returns the split.

    Raises:
      DataError: If it is unknown.
    """
    split = SPLIT_NAMES.get(row["split"].lower())
    if split is None:
        raise row.error(f"the split '{row['split']}' is unknown; use train, val or test.")
    return split


def _whole_number(row: Row, column: str) -> int | None:
    text = row.values.get(column, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise row.error(f"the {column} '{text[:40]}' is no whole number; count from 0.")
    if len(text) > _MOST_DIGITS:
        raise row.error(f"the {column} has {len(text):,} digits, and no file so many; mend it.")
    return int(text)


def _window(row: Row) -> Window | None:
    center, width = row.values.get("window_center", ""), row.values.get("window_width", "")
    if not center and not width:
        return None
    try:
        return Window(float(center), float(width))
    except (ValueError, DataError) as error:
        raise row.error(
            f"the window_center '{center}' and window_width '{width}' are no window; give two "
            "numbers such as 40 and 80, or leave both empty."
        ) from error


def patients_of(
    images: Sequence[NamedImage], *, are_stated: bool
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Returns each image's patient, what must stay in one split, by key, and notes.

    Without a column, images of one DICOM PatientID stay together. The records get a number in its
    place, in the order of the keys, which nobody can trace back.

    Args:
      images: Of a table.
      are_stated: Whether the table has a column patient.
    """
    if are_stated:
        named = {one.key: one.row["patient"] for one in images}
        patients, notes = known_patients(named, source="the column patient", are_stated=True)
    else:
        in_order = sorted(images, key=lambda one: one.key)
        headers = {one.key: header_of(one.file, beginning=_HEADER_BYTES) for one in in_order}
        stated = {key: header.patient for key, header in headers.items() if header is not None}
        found, notes = known_patients(stated, source="PatientID (0010,0020)", are_stated=False)
        numbers: dict[str, int] = {}
        patients = {}
        for key in headers:
            name = found.get(key, "")
            own = pseudonym(name, _GROUP_SALT) if name else ""
            number = numbers.setdefault(own, len(numbers) + 1) if own else 0
            patients[key] = f"patient-{number:05}" if own else ""
    # A file that holds several frames has one patient, named or not.
    return patients, {one.key: patients[one.key] or str(one.file.path) for one in images}, notes
