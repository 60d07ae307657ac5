"""CC-CCII (Zhang et al. 2020) as a TensorFlow Datasets builder that needs no TensorFlow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

import tensorflow_datasets as tfds

from radimagenet_jax.data.image_builder import Example, ImageBuilder, verified
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import (
    Row,
    SourceFile,
    iterate_csv,
    list_files,
    one_of_equals,
)
from radimagenet_jax.data.splits import (
    FOLDS,
    SPLITS,
    Listed,
    check_counts,
    find_tables,
    fold_of,
    read_tables,
    relative_path,
    stand_in_examples,
    stand_in_note,
)
from radimagenet_jax.errors import DataError

# Common pneumonia, and novel coronavirus pneumonia; the third folder, Normal, is no class here.
CLASS_NAMES = ("CP", "NCP")
SUFFIXES = (".jpg", ".jpeg", ".png")
PUBLISHED_ROWS = {"train": 44_644, "val": 4_367, "test": 9_755}
TABLES = {split: f"sarscovid2_{split}.csv" for split in SPLITS}
LESION_TABLE = "lesions_slices.csv"


@dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """The published split (fold 0), or one fold by patient."""

    fold: int = 0


class Builder(ImageBuilder):
    """Chest CT slices of COVID-19 or other pneumonia; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(name="published", description="The published split, or fold 1 in its place."),
        *(
            Config(name=f"fold{fold}", fold=fold, description=f"Fold {fold} of five, by patient.")
            for fold in range(1, FOLDS + 1)
        ),
    ]
    TERMS = (
        "CC-CCII is under the terms of its owners' page, reported to be CC BY 3.0 CN: cite Zhang "
        "et al. 2020 (http://ncov-ai.big.ac.cn/download)."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "download the zips of CP and NCP and lesions_slices.csv from http://ncov-ai.big.ac.cn/"
        "download and put them there, packed or unpacked (CP/<patient>/<scan>/<slice>.png), and "
        "the published sarscovid2_{train,val,test}.csv, if you have them, into the folder splits "
        "beside them"
    )
    HOMEPAGE = "http://ncov-ai.big.ac.cn/download"

    def class_names(self) -> Sequence[str]:
        """See `ImageBuilder`."""
        return CLASS_NAMES

    def find_examples(self, root: Path, problems: Problems) -> dict[str, list[Example]]:
        """See `ImageBuilder`."""
        files = list_files(root)
        images = _images(files)
        if not images:
            raise DataError(
                f"{root} has no image CP/<patient>/<scan>/<slice>.png or NCP/...; "
                f"{self.MANUAL_DOWNLOAD_INSTRUCTIONS}."
            )
        tables = None if self.builder_config.fold else find_tables(root, files, TABLES)
        if tables:
            listed = read_tables(tables, CLASS_NAMES, problems)
            check_counts(listed, PUBLISHED_ROWS, problems)
            return _published(root, listed, images, problems)
        fold = self.builder_config.fold or 1
        lesions = _lesions(root, files, images, problems)
        problems.check()
        which = f"the slices of {LESION_TABLE}" if lesions is not None else "every slice"
        if self.builder_config.fold:
            self.notes.append(f"{fold_of(fold, 'patient')}, with {which}.")
        else:
            self.notes.append(f"{stand_in_note(fold, 'patient')[:-1]}, with {which}.")
        keys = images if lesions is None else lesions
        examples = [_example(key, one_of_equals(images[key], key)) for key in keys]
        return stand_in_examples(examples, fold)


def _images(files: Sequence[SourceFile]) -> dict[str, list[SourceFile]]:
    """Returns the slices of both classes by '<class>/<patient>/<scan>/<slice>'."""
    images: dict[str, list[SourceFile]] = {}
    for file in files:
        key = _key(file.path)
        if key and file.path.suffix.lower() in SUFFIXES:
            images.setdefault(key, []).append(file)
    return images


def _key(path: PurePosixPath) -> str:
    """Returns the end of a path from its class on, '' where that is none of ours."""
    own = path.parts[-4:]
    return "/".join(own) if len(own) == 4 and own[0] in CLASS_NAMES else ""


def _published(
    root: Path,
    listed: Mapping[str, Sequence[Listed]],
    images: Mapping[str, Sequence[SourceFile]],
    problems: Problems,
) -> dict[str, list[Example]]:
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for split, rows in listed.items():
        for row in rows:
            with problems.collecting():
                key = _listed_key(row.row, row.path)
                file = _file(root, row.row, key, images)
                kind = key.partition("/")[0]
                if row.label != kind:
                    raise row.row.error(
                        f"'{key}' is labelled '{row.label}' and lies in the folder {kind}; "
                        "download the table again."
                    )
                patient = row.row.values.get("pid", "")
                if patient not in ("", _patient(key)):
                    raise row.row.error(
                        f"'{key}' has the patient '{patient}' and lies in the folder of "
                        f"{_patient(key)}; download the table again."
                    )
                splits[split].append(_example(key, file))
    return splits


def _lesions(
    root: Path,
    files: Sequence[SourceFile],
    images: Mapping[str, Sequence[SourceFile]],
    problems: Problems,
) -> list[str] | None:
    """Returns the keys of the slices with a lesion, None where the owners' table is missing."""
    found = [file for file in files if file.name == LESION_TABLE]
    if not found:
        return None
    rows: dict[str, Row] = {}
    for row in iterate_csv(one_of_equals(found, LESION_TABLE), ["imgpath"], problems):
        with problems.collecting():
            key = _listed_key(row, relative_path(row, "imgpath"))
            first = rows.setdefault(key, row)
            if first is not row:
                raise row.error(f"'{key}' is listed before, in row {first.number}; remove one.")
            _file(root, row, key, images)
    return list(rows)


def _listed_key(row: Row, path: PurePosixPath) -> str:
    key = _key(path)
    if not key:
        raise row.error(
            f"'{path}' does not end in CP or NCP/<patient>/<scan>/<slice>; download the table "
            "again."
        )
    return key


def _file(root: Path, row: Row, key: str, images: Mapping[str, Sequence[SourceFile]]) -> SourceFile:
    if key not in images:
        raise row.error(f"the image '{key}' is not below {root}; download or unpack its zip again.")
    return one_of_equals(images[key], key)


def _patient(key: str) -> str:
    """Returns the patient as the published tables write it: the numbers repeat across classes."""
    kind, patient = key.split("/")[:2]
    return f"{kind}_{patient}"


def _example(key: str, file: SourceFile) -> Example:
    return Example(key, key.partition("/")[0], verified(file), patient=_patient(key))
