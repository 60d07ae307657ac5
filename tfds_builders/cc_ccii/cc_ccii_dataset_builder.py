"""CC-CCII (Zhang et al. 2020) as a TensorFlow Datasets builder that needs no TensorFlow."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import ClassVar

import tensorflow_datasets as tfds

from radimagenet_jax.data.fold_builder import Downloads, FoldBuilder, FoldConfig, Tables, Undivided
from radimagenet_jax.data.image_builder import Example, verified
from radimagenet_jax.data.source_files import SourceFile, grouped, named, one_of_equals
from radimagenet_jax.data.splits import Listed, relative_path
from radimagenet_jax.data.tables import Row, iterate_csv

# Common pneumonia, and novel coronavirus pneumonia; the third folder, Normal, is no class here.
CLASS_NAMES = ("CP", "NCP")
SUFFIXES = (".jpg", ".jpeg", ".png")
PUBLISHED_ROWS = {"train": 44_644, "val": 4_367, "test": 9_755}
LESION_TABLE = "lesions_slices.csv"

# The slices of both classes by '<class>/<patient>/<scan>/<slice>'.
Images = dict[str, list[SourceFile]]


class Builder(FoldBuilder[Images]):
    """Chest CT slices of COVID-19 or other pneumonia; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[FoldConfig]] = FoldConfig.published_and_folds()
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
        return CLASS_NAMES

    def published_tables(self) -> Tables | None:
        if self.builder_config.fold:
            return None
        return Tables("sarscovid2_{split}.csv", PUBLISHED_ROWS)

    def find_source(self, downloads: Downloads) -> Images:
        images = grouped(
            downloads.files,
            lambda file: _key(file.path) if file.path.suffix.lower() in SUFFIXES else None,
        )
        if not images:
            raise downloads.missing("image CP/<patient>/<scan>/<slice>.png or NCP/...")
        return images

    def published_example(self, row: Listed, source: Images, downloads: Downloads) -> Example:
        example = _listed_example(row.row, row.path, source, downloads)
        if row.label != example.label:
            raise row.row.error(
                f"'{example.key}' is labelled '{row.label}' and lies in the folder "
                f"{example.label}; download the table again."
            )
        patient = row.row.values.get("pid", "")
        if patient not in ("", example.patient):
            raise row.row.error(
                f"'{example.key}' has the patient '{patient}' and lies in the folder of "
                f"{example.patient}; download the table again."
            )
        return example

    def undivided(self, source: Images, downloads: Downloads) -> Undivided:
        table = named(downloads.files, LESION_TABLE)
        if table is not None:
            examples = _lesions(table, source, downloads)
            return Undivided(examples, note=f"{{split}}, with the slices of {LESION_TABLE}.")
        every = [_example(key, one_of_equals(files, key)) for key, files in source.items()]
        return Undivided(every, note="{split}, with every slice.")


def _key(path: PurePosixPath) -> str | None:
    """Returns the end of a path from its class on, None where that is none of ours."""
    own = path.parts[-4:]
    return "/".join(own) if len(own) == 4 and own[0] in CLASS_NAMES else None


def _lesions(table: SourceFile, images: Images, downloads: Downloads) -> list[Example]:
    """Returns the slices with a lesion, by the owners' table."""
    examples: list[Example] = []
    rows: dict[str, Row] = {}
    for row in iterate_csv(table, ["imgpath"], downloads.problems):
        with downloads.problems.collecting():
            path = relative_path(row, "imgpath")
            key = _listed_key(row, path)
            first = rows.setdefault(key, row)
            if first is not row:
                raise row.error(f"'{key}' is listed before, in row {first.number}; remove one.")
            examples.append(_listed_example(row, path, images, downloads))
    return examples


def _listed_key(row: Row, path: PurePosixPath) -> str:
    key = _key(path)
    if key is None:
        raise row.error(
            f"'{path}' does not end in CP or NCP/<patient>/<scan>/<slice>; download the table "
            "again."
        )
    return key


def _listed_example(row: Row, path: PurePosixPath, images: Images, downloads: Downloads) -> Example:
    key = _listed_key(row, path)
    if key not in images:
        raise row.error(
            f"the image '{key}' is not below {downloads.root}; download or unpack its zip again."
        )
    return _example(key, one_of_equals(images[key], key))


def _example(key: str, file: SourceFile) -> Example:
    kind, patient = key.split("/")[:2]
    # As the published tables write a patient: the numbers repeat across classes.
    return Example(key, kind, verified(file), patient=f"{kind}_{patient}")
