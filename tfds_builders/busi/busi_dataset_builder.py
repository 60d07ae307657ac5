"""BUSI (Al-Dhabyani et al. 2020) as a TensorFlow Datasets builder that needs no TensorFlow."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from radimagenet_jax.data.fold_builder import Downloads, FoldBuilder, FoldConfig, Tables, Undivided
from radimagenet_jax.data.image_builder import Example
from radimagenet_jax.data.masks import mask_feature, masked
from radimagenet_jax.data.source_files import SourceFile, one_of_equals
from radimagenet_jax.data.splits import Listed
from radimagenet_jax.errors import DataError

# How the owners name an image and its masks: 'benign (4).png', 'benign (4)_mask_1.png'.
_NAME = re.compile(r"((benign|malignant|normal) \(\d+\))(_mask(?:_\d+)?)?\.png")
PUBLISHED_LABELS = ("benign", "malignant")
OWNERS_CLASSES = ("benign", "malignant", "normal")
# Images a class, as the owners count them.
CLASS_COUNTS = {"benign": 437, "malignant": 210, "normal": 133}
# Rows of the published tables, by fold, as far as they are known.
PUBLISHED_ROWS = {1: {"train": 561, "val": 63, "test": 156}, 2: {"test": 156}}


@dataclass(kw_only=True)
class Config(FoldConfig):
    """One fold, with or without 'normal' as a class of its own."""

    three_classes: bool = False


@dataclass
class _Picture:
    """An image of the source with its masks."""

    kind: str
    copies: list[SourceFile] = field(default_factory=list)
    masks: dict[str, list[SourceFile]] = field(default_factory=dict)


class Builder(FoldBuilder[dict[str, _Picture]]):
    """Breast ultrasound: benign, malignant, normal; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        *Config.folds("Fold {fold}; 'normal' counts as benign, as in the published task."),
        *Config.folds(
            "Fold {fold}; 'normal' is a class of its own.",
            prefix="three_classes_",
            three_classes=True,
        ),
    ]
    TERMS = (
        "BUSI is under CC BY 4.0: cite Al-Dhabyani et al. 2020 "
        "(https://doi.org/10.1016/j.dib.2019.104863)."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "download Dataset_BUSI_with_GT from https://scholar.cu.edu.eg/?q=afahmy/pages/dataset and "
        "put the folder or the zip there, and the published tables breast_{train,val,test}_fold<k>."
        "csv, if you have them, into the folder splits beside it"
    )
    HOMEPAGE = "https://doi.org/10.1016/j.dib.2019.104863"
    UNIT = "image"

    def class_names(self) -> Sequence[str]:
        return OWNERS_CLASSES if self.builder_config.three_classes else PUBLISHED_LABELS

    def extra_features(self) -> dict[str, Any]:
        return {"mask": mask_feature()}

    def published_tables(self) -> Tables:
        fold = self.builder_config.fold
        rows = PUBLISHED_ROWS.get(fold, {})
        return Tables(f"breast_{{split}}_fold{fold}.csv", rows, PUBLISHED_LABELS)

    def find_source(self, downloads: Downloads) -> dict[str, _Picture]:
        return _pictures(downloads.files)

    def published_example(
        self, row: Listed, source: dict[str, _Picture], downloads: Downloads
    ) -> Example:
        picture = source.get(row.path.stem)
        if picture is None or not picture.copies:
            raise row.row.error(
                f"the image '{row.path.name}' is not below {downloads.root}; download "
                "Dataset_BUSI_with_GT again."
            )
        if row.label != _published_label(picture.kind):
            raise row.row.error(
                f"'{row.path.name}' is labelled '{row.label}', which contradicts its name; "
                "download the table again."
            )
        return self._example(row.path.stem, picture)

    def undivided(self, source: dict[str, _Picture], downloads: Downloads) -> Undivided:
        _check_complete(downloads.root, source)
        examples = {name: self._example(name, picture) for name, picture in sorted(source.items())}
        # The patient is unknown, but one picture under two names is of one patient.
        first: dict[str, str] = {}
        groups = {
            example.key: first.setdefault(_digest(source[name]), example.key)
            for name, example in examples.items()
        }
        return Undivided(list(examples.values()), groups)

    def _example(self, name: str, picture: _Picture) -> Example:
        kind = picture.kind
        label = kind if self.builder_config.three_classes else _published_label(kind)
        file = one_of_equals(picture.copies, f"{name}.png")
        masks = [one_of_equals(each, mask) for mask, each in sorted(picture.masks.items())]
        return Example(f"{kind}/{name}.png", label, masked(file, masks))


def _pictures(files: Sequence[SourceFile]) -> dict[str, _Picture]:
    """Returns the images by their names without '.png', wherever they were unpacked."""
    pictures: dict[str, _Picture] = {}
    for file in files:
        if match := _NAME.fullmatch(file.name):
            picture = pictures.setdefault(match[1], _Picture(match[2]))
            if match[3]:
                picture.masks.setdefault(file.name, []).append(file)
            else:
                picture.copies.append(file)
    return pictures


def _check_complete(root: Path, pictures: dict[str, _Picture]) -> None:
    for name, picture in pictures.items():
        if not picture.copies:
            raise DataError(
                f"{root} has a mask of '{name}.png' but not the image; download "
                "Dataset_BUSI_with_GT again."
            )
    found = Counter(picture.kind for picture in pictures.values())
    if found != CLASS_COUNTS:
        counts = " / ".join(str(found[kind]) for kind in OWNERS_CLASSES)
        expected = " / ".join(str(CLASS_COUNTS[kind]) for kind in OWNERS_CLASSES)
        raise DataError(
            f"{root} has {counts} images (benign / malignant / normal) where BUSI has {expected}; "
            "download Dataset_BUSI_with_GT again."
        )


def _digest(picture: _Picture) -> str:
    return hashlib.sha256(picture.copies[0].read()).hexdigest()


def _published_label(kind: str) -> str:
    return "benign" if kind == "normal" else kind
