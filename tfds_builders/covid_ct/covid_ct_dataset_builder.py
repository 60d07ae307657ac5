"""COVID-CT (Zhao et al. 2020) as a TensorFlow Datasets builder that needs no TensorFlow."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from radimagenet_jax.data.source_files import (
    Row,
    SourceFile,
    dataset_folder,
    list_files,
    read_csv,
    read_images,
    read_lines,
)
from radimagenet_jax.errors import DataError

SPLITS = ("train", "val", "test")
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


@dataclass(frozen=True)
class _Example:
    key: str
    file: SourceFile
    label: str
    patient: str


class Builder(tfds.core.GeneratorBasedBuilder):
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
    # Threads that read and verify images.
    workers = 1

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(doc="The file's bytes as published."),
                    "label": tfds.features.ClassLabel(names=CLASS_NAMES),
                    "key": tfds.features.Text(doc="Unique and stable."),
                    "patient": tfds.features.Text(doc="The owners' pseudonym, or empty."),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/UCSD-AI4H/COVID-CT",
            license=self.TERMS,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        root = dataset_folder(Path(dl_manager.manual_dir), self.name)
        files = list_files(root)
        # Everything is found and cross-checked before the first byte is written.
        if self.builder_config.name == "official":
            splits = _official_splits(root, files)
        else:
            splits = _csv_splits(root, files)
        expected = self.EXPECTED[self.builder_config.name]
        found = {name: len(examples) for name, examples in splits.items()}
        if expected is not None and found != expected:
            raise DataError(
                f"{root} lists {_counts(found)} images where the published split has "
                f"{_counts(expected)}; download Data-split again."
            )
        return {name: self._generate_examples(examples) for name, examples in splits.items()}

    def _generate_examples(self, examples: list[_Example]) -> Iterator[tuple[str, dict[str, Any]]]:
        images = read_images([example.file for example in examples], workers=self.workers)
        for example, encoded in zip(examples, images, strict=True):
            yield (
                example.key,
                {
                    "image": encoded,
                    "label": example.label,
                    "key": example.key,
                    "patient": example.patient,
                },
            )


def _official_splits(root: Path, files: tuple[SourceFile, ...]) -> dict[str, list[_Example]]:
    splits: dict[str, list[_Example]] = {split: [] for split in SPLITS}
    for kind in OFFICIAL_CLASSES:
        patients = _patients(_only(root, files, kind.table), kind)
        images = _images_of_class(files, kind)
        listed: dict[str, str] = {}
        for split in SPLITS:
            listing = _only(root, files, f"{split}CT_{kind.suffix}.txt")
            for number, line in read_lines(listing):
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
                        f"{where}: the image '{name}' of the split is not in {kind.folder} below "
                        f"{root}; download or unpack {kind.folder}.zip again."
                    )
                if name not in patients:
                    raise DataError(
                        f"{where}: '{line}' has no row in {kind.table}; download it again."
                    )
                key = f"{kind.folder}/{name}"
                file = _one_of_equals(images[name], name)
                splits[split].append(_Example(key, file, kind.label, patients[name]))
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


def _csv_splits(root: Path, files: tuple[SourceFile, ...]) -> dict[str, list[_Example]]:
    by_path: dict[PurePosixPath, list[SourceFile]] = {}
    for file in files:
        by_path.setdefault(file.path, []).append(file)
    splits: dict[str, list[_Example]] = {}
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
            if row["label"] not in CLASS_NAMES:
                raise row.error(
                    f"the label '{row['label']}' is unknown; use {' or '.join(CLASS_NAMES)}."
                )
            path = PurePosixPath(row["filename"].replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise row.error(
                    f"the filename '{row['filename']}' leaves the table's folder; make it relative."
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
            splits[split].append(_Example(key, _one_of_equals(found, key), row["label"], ""))
    return splits


def _counts(counts: dict[str, int]) -> str:
    return " / ".join(str(counts[split]) for split in SPLITS)
