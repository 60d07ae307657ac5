"""Anybody's own images as a TensorFlow Datasets builder: a folder, and a CSV that names them."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from radimagenet_jax.data.dicom import Window, is_dicom, pseudonym, read_header
from radimagenet_jax.data.fold_builder import FoldConfig, lopsided, stand_in_examples
from radimagenet_jax.data.image_builder import Example, ImageBuilder
from radimagenet_jax.data.images import decode
from radimagenet_jax.data.masks import NO_MASK, encode_mask, mask_feature, read_mask
from radimagenet_jax.data.patients import known_patients
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, list_files, one_of_equals
from radimagenet_jax.data.splits import FOLDS, SPLITS, by_path, fold_of, relative_path
from radimagenet_jax.data.tables import Row, iterate_csv
from radimagenet_jax.errors import DataError
from tfds_builders.image_csv.own_images import readable_image

TABLE = "labels.csv"
COLUMNS = ("filename", "label")
# What people write, and what it means here.
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FOLD = re.compile(r"(.+)_fold(\d+)")
# Enough of a DICOM file to hold all that comes before its pixels.
_HEADER_BYTES = 2**20
# A file has far fewer frames than a number of so many digits says.
_MOST_DIGITS = 9
# Groups are never written, so nobody can try patient numbers against them.
_GROUP_SALT = "image_csv"


@dataclass(kw_only=True)
class Config(FoldConfig):
    """One folder of images; its fold 0 is the table's own split, or fold 1 without one.

    Attributes:
      folder: Its name, in `<data_dir>/downloads/manual/image_csv/`.
      class_names: The labels of its table, in alphabetical order.
    """

    folder: str
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Wanted:
    """A good row of the table, with the files that it names."""

    row: Row
    key: str
    split: str
    file: SourceFile
    mask: SourceFile | None
    window: Window | None
    frame: int | None

    def read(self) -> Mapping[str, Any]:
        """Returns the features `image` and `mask`."""
        try:
            encoded = readable_image(
                self.file.read(), name=self.file.shown, window=self.window, frame=self.frame
            )
            if self.mask is None:
                return {"image": encoded, "mask": NO_MASK}
            shape = decode(encoded, name=self.file.shown).shape
            mask = read_mask(self.mask.read(), name=self.mask.shown, shape=(shape[0], shape[1]))
            return {"image": encoded, "mask": encode_mask(mask)}
        except DataError as error:
            raise self.row.error(str(error)) from error


class Builder(ImageBuilder):
    """A folder of images with a CSV; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[Config]] = []
    TERMS = "your own data: its owners' and patients' consent decides what it may be used for."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "put your images there, in a folder with a name of your choice, beside a labels.csv with "
        "the columns filename,label and, where you know them, patient,split,mask; then name it "
        "image_csv/<folder>"
    )
    # The user's table decides, whatever the configuration is called.
    HOMEPAGE = ""

    @classmethod
    def config_of_folder(cls, name: str, data_dir: Path) -> Config:
        """Returns the configuration for one of the user's folders.

        The classes are those of the prepared data set where there is one, whether or not the
        source still exists; else those of the folder's table.

        Args:
          name: `<folder>` or `<folder>_fold<n>`; the whole name is a folder's first.
          data_dir: The TFDS data directory.

        Raises:
          DataError: If there is no such folder, or no table in it that can be read.
        """
        manual = data_dir / "downloads" / "manual" / "image_csv"
        if not _NAME.fullmatch(name):
            there = sorted(path.name for path in manual.glob("*") if path.is_dir())
            known = f"; there are {', '.join(there)}" if there else ""
            raise DataError(
                f"'image_csv/{name}' does not name your data: write image_csv/<folder>, where "
                f"<folder> is in {manual} and has letters, digits, - and _ only{known}."
            )
        folder, fold = name, 0
        match = _FOLD.fullmatch(name)
        if match and not (manual / name).is_dir():
            folder, fold = match[1], int(match[2])
            if not 1 <= fold <= FOLDS:
                raise DataError(
                    f"'image_csv/{name}': there is no fold {fold}; choose one of 1 to {FOLDS}."
                )
        prepared = data_dir / "image_csv" / name / str(cls.VERSION) / "label.labels.txt"
        if prepared.is_file():
            classes = prepared.read_text(encoding="utf-8").splitlines()
        else:
            classes = _class_names(manual / folder)
        return Config(
            name=name,
            folder=folder,
            fold=fold,
            class_names=tuple(classes),
            description=f"The images of the folder {folder}.",
        )

    def class_names(self) -> Sequence[str]:
        return self.builder_config.class_names

    def extra_features(self) -> dict[str, Any]:
        return {"mask": mask_feature()}

    def find_examples(self, root: Path, problems: Problems) -> dict[str, list[Example]]:
        config = self.builder_config
        folder = root / config.folder
        problems.source = folder
        files = list_files(folder)
        table = _find_table(folder, files)
        header = set(next(iterate_csv(table, COLUMNS, Problems(folder))).values)
        wanted = list(_read_table(table, by_path(files), header, problems))
        _check_labels(table, wanted, problems)
        if "split" in header:
            if config.fold:
                problems.add(
                    f"{table.shown} has a column split, which leaves no fold {config.fold} to "
                    "choose; leave out the fold, or remove the column."
                )
            _check_splits(table, wanted, problems)
        # The rest would only repeat what follows from a row that was left out.
        problems.check()
        patients, groups, notes = _patients(wanted, "patient" in header)
        self.notes += notes
        examples = [
            Example(one.key, _label(one.row), one.read, patient=patients[one.key]) for one in wanted
        ]
        if "split" in header:
            splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
            for one, example in zip(wanted, examples, strict=True):
                splits[one.split].append(example)
            return splits
        fold = config.fold or 1
        self.notes.append(
            f"{table.name} has no column split: "
            f"{fold_of(fold, 'patient' if any(patients.values()) else 'image')}, stands in for it."
        )
        try:
            divided = stand_in_examples(examples, fold, groups=groups)
        except DataError as error:
            raise DataError(f"{table.shown}: {error}") from error
        self.notes += lopsided(divided, groups)
        return divided


def _class_names(folder: Path) -> list[str]:
    """Returns the labels of a folder's table; rows that are bad are told when it is prepared."""
    if not folder.is_dir():
        others = sorted(path.name for path in folder.parent.glob("*") if path.is_dir())
        there = f" (there are {', '.join(others)})" if others else ""
        raise DataError(
            f"the data set 'image_csv/{folder.name}' is not in {folder}{there}: put your images "
            f"there beside a {TABLE} with the columns filename,label and, where you know them, "
            "patient,split,mask; a link to a folder elsewhere will do."
        )
    table = _find_table(folder, _tables(folder))
    rows = iterate_csv(table, COLUMNS, Problems(folder))
    labels = sorted({_label(row) for row in rows})
    if not labels:
        raise DataError(
            f"{table.shown} has no row with as many fields as its header, a filename and a label; "
            "mend its rows."
        )
    return labels


def _tables(folder: Path) -> list[SourceFile]:
    return [
        SourceFile(PurePosixPath(path.name), str(path), path)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".csv" and not path.name.startswith(".")
    ]


def _find_table(folder: Path, files: Sequence[SourceFile]) -> SourceFile:
    tables = [
        file for file in files if len(file.path.parts) == 1 and file.path.suffix.lower() == ".csv"
    ]
    named = [file for file in tables if file.name == TABLE]
    if named:
        return named[0]
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise DataError(
            f"{folder} has {len(tables)} CSV files ({', '.join(file.name for file in tables)}); "
            f"call the one with filename and label {TABLE}."
        )
    raise DataError(
        f"{folder} has no {TABLE}; write one with a line filename,label and a line for each image, "
        "such as images/1.png,benign."
    )


def _read_table(
    table: SourceFile,
    files: Mapping[PurePosixPath, Sequence[SourceFile]],
    header: set[str],
    problems: Problems,
) -> Iterator[_Wanted]:
    before: dict[str, Row] = {}
    names: dict[str, list[str]] = {}
    for path in files:
        names.setdefault(path.stem.lower(), []).append(str(path))
    for row in iterate_csv(table, COLUMNS, problems):
        with problems.collecting():
            path = relative_path(row, "filename")
            frame = _whole_number(row, "frame")
            key = str(path) if frame is None else f"{path}#{frame}"
            first = before.setdefault(key, row)
            if first is not row:
                same = "the same label" if _label(first) == _label(row) else "another label"
                raise row.error(
                    f"'{key}' is listed before, in row {first.number}, with {same}; keep one."
                )
            file = _find(row, "filename", path, files, names)
            mask = None
            if row.values.get("mask"):
                mask = _find(row, "mask", relative_path(row, "mask"), files, names)
            split = _split(row) if "split" in header else ""
            yield _Wanted(row, key, split, file, mask, _window(row), frame)


def _find(
    row: Row,
    column: str,
    path: PurePosixPath,
    files: Mapping[PurePosixPath, Sequence[SourceFile]],
    names: Mapping[str, Sequence[str]],
) -> SourceFile:
    if found := files.get(path):
        return one_of_equals(found, str(path))
    similar = [name for name in names.get(path.stem.lower(), []) if not name.endswith(".csv")]
    hint = f" (did you mean '{similar[0]}'?)" if similar else ""
    raise row.error(
        f"the {column} '{path}' is not in the folder of {row.file.name}{hint}; put it there, mend "
        "the row or remove it."
    )


def _label(row: Row) -> str:
    """Returns the label; spaces of all kinds and lengths look alike, and are."""
    return " ".join(row["label"].split())


def _split(row: Row) -> str:
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


def _check_labels(table: SourceFile, wanted: Sequence[_Wanted], problems: Problems) -> None:
    labels = sorted({_label(one.row) for one in wanted})
    # A row that was left out may be the one of another class.
    if len(labels) == 1 and not problems.count:
        problems.add(
            f"{table.shown} has only rows of the class '{labels[0]}', so nothing can be learnt or "
            "measured; add images of another class."
        )
    spelled: dict[str, str] = {}
    for label in labels:
        other = spelled.setdefault(label.lower(), label)
        if other != label:
            problems.add(
                f"{table.shown} has the labels '{other}' and '{label}', which differ only in upper "
                "and lower case; spell them alike."
            )


def _check_splits(table: SourceFile, wanted: Sequence[_Wanted], problems: Problems) -> None:
    if problems.count:  # rows that were left out may be the ones that seem to be missing
        return
    counts = Counter((one.split, _label(one.row)) for one in wanted)
    labels = sorted({_label(one.row) for one in wanted})
    for split in SPLITS:
        missing = [label for label in labels if not counts[split, label]]
        # Rare classes of many may be missing where nothing is learnt; the figures say so.
        everything = len(missing) == len(labels)
        if everything or (missing and (split == "train" or len(labels) == 2)):
            what = "any class" if everything else f"the class '{missing[0]}'"
            problems.add(
                f"{table.shown} has no row of {what} in the split {split}; add some, or remove the "
                "column split to have the images divided for you."
            )


def _patients(
    wanted: Sequence[_Wanted], has_column: bool
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Returns each example's patient, what must stay in one split, by key, and notes.

    Without a column, images of one DICOM PatientID stay together. The records get a number in its
    place, in the order of the keys, which nobody can trace back.
    """
    if has_column:
        named = {one.key: one.row["patient"] for one in wanted}
        patients, notes = known_patients(named, source="the column patient", are_stated=True)
    else:
        headers = {one.key: _patient_id(one.file) for one in sorted(wanted, key=lambda o: o.key)}
        stated = {key: name for key, name in headers.items() if name is not None}
        found, notes = known_patients(stated, source="PatientID (0010,0020)", are_stated=False)
        numbers: dict[str, int] = {}
        patients = {}
        for key in headers:
            name = found.get(key, "")
            own = pseudonym(name, _GROUP_SALT) if name else ""
            number = numbers.setdefault(own, len(numbers) + 1) if own else 0
            patients[key] = f"patient-{number:05}" if own else ""
    # A file that holds several frames has one patient, named or not.
    return patients, {one.key: patients[one.key] or str(one.file.path) for one in wanted}, notes


def _patient_id(file: SourceFile) -> str | None:
    """Returns a DICOM file's PatientID, None for other files and where it cannot be read.

    An image that cannot be read is told of when its pixels are.
    """
    try:
        with file.open() as stream:
            start = stream.read(_HEADER_BYTES)
            if not is_dicom(start):
                return None
            try:
                return read_header(start, name=file.shown).patient
            except DataError:
                return read_header(start + stream.read(), name=file.shown).patient
    except DataError:
        return None
