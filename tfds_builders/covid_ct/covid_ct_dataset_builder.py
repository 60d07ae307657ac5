"""COVID-CT (Zhao et al. 2020) as a TensorFlow Datasets builder that needs no TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

import tensorflow_datasets as tfds

from radimagenet_jax.data.image_builder import SPLITS, Example, ImageBuilder, verified
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import (
    Row,
    SourceFile,
    list_files,
    read_csv,
    read_lines,
)
from radimagenet_jax.errors import DataError

CLASS_NAMES = ("negative", "positive")


@dataclass(frozen=True)
class _OfficialClass:
    """What the owners call one class's files and columns."""

    label: str
    suffix: str  # of the split files, and of the folder or zip of images
    table: str
    image_column: str
    patient_column: str

    @property
    def folder(self) -> str:
        return f"CT_{self.suffix}"


OFFICIAL_CLASSES = (
    _OfficialClass("positive", "COVID", "COVID-CT-MetaInfo.csv", "File name", "Patient ID"),
    _OfficialClass("negative", "NonCOVID", "NonCOVID-CT-MetaInfo.csv", "image name", "patient id"),
)


class Builder(ImageBuilder):
    """Chest CT slices, COVID-19 or not; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(
            name="official", description="COVID-CT as published, with the owners' split."
        ),
        tfds.core.BuilderConfig(
            name="covid19_csv",
            description="Images described by train.csv, val.csv and test.csv (,filename,label).",
        ),
    ]
    TERMS = (
        "COVID-CT is offered for research; its pictures come from publications whose authors and "
        "publishers keep their rights (https://github.com/UCSD-AI4H/COVID-CT)."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "download https://github.com/UCSD-AI4H/COVID-CT and put its Data-split folder, "
        "COVID-CT-MetaInfo.csv, NonCOVID-CT-MetaInfo.csv and Images-processed (CT_COVID.zip and "
        "CT_NonCOVID.zip, packed or unpacked) there; the configuration covid19_csv reads your own "
        "train.csv, val.csv and test.csv (header ',filename,label') and their images instead"
    )
    # Images a split, by configuration; None where the user's own tables decide.
    EXPECTED: ClassVar[dict[str, dict[str, int] | None]] = {
        "official": {"train": 425, "val": 118, "test": 203},
        "covid19_csv": None,
    }
    HOMEPAGE = "https://github.com/UCSD-AI4H/COVID-CT"

    def class_names(self) -> Sequence[str]:
        """See `ImageBuilder`."""
        return CLASS_NAMES

    def find_examples(self, root: Path, problems: Problems) -> dict[str, list[Example]]:
        """See `ImageBuilder`."""
        files = list_files(root)
        if self.builder_config.name == "official":
            return _official_splits(root, files, problems)
        return _csv_splits(root, files, problems)


def _official_splits(
    root: Path, files: tuple[SourceFile, ...], problems: Problems
) -> dict[str, list[Example]]:
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for kind in OFFICIAL_CLASSES:
        patients = _patients(_only(root, files, kind.table), kind)
        images = _images_of_class(files, kind)
        listed: dict[str, str] = {}
        for split in SPLITS:
            listing = _only(root, files, f"{split}CT_{kind.suffix}.txt")
            for number, line in read_lines(listing):
                with problems.collecting():
                    name = _as_in_folder(line)
                    where = f"{listing.shown}, line {number}"
                    if name in listed:
                        raise DataError(
                            f"{where}: '{line}' is listed before, in {listed[name]}; "
                            "download Data-split again."
                        )
                    listed[name] = where
                    if name not in images:
                        raise DataError(
                            f"{where}: the image '{name}' of the split is not in {kind.folder} "
                            f"below {root}; download or unpack {kind.folder}.zip again."
                        )
                    if name not in patients:
                        raise DataError(
                            f"{where}: '{line}' has no row in {kind.table}; download it again."
                        )
                    key = f"{kind.folder}/{name}"
                    file = _one_of_equals(images[name], name)
                    splits[split].append(Example(key, kind.label, verified(file), patients[name]))
    return splits


def _patients(table: SourceFile, kind: _OfficialClass) -> dict[str, str]:
    """Returns the patient of each image, by the image's name in its folder."""
    patients: dict[str, str] = {}
    for row in read_csv(table, [kind.image_column, kind.patient_column]):
        name = _as_in_folder(row[kind.image_column])
        patient = row[kind.patient_column]
        if patients.setdefault(name, patient) != patient:
            raise row.error(
                f"'{name}' belongs to '{patient}' here and to '{patients[name]}' before; "
                "download the table again."
            )
    return patients


def _images_of_class(
    files: tuple[SourceFile, ...], kind: _OfficialClass
) -> dict[str, list[SourceFile]]:
    """Returns the files of a class's folder or zip, by name, wherever that folder is nested."""
    own = [file for file in files if kind.folder in file.path.parts[:-1]]
    if not own:
        # Unpacked without their folders: names do not repeat across the two classes.
        other = {k.folder for k in OFFICIAL_CLASSES} - {kind.folder}
        own = [file for file in files if other.isdisjoint(file.path.parts)]
    images: dict[str, list[SourceFile]] = {}
    for file in own:
        images.setdefault(_as_in_folder(file.name), []).append(file)
    return images


def _as_in_folder(name: str) -> str:
    """Returns the name a file has on disk: the lists write '%' where names have '_'."""
    return name.replace("%", "_")


def _only(root: Path, files: tuple[SourceFile, ...], name: str) -> SourceFile:
    found = [file for file in files if file.name == name]
    if not found:
        raise DataError(
            f"{root} has no {name} in any folder; {Builder.MANUAL_DOWNLOAD_INSTRUCTIONS}."
        )
    return _one_of_equals(found, name)


def _one_of_equals(found: list[SourceFile], name: str) -> SourceFile:
    """Chooses among files of one name, which must not differ.

    An unpacked file goes before a zip's member: who keeps the zip beside the folder
    reads the folder, and old lists inside a zip do not disturb.
    """
    plain = [file for file in found if file.member is None] or found
    for other in plain[1:]:
        if other.read() != plain[0].read():
            raise DataError(
                f"'{name}' is there twice with different content, as {plain[0].shown} and as "
                f"{other.shown}; remove one."
            )
    return plain[0]


def _csv_splits(
    root: Path, files: tuple[SourceFile, ...], problems: Problems
) -> dict[str, list[Example]]:
    by_path: dict[PurePosixPath, list[SourceFile]] = {}
    for file in files:
        by_path.setdefault(file.path, []).append(file)
    splits: dict[str, list[Example]] = {}
    rows: dict[str, Row] = {}
    for split in SPLITS:
        name = f"{split}.csv"
        tables = [file for file in files if file.name == name]
        if not tables:
            raise DataError(
                f"{root} has no {name}; put train.csv, val.csv and test.csv there, each with the "
                "header ',filename,label', beside the images."
            )
        table = _one_of_equals(tables, name)
        splits[split] = []
        for row in read_csv(table, ["filename", "label"]):
            with problems.collecting():
                if row["label"] not in CLASS_NAMES:
                    raise row.error(
                        f"the label '{row['label']}' is unknown; use {' or '.join(CLASS_NAMES)}."
                    )
                path = PurePosixPath(row["filename"].replace("\\", "/"))
                if path.is_absolute() or ".." in path.parts:
                    raise row.error(
                        f"the filename '{row['filename']}' leaves the table's folder; make it "
                        "relative."
                    )
                key = str(path)
                if key in rows:
                    before = rows[key]
                    raise row.error(
                        f"'{key}' is listed before, in {before.file.name}, row {before.number}; "
                        "remove one of the two."
                    )
                rows[key] = row
                found = by_path.get(table.path.parent / path)
                if not found:
                    raise row.error(
                        f"the image '{key}' is not in the folder of {table.shown}; put it there or "
                        "remove the row."
                    )
                splits[split].append(
                    Example(key, row["label"], verified(_one_of_equals(found, key)))
                )
    return splits
