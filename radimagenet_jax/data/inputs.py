"""Images to be scored: finds them where a person says, and reads them as training does.

`find` takes a folder, a pattern, a file or a table; nothing that it finds is passed over: a file is
an entry to be read, a failure with a reason, or counted among what is no image. `read` gives an
entry's images, one a frame, by the code that prepares data sets, under the keys that training has.
"""

import glob
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from radimagenet_jax.data import formats
from radimagenet_jax.data.dicom_signature import is_dicom
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import (
    FileState,
    SourceFile,
    list_files,
    one_of_equals,
    plain_text,
    zip_members,
)
from radimagenet_jax.data.splits import by_path
from radimagenet_jax.data.tables import Row
from radimagenet_jax.errors import DataError, escaped
from radimagenet_jax.files import expanded

if TYPE_CHECKING:
    import numpy as np

    from radimagenet_jax.data.dicom import Window
    from radimagenet_jax.data.image_table import NamedImage

# What is taken for an image by its name; any other file is looked into.
_SUFFIXES = (*chain(*formats.SUFFIXES.values()), *formats.DICOM_SUFFIXES)
# Images that are not read: each of them is a failure that says so, not a file that is no image.
_UNREAD = (".gif", ".webp", ".jp2", ".heic", ".heif", ".avif", ".nii", ".nii.gz", ".nrrd", ".mha")
_SIGNATURES = (formats.PNG, formats.JPEG, *formats.TIFF)
_START = 4096
# The index that media of DICOM files carry beside them (PS3.10 8.6); it has no pixels.
_INDEX = "DICOMDIR"
# Frames that are read of a file at a time.
FRAMES = 16


@dataclass(frozen=True)
class Reading:
    """How DICOM files are shown whose table does not say; see `dicom.decode_dicom`.

    Attributes:
      windows: None for the file's own, one, or three.
      unwrap: Make negative again what wrapped around at 12 bits.
      note: What a person should know of it, '' for nothing.
    """

    windows: "tuple[Window, ...]" = ()
    unwrap: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or one frame of it, that is to be read.

    Attributes:
      key: Of its only image; the images of a file of several frames are `<key>#0` and so on.
      file: The file.
      row: Of the table that names it, None without one.
      frame: The frame that the table chooses.
      window: The window that the table chooses.
      label: Of the table, '' where it has none.
      patient: Of the table, '' where it has none or a DICOM file's own is unknown.
    """

    key: str
    file: SourceFile
    row: Row | None = None
    frame: int | None = None
    window: "Window | None" = None
    label: str = ""
    patient: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that was found and cannot be read.

    Attributes:
      key: As the image's would be, '' where that is not known.
      path: The file.
      problem: A sentence.
    """

    key: str
    path: str
    problem: str


@dataclass
class Found:
    """What is there.

    Attributes:
      entries: To be read, in the order of their keys, or of the table's rows.
      failures: What cannot be read.
      others: How many files are no images, by kind, such as '.txt'.
      table: The table, None without one.
      columns: What it says of each image, of 'label' and 'patient'.
      notes: Sentences that must be read with figures of these images.
    """

    entries: list[Entry] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    table: Path | None = None
    columns: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def digest(self) -> str:
        """Tells these files, their states and what a table says of them from any others."""
        sha = hashlib.sha256()
        states: dict[Path, Any] = {}
        for one in self.entries:
            place = one.file.location
            if place not in states:
                try:
                    state = FileState.of(place)
                    states[place] = state.size, state.modified_ns
                except OSError:
                    states[place] = None
            described = (one.key, str(place), one.file.member, states[place], one.frame)
            sha.update(repr((*described, one.window, one.label, one.patient)).encode() + b"\n")
        for failure in self.failures:
            sha.update(repr(failure).encode() + b"\n")
        return sha.hexdigest()


@dataclass(frozen=True, slots=True)
class Part:
    """Some of an entry's images.

    Attributes:
      images: Key to the image (S, S, 1 or 3) uint8, or to why it cannot be read.
      frames: How many images the entry has in all.
    """

    images: "dict[str, np.ndarray | DataError]"
    frames: int


def find(inputs: str, *, split: str = "", leave_out: Path | None = None, flag: str = "") -> Found:
    """Finds images.

    Args:
      inputs: A folder, searched with its subfolders and zips; a file or a zip; a glob pattern,
        whose files are taken and whose folders are searched; or a table, a CSV file with a column
        `filename` and, perhaps, more of `image_table`.
      split: Take only a table's rows of this split: 'train', 'val' or 'test'.
      leave_out: A folder that is not searched, such as the one that results go to.
      flag: Of the command that gave the inputs, for messages.

    Returns:
      All that is there.

    Raises:
      DataError: If there is no image, or the table cannot be read.
    """
    place = expanded(inputs)
    if place.is_file() and place.suffix.lower() == ".csv":
        return _of_table(place, split)
    if split:
        raise DataError(
            f"--split={split} chooses rows of a table's column split; give a table as --inputs."
        )
    refused: dict[Path, DataError] = {}
    if place.is_dir():
        files = list(list_files(place, refused))
    elif place.is_file():
        files = _below(place.parent, place, refused)
    else:
        # Folders that are there are meant as they are, whatever wildcards are in their names.
        root = next(parent for parent in place.parents if parent.is_dir())
        pattern = str(place.relative_to(root))
        matches = sorted(glob.glob(pattern, root_dir=root, recursive=True))
        # A pattern such as '**' matches a folder and what is in it.
        files = [
            *{(file.location, file.member): file for match in matches
              for file in _below(root, root / match, refused)}.values()
        ]  # fmt: skip
    if leave_out is not None:
        own = leave_out.resolve()
        files = [file for file in files if own not in file.location.resolve().parents]
    found = Found(failures=[Failure("", str(path), str(why)) for path, why in refused.items()])
    is_one = place.is_file() and place.suffix.lower() != ".zip"
    for path, copies in by_path(files).items():
        _note(found, str(path), copies, is_image=is_one)
    found.entries.sort(key=lambda entry: entry.key)
    if not found.entries and not found.failures:
        raise DataError(_nothing(f"{flag}={inputs}" if flag else inputs, place, found))
    return found


def _below(root: Path, place: Path, refused: dict[Path, DataError]) -> list[SourceFile]:
    """Returns a file, the files in a folder, or a zip's members, with paths from the root."""
    if place.is_dir():
        prefix = PurePosixPath(plain_text(place.relative_to(root).as_posix()))
        return [
            SourceFile(prefix / file.path, file.shown, file.location, file.member)
            for file in list_files(place, refused)
        ]
    if place.suffix.lower() == ".zip":
        try:
            return [*zip_members(place, root=root)]
        except DataError as error:
            refused[place] = error
            return []
    path = PurePosixPath(plain_text(place.relative_to(root).as_posix()))
    return [SourceFile(path, escaped(str(place)), place)]


def _note(found: Found, key: str, copies: Sequence[SourceFile], *, is_image: bool) -> None:
    """Adds what is at one path, in a folder and perhaps in a zip of its name, to what was found."""
    kind = None if is_image else _kind(copies[0])
    if kind is not None:
        found.others[kind] += len(copies)
        return
    try:
        found.entries.append(Entry(key, one_of_equals(copies, key)))
    except DataError as error:
        found.failures.append(Failure(key, copies[0].shown, str(error)))


def _kind(file: SourceFile) -> str | None:
    """Returns what a file is that is no image, None for images and what cannot be opened."""
    name = file.name.lower()
    if name.endswith((*_SUFFIXES, *_UNREAD)):
        return None
    if name == _INDEX.lower():
        return _INDEX
    try:
        with file.open() as stream:
            start = stream.read(_START)
    except DataError:
        return None  # reading it again will say why
    if start.startswith(_SIGNATURES) or is_dicom(start):
        return None
    return file.path.suffix.lower() or "file without a suffix"


def described(others: Mapping[str, int]) -> str:
    """Returns what is no image in words, such as '3 .txt, 1 .csv'."""
    most = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {kind}" for kind, count in most[:5]]
    rest = sum(count for _, count in most[5:])
    return ", ".join([*shown, f"{rest:,} of other kinds"] if rest else shown)


def _nothing(given: str, place: Path, found: Found) -> str:
    there = f" ({described(found.others)})" if found.others else ""
    if not there and place.is_dir():
        there = " (it is empty)"
    return (
        f"{given}: no image there{there}; give a folder with PNG, JPEG, BMP, TIFF or "
        "DICOM files, a quoted pattern such as 'ct/*.png', or a table such as labels.csv."
    )


class _BadRows(Problems):
    """Takes rows of a table that cannot be used."""

    def __init__(self, table: Path, failures: list[Failure]):
        super().__init__(table)
        self._path, self._failures = str(table), failures

    def add(self, sentence: str) -> None:
        super().add(sentence)
        self._failures.append(Failure("", self._path, sentence))


def _of_table(path: Path, split: str) -> Found:
    # A folder of pictures needs neither tables nor pydicom.
    from radimagenet_jax.data.image_table import ImageTable, patients_of, split_of

    refused: dict[Path, DataError] = {}
    files = list_files(path.parent, refused)
    table = ImageTable(SourceFile.at(path), files, ("filename",))
    found = Found(table=path)
    if split and "split" not in table.header:
        raise DataError(f"{path} has no column split; leave out --split={split}, or add one.")
    named: list[NamedImage] = []
    splits: Counter[str] = Counter()
    for row in table.rows(_BadRows(path, found.failures)):
        try:
            if split and split_of(row) != split:
                continue
            named.append(table.named(row))
            splits[row.values.get("split", "").lower()] += 1
        except DataError as error:
            frame = row.values.get("frame")
            key = f"{row['filename']}#{frame}" if frame else row["filename"]
            found.failures.append(Failure(key, str(path.parent / row["filename"]), str(error)))
    if found.failures:  # a row may be bad because its zip is
        found.failures += [Failure("", str(place), str(why)) for place, why in refused.items()]
    if not named and not found.failures:
        raise DataError(f"{path} has no row of the split {split}; give another --split.")
    has_patients, has_labels = "patient" in table.header, "label" in table.header
    patients: Mapping[str, str] = {}
    if has_patients or has_labels:
        patients, _, notes = patients_of(named, are_stated=has_patients)
        found.notes += notes
        found.columns = ("label", "patient") if has_labels else ("patient",)
    if has_labels and not split and any(name.startswith(("train", "val")) for name in splits):
        found.notes.append(
            f"The rows of all splits of {path.name} are scored. A network that has learnt from "
            "some of them looks better than it is: --split=test leaves them out."
        )
    found.entries = [
        Entry(
            one.key, one.file, one.row, one.frame, one.window, one.label, patients.get(one.key, "")
        )
        for one in named
    ]
    return found


def read(entry: Entry, image_size: int, reading: Reading = Reading(), *, first: int = 0) -> Part:
    """Reads an entry's images: verified, decoded and resized as in a prepared data set.

    Args:
      entry: What to read.
      image_size: Side S of the images in pixels.
      reading: How DICOM files are shown that the table gives no window.
      first: The frame to begin with, of a file with several; up to `FRAMES` are read.

    Returns:
      The images; what is wrong with one is in its place.
    """
    from radimagenet_jax.data.images import resize_nearest
    from radimagenet_jax.data.own_images import ImageFile

    try:
        file = ImageFile(entry.file.read(), name=entry.file.shown)
        # A table's row means one image.
        frames = file.count_frames() if entry.row is None else 1
    except DataError as error:
        return Part({entry.key: _told(entry, error)}, 1)
    windows = reading.windows if file.takes_windows else ()
    if entry.window is not None:
        windows = (entry.window,)
    images: dict[str, np.ndarray | DataError] = {}
    for frame in range(first, min(first + FRAMES, frames)):
        key = entry.key if frames == 1 else f"{entry.key}#{frame}"
        chosen = entry.frame if frames == 1 else frame
        try:
            image = file.image(windows=windows, frame=chosen, unwrap=reading.unwrap)
            images[key] = resize_nearest(image, image_size)
        except DataError as error:
            images[key] = _told(entry, error)
    return Part(images, frames)


def _told(entry: Entry, error: DataError) -> DataError:
    return error if entry.row is None else entry.row.error(str(error))
