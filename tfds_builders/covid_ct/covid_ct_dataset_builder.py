"""COVID-CT (Zhao et al. 2020) as a TensorFlow Datasets builder that needs no TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from radimagenet_jax.data.fold_builder import examples_of_rows
from radimagenet_jax.data.image_builder import Example, ImageBuilder, verified
from radimagenet_jax.data.patients import known_patients
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, grouped, list_files, named, one_of_equals
from radimagenet_jax.data.splits import SPLITS, by_path, find_image, find_tables, read_tables
from radimagenet_jax.data.tables import read_csv, read_lines
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
        "[covid19_]train.csv, val.csv and test.csv (header ',filename,label') and their images "
        "instead"
    )
    # Images a split, by configuration.
    EXPECTED: ClassVar[dict[str, dict[str, int]]] = {
        "official": {"train": 425, "val": 118, "test": 203},
    }
    HOMEPAGE = "https://github.com/UCSD-AI4H/COVID-CT"

    def class_names(self) -> Sequence[str]:
        return CLASS_NAMES

    def find_examples(self, root: Path, problems: Problems) -> dict[str, list[Example]]:
        files = list_files(root)
        if self.builder_config.name == "official":
            return _official_splits(root, files, problems, self.notes)
        return _csv_splits(root, files, problems)


def _official_splits(
    root: Path, files: tuple[SourceFile, ...], problems: Problems, notes: list[str]
) -> dict[str, list[Example]]:
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for kind in OFFICIAL_CLASSES:
        patients, unknown = known_patients(
            _patients(_only(root, files, kind.table), kind),
            source=f"the column {kind.patient_column} of {kind.table}",
            are_stated=True,
        )
        notes += unknown
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
                    file = one_of_equals(images[name], name)
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
    return grouped(own, lambda file: _as_in_folder(file.name))


def _as_in_folder(name: str) -> str:
    """Returns the name a file has on disk: the lists write '%' where names have '_'."""
    return name.replace("%", "_")


def _only(root: Path, files: tuple[SourceFile, ...], name: str) -> SourceFile:
    if (found := named(files, name)) is None:
        raise DataError(
            f"{root} has no {name} in any folder; {Builder.MANUAL_DOWNLOAD_INSTRUCTIONS}."
        )
    return found


def _csv_splits(
    root: Path, files: tuple[SourceFile, ...], problems: Problems
) -> dict[str, list[Example]]:
    # The published scripts' own names, which say what they are of, go before plain ones.
    prefix = "covid19_" if any(file.name == "covid19_train.csv" for file in files) else ""
    names = {split: f"{prefix}{split}.csv" for split in SPLITS}
    for name in names.values():
        if all(file.name != name for file in files):
            raise DataError(
                f"{root} has no {name}; put {', '.join(names.values())} there, each with the "
                "header ',filename,label', beside the images."
            )
    tables = find_tables(root, files, names)
    images = by_path(files)
    return examples_of_rows(
        read_tables(tables or {}, CLASS_NAMES, problems),
        lambda row: Example(row.key, row.label, verified(find_image(row, images))),
        problems,
    )
