"""BUSI (Al-Dhabyani et al. 2020) as a TensorFlow Datasets builder that needs no TensorFlow."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from radimagenet_jax.data.image_builder import Example, ImageBuilder
from radimagenet_jax.data.images import check_image
from radimagenet_jax.data.masks import NO_MASK, encode_mask, mask_feature, read_mask
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, list_files, one_of_equals
from radimagenet_jax.data.splits import (
    FOLDS,
    SPLITS,
    Listed,
    check_counts,
    find_tables,
    read_tables,
    stand_in_examples,
    stand_in_note,
)
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
class Config(tfds.core.BuilderConfig):
    """One fold, with or without 'normal' as a class of its own."""

    fold: int = 1
    three_classes: bool = False


@dataclass
class _Picture:
    """An image of the source with its masks."""

    kind: str
    copies: list[SourceFile] = field(default_factory=list)
    masks: dict[str, list[SourceFile]] = field(default_factory=dict)


class Builder(ImageBuilder):
    """Breast ultrasound: benign, malignant, normal; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        *(
            Config(
                name=f"fold{fold}",
                fold=fold,
                description=f"Fold {fold}; 'normal' counts as benign, as in the published task.",
            )
            for fold in range(1, FOLDS + 1)
        ),
        *(
            Config(
                name=f"three_classes_fold{fold}",
                fold=fold,
                three_classes=True,
                description=f"Fold {fold}; 'normal' is a class of its own.",
            )
            for fold in range(1, FOLDS + 1)
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

    def class_names(self) -> Sequence[str]:
        """See `ImageBuilder`."""
        return OWNERS_CLASSES if self.builder_config.three_classes else PUBLISHED_LABELS

    def extra_features(self) -> dict[str, Any]:
        """See `ImageBuilder`."""
        return {"mask": mask_feature()}

    def find_examples(self, root: Path, problems: Problems) -> dict[str, list[Example]]:
        """See `ImageBuilder`."""
        files = list_files(root)
        pictures = _pictures(files)
        fold = self.builder_config.fold
        names = {split: f"breast_{split}_fold{fold}.csv" for split in SPLITS}
        tables = find_tables(root, files, names)
        if tables:
            listed = read_tables(tables, PUBLISHED_LABELS, problems)
            check_counts(listed, PUBLISHED_ROWS.get(fold, {}), problems)
            return self._published(root, listed, pictures, problems)
        _check_complete(root, pictures)
        self.notes.append(stand_in_note(fold, "image"))
        examples = [self._example(name, picture) for name, picture in sorted(pictures.items())]
        # The patient is unknown, but one picture under two names is of one patient.
        first: dict[str, str] = {}
        groups = {
            example.key: first.setdefault(_digest(pictures[Path(example.key).stem]), example.key)
            for example in examples
        }
        return stand_in_examples(examples, fold, groups=groups)

    def _published(
        self,
        root: Path,
        listed: dict[str, list[Listed]],
        pictures: dict[str, _Picture],
        problems: Problems,
    ) -> dict[str, list[Example]]:
        splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
        for split, rows in listed.items():
            for row in rows:
                with problems.collecting():
                    picture = pictures.get(row.path.stem)
                    if picture is None or not picture.copies:
                        raise row.row.error(
                            f"the image '{row.path.name}' is not below {root}; download "
                            "Dataset_BUSI_with_GT again."
                        )
                    if row.label != _published_label(picture.kind):
                        raise row.row.error(
                            f"'{row.path.name}' is labelled '{row.label}', which contradicts its "
                            "name; download the table again."
                        )
                    splits[split].append(self._example(row.path.stem, picture))
        return splits

    def _example(self, name: str, picture: _Picture) -> Example:
        kind = picture.kind
        label = kind if self.builder_config.three_classes else _published_label(kind)
        file = one_of_equals(picture.copies, f"{name}.png")
        masks = [one_of_equals(each, mask) for mask, each in sorted(picture.masks.items())]
        return Example(f"{kind}/{name}.png", label, _read(file, masks))


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


def _read(file: SourceFile, masks: Sequence[SourceFile]) -> Callable[[], dict[str, bytes]]:
    def read() -> dict[str, bytes]:
        encoded = file.read()
        shape = check_image(encoded, name=file.shown).shape[:2]
        if not masks:
            return {"image": encoded, "mask": NO_MASK}
        lesions = [read_mask(mask.read(), name=mask.shown, shape=shape) for mask in masks]
        return {"image": encoded, "mask": encode_mask(np.logical_or.reduce(lesions))}

    return read
